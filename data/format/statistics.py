"""Statistics of a column: of some rows, and of several parts together.

They are found while rows are written and kept in the manifest, so that opening a dataset tells its ranges and lengths
(a label out of range is refused before the first step) without reading it. Arrow's `min_max` was not taken: it has no
float16, and NaN has to be found with its row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .columns import Column, ColumnStatistics, LengthStatistics, NanStatistics
from .ragged import Ragged, Values


def rows_statistics(column: Column, values: Values, *, first_row: int = 0) -> ColumnStatistics:
    """The statistics of some rows, at least one, as a reader returns them; `first_row` is the number of the first."""
    numbers, lengths = (values.values, values.lengths) if isinstance(values, Ragged) else (values, None)
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
