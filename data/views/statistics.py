"""Statistics of columns that no manifest knows: computed by reading the column, when they are asked for.

A view must not read anything when it is made: it may be of a remote dataset, or of a costly function. So it has a
mapping whose keys are known and whose values are computed, one column at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from ..dataset import Dataset
from ..format.columns import ColumnStatistics
from ..format.statistics import merged_statistics, rows_statistics
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
    column, parts, first_row = dataset.schema[name], [], 0
    for batch in dataset.batches(rows_per_scan(dataset, [name]), shuffle=False, columns=[name]):
        parts.append(rows_statistics(column, batch[name], first_row=first_row))
        first_row += len(batch[name])
    return merged_statistics(parts)
