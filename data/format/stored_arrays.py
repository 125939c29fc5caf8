"""Rows in memory as Arrow arrays and back, without a copy where numpy and Arrow lay them out alike.

A stored array is what lies in a shard (`arrow_types`): bools are bytes, nothing is missing, lists of fixed sizes are
tensors. An array that was given may be anything else: `ragged_array` makes one of `Ragged`, `listed` and `fixed` wrap
flat values up; `as_stored` then makes it a stored one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import BadColumnError
from .arrow_types import arrow_type, stored_dtype
from .columns import Column
from .ragged import Ragged, Values


def tensor_array(column: Column, values: npt.NDArray[Any]) -> pa.Array:
    """The stored array of a tensor column over C-contiguous values of its dtype, without copying them."""
    flat = _flat(column, values)
    if not column.shape:
        return flat
    return pa.ExtensionArray.from_storage(arrow_type(column), fixed(flat, [math.prod(column.shape)]))


def list_array(column: Column, row_splits: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> pa.Array:
    """The stored array of a list column over its values and row splits."""
    flat = _flat(column, values)
    if column.shape:
        flat = fixed(flat, [math.prod(column.shape)])
    splits = pa.py_buffer(row_splits)
    return pa.Array.from_buffers(arrow_type(column), len(row_splits) - 1, [None, splits], children=[flat])


def _flat(column: Column, values: npt.NDArray[Any]) -> pa.Array:
    """Without `pa.array`, which would pack bools."""
    dtype = stored_dtype(column)
    flat = np.ascontiguousarray(values, column.dtype).reshape(-1).view(dtype)
    return pa.Array.from_buffers(pa.from_numpy_dtype(dtype), flat.size, [None, pa.py_buffer(flat)])


def values_of(column: Column, array: pa.Array) -> Values:
    """The rows of a stored array, sharing its memory."""
    if column.kind == "tensor":
        flat = array.storage.flatten() if column.shape else array
        return flat.to_numpy().view(column.dtype).reshape(len(array), *column.shape)
    # A slice has the buffers of the whole, and begins anywhere in them; without rows there may be no buffer.
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


def ragged_array(name: str, rows: Ragged) -> pa.Array:
    """Rows that came as `Ragged` as an array; raises BadColumnError for row splits that do not fit the values."""
    splits = np.ascontiguousarray(rows.row_splits, np.int64)
    dtype = rows.values.dtype.newbyteorder("=")
    column = Column(name=name, dtype=dtype, shape=rows.values.shape[1:], kind=rows.kind)
    if (
        splits.ndim != 1
        or not splits.size
        or splits[0] < 0
        or (np.diff(splits) < 0).any()
        or splits[-1] > len(rows.values)
    ):
        raise BadColumnError(
            f"Column {name!r} has row splits that do not fit its {len(rows.values)} values: they begin at 0 or later, "
            "never fall, and end within them.",
            column=name,
        )
    if rows.kind == "list":
        values = rows.values[splits[0] : splits[-1]]
        flat = pa.array(np.ascontiguousarray(values, dtype).reshape(-1))
        return listed(fixed(flat, column.shape), splits - splits[0])
    kind = pa.large_string() if rows.kind == "string" else pa.large_binary()
    data = pa.py_buffer(np.ascontiguousarray(rows.values))
    return pa.Array.from_buffers(kind, len(rows), [None, pa.py_buffer(splits), data])


def fixed(flat: pa.Array, shape: Sequence[int]) -> pa.Array:
    """Flat values as lists of fixed sizes inside of each other."""
    for size in reversed(shape):
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    return flat


def listed(values: pa.Array, splits: npt.NDArray[np.int64], missing: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Values as lists between row splits, of which some are missing."""
    mask = None if missing is None else pa.array(missing)
    return pa.LargeListArray.from_arrays(pa.array(splits), values, mask=mask)
