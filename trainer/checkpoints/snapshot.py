"""Training state between two steps, as plain values: what a new worker, a resumed run or a checkpoint needs.

One value for three uses: a worker that joins is handed a snapshot, a checkpoint is one in files, and a run that goes on
begins from one. The model's part of a run's identity is here as well: whose state it is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import xxhash

from ..engine.model import BuiltModel
from ..engine.state import state_arrays
from ..errors import CheckpointError, DamagedStateError
from .values import Value, decode, encode

_STATE, _TOTALS, _CALLBACKS = "state", "totals", "callbacks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state before `step` of `epoch`.

    Attributes:
        epoch, step: the data position.
        begun: whether the epoch's begin hooks have run.
        tensors: weights, optimizer state, sums of metrics and arrays of callbacks, by name.
        extra: everything else, by name, as `values.encode` made it; `values` decodes it.
    """

    epoch: int
    step: int
    begun: bool
    tensors: Mapping[str, np.ndarray]
    extra: dict[str, Any]

    def part(self, name: str) -> dict[str, np.ndarray]:
        """The tensors whose names begin with ``name/``, without that."""
        start = f"{name}/"
        return {key[len(start) :]: value for key, value in self.tensors.items() if key.startswith(start)}

    @property
    def totals(self) -> dict[str, np.ndarray]:
        """The sums of metrics."""
        return self.part(_TOTALS)

    def values(self) -> dict[str, Any]:
        """What `make_snapshot` was given as `extra`; raises DamagedStateError."""
        try:
            arrays = self.part(_CALLBACKS)
            found = {name: decode(value, arrays) for name, value in self.extra.items()}
            if not all(isinstance(state, dict) for state in found.get("callbacks", ())):
                raise ValueError("it holds no list of states")
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedStateError(f"{type(error).__name__}: {error}") from error
        return found


def make_snapshot(
    built: BuiltModel,
    *,
    epoch: int,
    step: int,
    begun: bool,
    totals: Mapping[str, np.ndarray],
    extra: dict[str, Value],
) -> Snapshot:
    """Copy the state to host memory; the optimizer's variables must be up to date (`Step.sync_variables`).

    Args:
        built: the model.
        epoch, step, begun: see `Snapshot`.
        totals: sums of metrics, float64.
        extra: everything else, states of callbacks as `callbacks`; its arrays are not copied.

    Raises:
        ValueNotCarriedError: `extra` holds what is no value.
    """
    state = dict(zip(_names(built), state_arrays(built), strict=True))
    arrays: dict[str, np.ndarray] = {}
    described = {name: encode(value, arrays, name) for name, value in extra.items()}
    parts = {_STATE: state, _TOTALS: totals, _CALLBACKS: arrays}
    tensors = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
    return Snapshot(epoch=epoch, step=step, begun=begun, tensors=tensors, extra=described)


def restore_state(built: BuiltModel, snapshot: Snapshot) -> None:
    """Write the state of a snapshot into every replica of a model.

    A model whose optimizers are not known takes its weights, by their paths.

    Raises:
        CheckpointError: it is of another model.
    """
    found = snapshot.part(_STATE)
    names = _names(built)
    if not built.optimizers:
        found, names = _by_path(found, {variable.path for variable in built.state}), [v.path for v in built.state]
    shapes = {name: tuple(variable.shape) for name, variable in zip(names, built.state, strict=True)}
    wrong = [name for name in {**shapes, **found} if name not in found or found[name].shape != shapes.get(name)]
    if wrong:
        raise CheckpointError(
            f"The saved state is of another model: {len(wrong)} of {len(shapes)} variables differ, the first is "
            f"{sorted(wrong)[0]!r}. build_model must return the model with which the run began."
        )
    for name, variable in zip(names, built.state, strict=True):
        for part in built.components(variable):
            part.assign(found[name])


def model_identity(built: BuiltModel) -> dict[str, str]:
    """Hashes by part: layers and their settings, the optimizer's kind, the loss, shapes and types of all state."""
    model = built.model
    return {
        "layers": _hash(_config(model)),
        "optimizer": _hash(" ".join(type(optimizer).__name__ for optimizer in built.optimizers)),
        "loss": _hash(str(model.loss if isinstance(model.loss, str) else type(model.loss).__name__)),
        "jit_compile": str(built.jit_compile),
        "state": _hash([[tuple(v.shape), str(v.dtype)] for v in built.state]),
    }


def model_settings(built: BuiltModel) -> dict[str, Any]:
    """The settings by part, as Keras gives them: what the model is compiled with, layers, all state by name.

    Optimizers that a step applies besides the compiled one, or instead of it, are a part of their own.
    """
    found = _config(built.model)
    layers: dict[str, Any] = dict(found) if isinstance(found, dict) else {"class_name": found}
    compiled: dict[str, Any] = layers.pop("compile_config", None) or {"optimizer": type(built.optimizer).__name__}
    state = zip(_names(built), built.state, strict=True)
    if built.optimizers != (built.model.optimizer,):
        compiled = {name: value for name, value in compiled.items() if name != "optimizer"}
        layers |= {"optimizers": [_settings_of(each) for each in built.optimizers]} if built.optimizers else {}
    return {
        **{name: value for name, value in compiled.items() if name != "jit_compile"},
        "jit_compile": built.jit_compile,
        **layers,
        **({"state": {n: f"{v.dtype} {tuple(v.shape)}" for n, v in state}} if built.optimizers else {}),
    }


def _settings_of(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(json.dumps(keras.optimizers.serialize(optimizer), default=str))
    except Exception:  # get_config is the user's code
        return {"class_name": type(optimizer).__name__}
    return found


def _by_path(found: Mapping[str, np.ndarray], paths: set[str]) -> dict[str, np.ndarray]:
    """Of a saved state what has these paths; none that two variables have."""
    number = Counter(name.partition(".")[2] for name in found)
    by_path = {name.partition(".")[2]: value for name, value in found.items()}
    return {path: by_path[path] for path in paths if number[path] == 1}


def _names(built: BuiltModel) -> list[str]:
    """A name for each variable of the state, in order; paths alone need not be unique."""
    return [f"{number:05d}.{variable.path}" for number, variable in enumerate(built.state)]


def _config(model: keras.Model) -> object:
    try:
        return json.loads(model.to_json())
    except Exception:  # a subclassed model without get_config; the state's shapes still tell
        return type(model).__name__


def _hash(value: object) -> str:
    return str(xxhash.xxh3_64(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest())
