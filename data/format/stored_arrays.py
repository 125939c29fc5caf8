"""Stored arrays over rows in memory and back, without a copy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .arrow_types import arrow_type, stored_dtype
from .columns import Column
from .ragged import Ragged
from .shards import Values


def tensor_array(column: Column, values: npt.NDArray[Any]) -> pa.Array:
    """The stored array of a tensor column over C-contiguous values of its dtype, without copying them."""
    flat = _flat(column, values)
    if not column.shape:
        return flat
    return pa.ExtensionArray.from_storage(
        arrow_type(column), pa.FixedSizeListArray.from_arrays(flat, math.prod(column.shape))
    )


def list_array(column: Column, row_splits: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> pa.Array:
    """The stored array of a list column over its values and row splits."""
    flat = _flat(column, values)
    if column.shape:
        flat = pa.FixedSizeListArray.from_arrays(flat, math.prod(column.shape))
    splits = pa.py_buffer(row_splits)
    return pa.Array.from_buffers(arrow_type(column), len(row_splits) - 1, [None, splits], children=[flat])


def _flat(column: Column, values: npt.NDArray[Any]) -> pa.Array:
    dtype = stored_dtype(column)
    flat = np.ascontiguousarray(values, column.dtype).reshape(-1).view(dtype)
    return pa.Array.from_buffers(pa.from_numpy_dtype(dtype), flat.size, [None, pa.py_buffer(flat)])


def values_of(column: Column, array: pa.Array) -> Values:
    """The rows of a stored array, sharing its memory."""
    if column.kind == "tensor":
        flat = array.storage.flatten() if column.shape else array
        return flat.to_numpy().view(column.dtype).reshape(len(array), *column.shape)
    splits = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    if not len(array):
        splits = np.zeros(1, np.int64)
    if column.kind == "list":
        flat = array.flatten().flatten() if column.shape else array.flatten()
        values = flat.to_numpy().view(column.dtype).reshape(-1, *column.shape)
        return Ragged(values, splits - splits[0], "list")
    data = array.buffers()[2]
    values = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)[splits[0] : splits[-1]]
    return Ragged(values, splits - splits[0], column.kind)
