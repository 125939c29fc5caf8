"""Numbers that TensorFlow and numpy look at in the same memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from heliostat.cluster.vectors import Vector
from heliostat.data.format.memory import ALIGNMENT_BYTES, aligned_empty
from ml_dtypes import bfloat16

from .layout import VectorLayout

CPU = "CPU:0"


def all_finite(vector: np.ndarray) -> bool:
    """Whether all numbers are finite; one pass over the memory unless the answer is in doubt."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.dot(vector, vector))) or bool(np.isfinite(vector).all())


def host_view(tensor: tf.Tensor) -> np.ndarray:
    """A tensor's numbers in host memory, without a copy where they lie there already (read-only then)."""
    try:
        return np.frombuffer(memoryview(tensor), dtype=tensor.dtype.as_numpy_dtype)
    except (TypeError, ValueError, BufferError):
        return np.ascontiguousarray(tensor.numpy())


def to_tensor(array: np.ndarray) -> tf.Tensor:
    """A tensor over the same memory; `array` must be aligned to `ALIGNMENT_BYTES` and writable. Texts are copied."""
    if array.dtype in (np.bool_, np.object_) or not array.size:
        return tf.constant(array)
    if array.dtype == bfloat16:  # numpy does not hand that out
        return tf.bitcast(to_tensor(array.view(np.uint16)), tf.bfloat16)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def copied_to_tensor(array: np.ndarray) -> tf.Tensor:
    """A tensor of the same numbers; for a few of them this takes a third of the time of `tf.constant`."""
    copied = aligned_empty(array.shape, array.dtype)
    copied[...] = array
    return to_tensor(copied)


def flat_values(parts: Sequence[tf.Tensor], dtype: np.dtype | tf.DType) -> tf.Tensor:
    """The elements of all parts, one after another, in one dtype."""
    pieces = [tf.reshape(tf.cast(part, dtype), (-1,)) for part in parts]
    if not pieces:
        return tf.zeros((0,), dtype)
    return pieces[0] if len(pieces) == 1 else tf.concat(pieces, 0)


class HostViews:
    """Host views of tensors, and the way back from a view to its tensor."""

    def __init__(self) -> None:
        self._known: list[tuple[np.ndarray, tf.Tensor]] = []

    def of(self, tensor: tf.Tensor, *, stands_for: tf.Tensor | None = None) -> np.ndarray:
        """The tensor's numbers, see `host_view`; those of `stands_for`, if it is a copy of that one on a device."""
        view = host_view(tensor)
        self._known.append((view, tensor if stands_for is None else stands_for))
        return view

    def tensor_of(self, array: np.ndarray) -> tf.Tensor:
        """The tensor that was viewed as `array`, or one over the memory of any other writable array."""
        for view, tensor in self._known:
            if view is array:
                return tensor
        return to_tensor(array)

    def forget(self) -> None:
        """Let go of all tensors."""
        self._known.clear()


def memory_of_sums(layout: VectorLayout, gpus: Sequence[str]) -> Vector:
    """Uninitialised host memory for the sum of a step, aligned to 64 bytes.

    Args:
        layout: what lies in the sum.
        gpus: devices of this worker's replicas where they are GPUs, else none; a sum is copied to the first.
    """
    num_float = len(layout.float_buckets)
    return tuple(
        memory_towards(gpus[0], length, dtype) if gpus and number < num_float else aligned_empty((length,), dtype)
        for number, (dtype, length) in enumerate(layout.buckets)
    )


def memory_towards(device: str, length: int, dtype: np.dtype) -> np.ndarray:
    """Uninitialised host memory for numbers on their way to `device`, aligned to 64 bytes.

    TensorFlow keeps what comes from a GPU in page-locked memory, which a copy to a GPU needs as well to run at full
    speed; so it is made of such a tensor. It lives as long as the array.
    """
    if not length:
        return aligned_empty((length,), dtype)

    @tf.function(autograph=False)
    def bring(value: tf.Tensor) -> tf.Tensor:
        with tf.device(device):
            there = tf.fill((length,), value)
        with tf.device(CPU):
            return tf.identity(there)

    tensor = bring(tf.zeros((), dtype))
    view = host_view(tensor)
    if view.ctypes.data % ALIGNMENT_BYTES:
        return aligned_empty((length,), dtype)
    memory: Any = (ctypes.c_char * view.nbytes).from_address(view.ctypes.data)
    memory.owners = tensor, view
    return np.frombuffer(memory, dtype=dtype)
