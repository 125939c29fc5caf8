"""Datasets one after the other; and `Joined`, what datasets made of several have in common.

Statistics and bounds of a whole are those of its parts together, where all parts know them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dataset import Dataset
from ..format.columns import Column, ColumnStatistics
from ..format.statistics import merged_statistics
from ..order.order import RowIds
from ..read.reader import Out, Reader, part_column
from ..read.upcoming import Order
from .assemble import assembled, check_same_columns
from .statistics import LazyStatistics
from .view import chosen_columns, fingerprint_of


def concatenate(datasets: Sequence[Dataset]) -> Dataset:
    """The rows of all datasets, one dataset after the other; the columns must be alike.

    Raises SelectionError.
    """
    check_same_columns(datasets, "concatenate")
    return datasets[0] if len(datasets) == 1 else Concatenation(datasets)


class Joined(Dataset):
    """Rows of several datasets with equal columns."""

    def __init__(self, datasets: Sequence[Dataset], call: str) -> None:
        self.datasets, self._call = tuple(datasets), call

    @property
    def name(self) -> str:  # noqa: D102
        return f"{self._call}({', '.join(dataset.name for dataset in self.datasets)})"

    @property
    def schema(self) -> Mapping[str, Column]:  # noqa: D102
        return self.datasets[0].schema

    @property
    def statistics(self) -> Mapping[str, ColumnStatistics]:
        """Those of all rows of all datasets, for the columns for which all know them."""
        return _merged(self.schema, [dataset.statistics for dataset in self.datasets])

    @property
    def bounds(self) -> Mapping[str, ColumnStatistics]:  # noqa: D102
        return _merged(self.schema, [dataset.bounds for dataset in self.datasets])

    @property
    def bounds_are_reached(self) -> bool:  # noqa: D102
        return all(dataset.bounds_are_reached for dataset in self.datasets)

    @property
    def num_skipped(self) -> int:  # noqa: D102
        return sum(dataset.num_skipped for dataset in self.datasets)

    @property
    def is_random(self) -> bool:  # noqa: D102
        return any(dataset.is_random for dataset in self.datasets)

    def check(self) -> None:  # noqa: D102
        for dataset in self.datasets:
            dataset.check()

    def folders(self) -> frozenset[str]:  # noqa: D102
        return frozenset().union(*(dataset.folders() for dataset in self.datasets))

    def reached(self, uri_of: Callable[[str], str]) -> Dataset:  # noqa: D102
        moved = copy.copy(self)
        moved.datasets = tuple(dataset.reached(uri_of) for dataset in self.datasets)
        return moved


class Concatenation(Joined):
    """The rows of several datasets with equal columns, one dataset after the other."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        super().__init__(datasets, "concatenate")
        self._starts = np.cumsum([0, *map(len, datasets)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def fingerprint(self) -> str:  # noqa: D102
        return fingerprint_of("Concatenation", [dataset.fingerprint for dataset in self.datasets])

    def reader(self, columns: Sequence[str] | None = None) -> Reader:  # noqa: D102
        chosen = chosen_columns(self, columns)
        readers = [dataset.reader(list(chosen)) for dataset in self.datasets]
        return _ConcatenationReader(readers, chosen, self.name, self._starts)


class _ConcatenationReader(Reader):
    def __init__(
        self, readers: Sequence[Reader], columns: Mapping[str, Column], name: str, starts: npt.NDArray[np.int64]
    ) -> None:
        super().__init__(name, int(starts[-1]), columns, readers)
        self._starts = starts

    def base_orders(self, order: Order) -> Sequence[tuple[Reader, Order]]:
        return [(base, _PartOrder(order, *self._starts[n : n + 2].tolist())) for n, base in enumerate(self._bases)]

    def gather_checked(self, ids: RowIds, out: Out | None) -> dict[str, Any]:
        groups = self._groups(ids)
        if len(groups) == 1:
            ((base, _, base_ids),) = groups
            return base.gather(base_ids, out)
        parts = [(places, base.gather(base_ids)) for base, places, base_ids in groups]
        return assembled(self._columns, ids.size, parts, out)

    def gather_parts_checked(
        self, ids: RowIds, starts: RowIds, length: int, names: Collection[str], out: Out | None
    ) -> dict[str, Any]:
        columns = {name: part_column(one, length) if name in names else one for name, one in self._columns.items()}
        parts = [
            (places, base.gather_parts(base_ids, starts[places], length, names))
            for base, places, base_ids in self._groups(ids)
        ]
        return assembled(columns, ids.size, parts, out)

    def _groups(self, ids: RowIds) -> list[tuple[Reader, RowIds, RowIds]]:
        """(base, places of its rows, their ids there) for every base that has some of these rows."""
        numbers = np.searchsorted(self._starts, ids, side="right") - 1
        groups = [(number, np.flatnonzero(numbers == number)) for number in np.unique(numbers).tolist()]
        return [(self._bases[number], places, ids[places] - self._starts[number]) for number, places in groups]


@dataclass(frozen=True, slots=True, eq=False)
class _PartOrder:
    """Those rows of a pass that lie in one of the datasets, from `first` to before `end`, by their ids there."""

    order: Order
    first: int
    end: int

    @property
    def num_rows(self) -> int:
        return self.order.num_rows

    def rows(self, start: int, stop: int) -> RowIds:
        ids = self.order.rows(start, stop)
        return ids[(ids >= self.first) & (ids < self.end)] - self.first


def _merged(
    schema: Mapping[str, Column], known: Sequence[Mapping[str, ColumnStatistics]]
) -> Mapping[str, ColumnStatistics]:
    names = [name for name in schema if all(name in one for one in known)]
    # Where NaN values lie is known of the rows of each, not of those of all.
    return LazyStatistics(names, lambda name: merged_statistics([replace(one[name], nans=None) for one in known]))
