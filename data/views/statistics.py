"""Statistics of columns that no manifest knows: computed by reading the column, when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from ..dataset import Dataset
from ..format.columns import Column, ColumnStatistics, LengthStatistics
from ..format.ragged import Ragged
from ..format.shards import Values
from .view import rows_per_scan


class LazyStatistics(Mapping[str, ColumnStatistics]):
    """Statistics by column, each computed when it is first asked for."""

    def __init__(self, names: Iterable[str], compute: Callable[[str], ColumnStatistics]) -> None:
        self._names, self._compute = tuple(names), compute
        self._known: dict[str, ColumnStatistics] = {}

    def __getitem__(self, name: str) -> ColumnStatistics:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._known:
            self._known[name] = self._compute(name)
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def column_statistics(dataset: Dataset, name: str) -> ColumnStatistics:
    """The statistics of one column, from reading all of it; raises UnknownColumnError, ShardError."""
    column = dataset.schema[name]
    parts = (batch[name] for batch in dataset.batches(rows_per_scan(dataset, [name]), shuffle=False, columns=[name]))
    return merged_statistics(column, [part_statistics(column, part) for part in parts])


def part_statistics(column: Column, values: Values) -> ColumnStatistics:
    """The statistics of some rows of a column, at least one."""
    lengths = None
    if isinstance(values, Ragged):
        counts = values.lengths
        lengths = LengthStatistics(min=int(counts.min()), max=int(counts.max()), total=int(counts.sum()))
        values = values.values
    if not values.size or column.kind in ("string", "bytes"):
        return ColumnStatistics(min=math.nan, max=math.nan, lengths=lengths)
    number = float if column.dtype.kind == "f" else int
    # Unlike min and max, these leave NaN out.
    low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    return ColumnStatistics(min=number(low), max=number(high), lengths=lengths)


def merged_statistics(column: Column, parts: Sequence[ColumnStatistics]) -> ColumnStatistics:
    """The statistics of all rows of a column from those of its parts, at least one."""
    lows = [part.min for part in parts if not math.isnan(part.min)]
    highs = [part.max for part in parts if not math.isnan(part.max)]
    known = [part.lengths for part in parts if part.lengths is not None]
    lengths = None
    if column.is_variable and len(known) == len(parts):
        lengths = LengthStatistics(
            min=min(one.min for one in known), max=max(one.max for one in known), total=sum(one.total for one in known)
        )
    return ColumnStatistics(min=min(lows, default=math.nan), max=max(highs, default=math.nan), lengths=lengths)
