"""Training state as bytes: reading, writing, hashing and copying it between workers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import xxhash
from heliostat.cluster.vectors import joined

from .model import BuiltModel
from .tensors import host_view


def state_arrays(built: BuiltModel) -> list[np.ndarray]:
    """Weights, then optimizer state, as host arrays (copies), in `BuiltModel.state`'s order."""
    return [view.copy() for view in _state_views(built)]


def state_digest(built: BuiltModel) -> str:
    """xxh3_128 over all training state, hexadecimal: equal on workers that hold the same state."""
    digest = xxhash.xxh3_128()
    for value in built.read_state():
        digest.update(_raw(host_view(value)))
    return digest.hexdigest()


def state_sha256(built: BuiltModel) -> dict[str, str]:
    """SHA-256 of the weights and of the optimizer state, hexadecimal: the proof of invariance."""
    views = _state_views(built)
    num_weights = len(built.trainable) + len(built.non_trainable)
    return {"weights": _sha256(views[:num_weights]), "optimizer": _sha256(views[num_weights:])}


def _sha256(views: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for view in views:
        digest.update(_raw(view).data)
    return digest.hexdigest()


def state_pieces(built: BuiltModel) -> list[np.ndarray]:
    """All training state as it is now, raw, one variable after the other: views, without copies where that goes."""
    return [_raw(view) for view in _state_views(built)]


def state_bytes(built: BuiltModel) -> memoryview:
    """All training state, raw, one variable after the other: a copy."""
    return joined(state_pieces(built))


def shapes_digest(built: BuiltModel) -> bytes:
    """xxh3_128 over shapes and dtypes of all training state, 16 bytes: equal for models that can exchange states."""
    shapes = [(tuple(variable.shape), str(variable.dtype)) for variable in built.state]
    return xxhash.xxh3_128(repr(shapes).encode()).digest()


def assign_state(built: BuiltModel, payload: bytes | memoryview) -> None:
    """Write `state_bytes` of another worker, whose `shapes_digest` is the same, into every replica of this one."""
    at = 0
    for variable in built.state:
        parts = built.components(variable)
        dtype = parts[0].dtype.as_numpy_dtype
        count = int(np.prod(variable.shape))
        value = np.frombuffer(payload, dtype=dtype, count=count, offset=at).reshape(tuple(variable.shape))
        at += value.nbytes
        for part in parts:
            part.assign(value)


def _state_views(built: BuiltModel) -> list[np.ndarray]:
    """The state as it is now in host memory, without copies where it lies there already (read-only then)."""
    return [host_view(value).reshape(value.shape) for value in built.read_state()]


def _raw(view: np.ndarray) -> np.ndarray:
    return view.reshape(-1).view(np.uint8)
