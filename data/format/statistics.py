"""Statistics of a column: of some rows, and of several parts together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .columns import Column, ColumnStatistics, LengthStatistics, NanStatistics
from .ragged import Ragged


def rows_statistics(column: Column, values: npt.NDArray[Any] | Ragged, *, first_row: int = 0) -> ColumnStatistics:
    """The statistics of some rows, at least one, as a reader returns them; `first_row` is the number of the first."""
    if isinstance(values, Ragged):
        return _statistics(column, values.values, values.lengths, first_row)
    return _statistics(column, values, None, first_row)


def array_statistics(column: Column, array: pa.Array, *, first_row: int = 0) -> ColumnStatistics:
    """The same of rows as they are stored."""
    if column.kind in ("string", "bytes"):
        return _statistics(column, np.empty(0), pc.binary_length(array).to_numpy(), first_row)
    lengths = None
    if column.kind == "list":
        lengths = pc.list_value_length(array).to_numpy()
        array = array.flatten()
    if isinstance(array.type, pa.FixedShapeTensorType):
        array = array.storage
    numbers = array.flatten() if pa.types.is_fixed_size_list(array.type) else array
    return _statistics(column, numbers.to_numpy(), lengths, first_row)


def merged_statistics(parts: Sequence[ColumnStatistics]) -> ColumnStatistics:
    """The statistics of all rows of a column from those of its parts, at least one, in row order."""
    lengths = [part.lengths for part in parts if part.lengths is not None]
    nans = [part.nans for part in parts if part.nans is not None]
    return ColumnStatistics(
        min=min((part.min for part in parts if not math.isnan(part.min)), default=math.nan),
        max=max((part.max for part in parts if not math.isnan(part.max)), default=math.nan),
        lengths=None
        if len(lengths) < len(parts)
        else LengthStatistics(
            min=min(one.min for one in lengths),
            max=max(one.max for one in lengths),
            total=sum(one.total for one in lengths),
        ),
        nans=NanStatistics(count=sum(one.count for one in nans), first_row=nans[0].first_row) if nans else None,
    )


def _statistics(
    column: Column, numbers: npt.NDArray[Any], lengths: npt.NDArray[np.int64] | None, first_row: int
) -> ColumnStatistics:
    """`numbers` are those of all rows, one after the other."""
    found = None
    if lengths is not None:
        found = LengthStatistics(min=int(lengths.min()), max=int(lengths.max()), total=int(lengths.sum()))
    if not numbers.size or column.kind in ("string", "bytes"):
        return ColumnStatistics(min=math.nan, max=math.nan, lengths=found)
    number = float if column.dtype.kind == "f" else int
    low, high, nans = numbers.min(), numbers.max(), None
    if low != low:
        places = np.flatnonzero(np.isnan(numbers)) // math.prod(column.shape)
        row = int(places[0]) if lengths is None else int(np.searchsorted(np.cumsum(lengths), places[0], side="right"))
        nans = NanStatistics(count=len(places), first_row=first_row + row)
        # Unlike min and max, these leave NaN out.
        low, high = np.fmin.reduce(numbers, axis=None), np.fmax.reduce(numbers, axis=None)
    return ColumnStatistics(min=number(low), max=number(high), lengths=found, nans=nans)
