"""Training state between two steps, as plain values: what a new worker, a resumed run or a checkpoint needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.model import BuiltModel
from ..engine.state import state_arrays
from ..errors import CheckpointError

_STATE, _TOTALS, _CALLBACKS = "state", "totals", "callbacks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state before `step` of `epoch`.

    Attributes:
        epoch, step: the data position.
        begun: whether the epoch's begin hooks have run.
        tensors: weights, optimizer state, sums of metrics and arrays of callbacks, by name.
        extra: everything else, as JSON values.
    """

    epoch: int
    step: int
    begun: bool
    tensors: Mapping[str, np.ndarray]
    extra: Mapping[str, Any]

    def part(self, name: str) -> dict[str, np.ndarray]:
        """The tensors whose names begin with ``name/``, without that."""
        start = f"{name}/"
        return {key[len(start) :]: value for key, value in self.tensors.items() if key.startswith(start)}


def make_snapshot(
    built: BuiltModel,
    *,
    epoch: int,
    step: int,
    begun: bool,
    totals: Mapping[str, np.ndarray],
    callback_arrays: Mapping[str, np.ndarray],
    extra: Mapping[str, Any],
) -> Snapshot:
    """Copy the state to host memory; the optimizer's variables must be up to date (`Step.sync_variables`)."""
    state = dict(zip(_names(built), state_arrays(built), strict=True))
    parts = {_STATE: state, _TOTALS: totals, _CALLBACKS: callback_arrays}
    tensors = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
    return Snapshot(epoch=epoch, step=step, begun=begun, tensors=tensors, extra=extra)


def restore_state(built: BuiltModel, snapshot: Snapshot) -> None:
    """Write the state of a snapshot into every replica of a model.

    Raises:
        CheckpointError: it is of another model.
    """
    found = snapshot.part(_STATE)
    names = _names(built)
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


def totals_of(snapshot: Snapshot) -> dict[str, np.ndarray]:
    """The sums of metrics in a snapshot."""
    return snapshot.part(_TOTALS)


def callback_arrays_of(snapshot: Snapshot) -> dict[str, np.ndarray]:
    """The arrays of callbacks in a snapshot."""
    return snapshot.part(_CALLBACKS)


def _names(built: BuiltModel) -> list[str]:
    """A name for each variable of the state, in order; paths alone need not be unique."""
    return [f"{number:05d}.{variable.path}" for number, variable in enumerate(built.state)]
