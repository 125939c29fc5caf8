"""Memory that rows are read into: aligned as TensorFlow needs it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

ALIGNMENT_BYTES = 64
"""TensorFlow ends the process when it is handed (DLPack) memory that is not aligned to this; numpy promises 16."""


def aligned_empty(shape: Sequence[int], dtype: npt.DTypeLike, alignment: int = ALIGNMENT_BYTES) -> npt.NDArray[Any]:
    """An uninitialised C-contiguous array whose first byte lies at a multiple of `alignment`."""
    kind = np.dtype(dtype)
    num_bytes = math.prod(shape) * kind.itemsize
    block = np.empty(num_bytes + alignment, np.uint8)
    start = -block.ctypes.data % alignment
    return np.ndarray(tuple(shape), kind, buffer=block, offset=start)


def aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array itself if it is contiguous, writeable and aligned to 64 bytes, else a copy that is."""
    if array.flags.c_contiguous and array.flags.writeable and array.ctypes.data % ALIGNMENT_BYTES == 0:
        return array
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy
