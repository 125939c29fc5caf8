"""What identifies a model and a run: what must be equal so that a run can go on from a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import xxhash

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..engine.model import BuiltModel


def model_identity(built: BuiltModel) -> dict[str, str]:
    """Hashes by part: layers and their settings, the optimizer's kind, the loss, shapes and types of all state."""
    model = built.model
    return {
        "layers": _hash(_config(model)),
        "optimizer": _hash(type(built.optimizer).__name__),
        "loss": _hash(str(model.loss if isinstance(model.loss, str) else type(model.loss).__name__)),
        "jit_compile": str(built.jit_compile),
        "state": _hash([[tuple(v.shape), str(v.dtype)] for v in built.state]),
    }


def check_identity(recorded: Mapping[str, Any], now: Mapping[str, Any], run_dir: Any) -> None:
    """Raise `ConfigurationError` that names what differs between a run's beginning and what it is to go on with."""
    flat_before, flat_now = _flat(recorded), _flat(now)
    differing = [name for name in {**flat_before, **flat_now} if flat_before.get(name) != flat_now.get(name)]
    if not differing:
        return
    lines = [
        f"  {name}: it began with {flat_before.get(name)!r}, and now it is {flat_now.get(name)!r}" for name in differing
    ]
    raise ConfigurationError(
        f"The run in {str(run_dir)!r} cannot go on, because its result would be that of neither the old nor the new "
        "run:\n" + "\n".join(lines) + "\nPut back what has changed, or begin a new run with another run_dir."
    )


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[f"{above}{name}"] = value
    return flat


def _config(model: Any) -> Any:
    try:
        return json.loads(model.to_json())
    except Exception:  # a subclassed model without get_config; the state's shapes still tell
        return type(model).__name__


def _hash(value: Any) -> str:
    return str(xxhash.xxh3_64(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest())
