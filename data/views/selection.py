"""Views of some rows of a dataset: stretches, sides of a split, rows by id, rows that pass a filter.

All of them are one view, `Selection`, over a `RowChoice`: a function from the ids of the view to those of its base.
What can be said by arithmetic takes no memory (`Span`, `SplitSide`); what was found by looking at rows is a list of
ids (`RowIndex`), in stored order for filters, so that neighbours stay neighbours on the disk.

Not done: a bit per base row instead of an id per chosen row, which takes less for dense choices, and a search to find
the k-th row. Filters that are asked for every row while training: lengths and orders must be known before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from ..dataset import Dataset
from ..errors import SelectionError, TransformError
from ..format.columns import ColumnStatistics
from ..format.ragged import Values
from ..order.order import RowIds, checked_integer
from ..read.reader import Out, Reader, checked_row_ids
from ..read.upcoming import Order
from .statistics import LazyStatistics, column_statistics
from .view import View, ViewReader, chosen_columns, rows_per_scan

Predicate = Callable[[dict[str, Values]], npt.ArrayLike]
"""From columns of some rows to bool [rows]: which rows to keep."""


class RowChoice(Protocol):
    """Which row of the base each row of a view is."""

    def __len__(self) -> int: ...

    @property
    def content(self) -> object:
        """All that decides which rows there are; JSON can hold it."""

    def at(self, ids: RowIds) -> RowIds:
        """The row of the base for each row."""


class Span:
    """Consecutive rows [start, stop)."""

    def __init__(self, start: int, stop: int) -> None:
        self._start, self._stop = start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    @property
    def content(self) -> object:  # noqa: D102
        return ["span", self._start, self._stop]

    def at(self, ids: RowIds) -> RowIds:  # noqa: D102
        return ids + self._start


class RowIndex:
    """Rows listed one by one: 4 bytes of memory each, 8 if the base has 2**32 rows or more."""

    def __init__(self, ids: RowIds, num_base_rows: int) -> None:
        self.ids = ids.astype(np.uint32 if num_base_rows < 1 << 32 else np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def content(self) -> object:  # noqa: D102
        return ["index", len(self.ids), self.ids.itemsize, xxhash.xxh3_128_hexdigest(self.ids.tobytes())]

    def at(self, ids: RowIds) -> RowIds:  # noqa: D102
        return self.ids[ids].astype(np.int64)


class Selection(View):
    """Some rows of the base, in any order.

    Statistics are computed, by reading the column, when they are first asked for; if rows differ from pass to pass they
    are those of the base.
    """

    def __init__(self, base: Dataset, rows: RowChoice, call: str) -> None:
        if not len(rows):
            raise SelectionError(
                f"{base.name}.{call} leaves no row of {len(base):,}; a dataset needs at least one.", path=base.name
            )
        super().__init__(base, call, rows.content)
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def statistics(self) -> Mapping[str, ColumnStatistics]:  # noqa: D102
        if self.is_random:  # one pass would not show the bounds of all
            return self.base.statistics
        # The bounds of all rows need not be those of some.
        return LazyStatistics(self.base.statistics, lambda name: column_statistics(self, name))

    @property
    def bounds_are_reached(self) -> bool:  # noqa: D102
        return False

    def reader(self, columns: Sequence[str] | None = None) -> Reader:  # noqa: D102
        chosen_columns(self, columns)
        return _SelectionReader(self.base.reader(columns), self.name, self._rows)


@dataclass(frozen=True, slots=True, eq=False)
class ChosenRows:
    """The rows of a pass over a view, by the ids that they have in its base: what `base_ids` makes of their own."""

    order: Order
    base_ids: Callable[[RowIds], RowIds]

    @property
    def num_rows(self) -> int:  # noqa: D102
        return self.order.num_rows

    def rows(self, start: int, stop: int) -> RowIds:  # noqa: D102
        return self.base_ids(self.order.rows(start, stop))


class _SelectionReader(ViewReader):
    def __init__(self, base: Reader, name: str, rows: RowChoice) -> None:
        super().__init__(base, name, len(rows))
        self._rows = rows

    def base_orders(self, order: Order) -> Sequence[tuple[Reader, Order]]:
        return [(self._base, ChosenRows(order, self._rows.at))]

    def gather_checked(self, ids: RowIds, out: Out | None) -> dict[str, Any]:
        return self._base.gather(self._rows.at(ids), out)

    def gather_parts_checked(
        self, ids: RowIds, starts: RowIds, length: int, names: Collection[str], out: Out | None
    ) -> dict[str, Any]:
        return self._base.gather_parts(self._rows.at(ids), starts, length, names, out)


def take(dataset: Dataset, num_rows: int) -> Dataset:
    """See `Dataset.take`."""
    count = checked_integer("num_rows", num_rows, 1, 1 << 62)
    return Selection(dataset, Span(0, min(count, len(dataset))), f"take({count})")


def skip(dataset: Dataset, num_rows: int) -> Dataset:
    """See `Dataset.skip`."""
    count = checked_integer("num_rows", num_rows, 0, 1 << 62)
    return Selection(dataset, Span(min(count, len(dataset)), len(dataset)), f"skip({count})")


def select(dataset: Dataset, row_ids: npt.ArrayLike) -> Dataset:
    """See `Dataset.select`."""
    ids = checked_row_ids(row_ids, len(dataset), dataset.name)
    return Selection(dataset, RowIndex(ids, len(dataset)), f"select({ids.size:,} rows)")


def filtered(dataset: Dataset, predicate: Predicate, columns: Sequence[str] | None) -> Dataset:
    """See `Dataset.filter`."""
    if dataset.is_random:
        raise SelectionError(
            f"The rows of {dataset.name} differ from pass to pass, so a filter would not hold. Filter first, then mix "
            "or change at random.",
            path=dataset.name,
        )
    name = getattr(predicate, "__qualname__", type(predicate).__name__)
    found, start = [], 0
    for batch in dataset.batches(rows_per_scan(dataset, columns), shuffle=False, columns=columns):
        num_rows = len(next(iter(batch.values())))
        found.append(np.flatnonzero(_kept(dataset, predicate, name, batch, start, num_rows)) + start)
        start += num_rows
    return Selection(dataset, RowIndex(np.concatenate(found), len(dataset)), f"filter({name})")


def _kept(
    dataset: Dataset, predicate: Predicate, name: str, batch: dict[str, Any], start: int, num_rows: int
) -> npt.NDArray[np.bool_]:
    where = f"for the rows {start} to {start + num_rows - 1} of {dataset.name}"
    try:
        kept = np.asarray(predicate(batch))
    except Exception as error:  # the user's code may raise anything
        raise TransformError(f"The filter {name} raised {type(error).__name__} {where}: {error}") from error
    if kept.dtype != np.bool_ or kept.shape != (num_rows,):
        raise TransformError(
            f"The filter {name} returned {kept.dtype} of shape {kept.shape} {where}; it must return one bool per row, "
            f"shape ({num_rows},). It is given columns of many rows at once, not one row."
        )
    return kept
