"""Numbers that TensorFlow and numpy look at in the same memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def host_view(tensor: Any) -> np.ndarray:
    """A tensor's numbers in host memory, without a copy where they lie there already (read-only then)."""
    try:
        return np.frombuffer(memoryview(tensor), dtype=tensor.dtype.as_numpy_dtype)
    except (TypeError, ValueError, BufferError):
        return np.ascontiguousarray(tensor.numpy())


def to_tensor(array: np.ndarray) -> Any:
    """A tensor over the same memory; `array` must be aligned to 64 bytes and writable."""
    if array.dtype == np.bool_ or not array.size:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
