"""`windows`: stretches of equal length of long rows, such as a year of measurements or a long text in tokens.

Nothing is written, and of a long row only the elements of a window are copied: the reader of shards is asked for parts
of rows (`Reader.gather_parts`). What takes memory is where each base row's windows begin, 8 bytes per base row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dataset import Dataset
from ..errors import SelectionError
from ..format.columns import Column, ColumnStatistics
from ..format.memory import splits_of
from ..order.order import RowIds, checked_integer
from ..read.reader import Out, Reader, part_column
from ..read.upcoming import Order
from .selection import ChosenRows
from .view import View, ViewReader, chosen_columns, rows_per_scan


class Windows(View):
    """Rows [length, *shape] from long rows; columns that are not cut are those of the long row."""

    def __init__(self, base: Dataset, columns: Sequence[str], length: int, stride: int) -> None:
        super().__init__(base, f"windows({', '.join(columns)}, {length}, stride={stride})", [*columns, length, stride])
        self._cut = tuple(columns)
        self._length, self._stride = length, stride
        counts = np.maximum(0, (_lengths(base, columns) - length) // stride + 1)
        self._splits = splits_of(counts)  # where the windows of each base row begin, int64 [base rows + 1]
        if not len(self):
            raise SelectionError(
                f"{self.name}: no row of {len(base):,} has {length:,} elements. Give a smaller length, or pad the rows "
                "first.",
                path=base.name,
                column=columns[0],
            )

    def __len__(self) -> int:
        return int(self._splits[-1])

    @property
    def schema(self) -> Mapping[str, Column]:  # noqa: D102
        columns = self.base.schema
        return {**columns, **{name: part_column(columns[name], self._length) for name in self._cut}}

    @property
    def statistics(self) -> Mapping[str, ColumnStatistics]:
        """Bounds of the long rows, which hold for every window."""
        known = self.base.statistics
        return {name: ColumnStatistics(min=known[name].min, max=known[name].max) for name in known}

    @property
    def bounds_are_reached(self) -> bool:  # noqa: D102
        return False

    def reader(self, columns: Sequence[str] | None = None) -> Reader:  # noqa: D102
        chosen = chosen_columns(self, columns)
        base = self.base.reader(list(chosen))
        cut = [name for name in self._cut if name in chosen]
        return _WindowsReader(base, self.name, chosen, self._splits, cut, self._length, self._stride)


class _WindowsReader(ViewReader):
    def __init__(
        self,
        base: Reader,
        name: str,
        columns: Mapping[str, Column],
        splits: npt.NDArray[np.int64],
        cut: Sequence[str],
        length: int,
        stride: int,
    ) -> None:
        super().__init__(base, name, int(splits[-1]), columns)
        self._splits, self._cut, self._length, self._stride = splits, cut, length, stride

    def base_orders(self, order: Order) -> Sequence[tuple[Reader, Order]]:
        return [(self._base, ChosenRows(order, self._long_rows))]

    def gather_checked(self, ids: RowIds, out: Out | None) -> dict[str, Any]:
        rows = self._long_rows(ids)
        starts = (ids - self._splits[rows]) * self._stride
        return self._base.gather_parts(rows, starts, self._length, self._cut, out)

    def _long_rows(self, ids: RowIds) -> RowIds:
        """The base row that each window lies in."""
        return np.searchsorted(self._splits, ids, side="right") - 1


def windowed(dataset: Dataset, columns: str | Sequence[str], length: int, stride: int | None) -> Dataset:
    """See `Dataset.windows`."""
    names = [columns] if isinstance(columns, str) else list(columns)
    length = checked_integer("length", length, 1, 1 << 40)
    step = length if stride is None else checked_integer("stride", stride, 1, 1 << 40)
    chosen = chosen_columns(dataset, names)
    if dataset.is_random and any(column.is_variable for column in chosen.values()):
        raise SelectionError(
            f"The rows of {dataset.name} differ from pass to pass, and so may their lengths. Cut windows first, then "
            "mix or change at random.",
            path=dataset.name,
        )
    for name, column in chosen.items():
        if column.kind in ("string", "bytes") or not (column.is_variable or column.shape):
            raise SelectionError(
                f"{dataset.name}.windows: the rows of column {name!r} are {column.kind} {column.dtype} {column.shape}; "
                "windows are cut of lists, and of tensors along their first axis.",
                path=dataset.name,
                column=name,
            )
    return Windows(dataset, names, length, step)


def _lengths(dataset: Dataset, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Elements of every row, int64 [rows], which all these columns have alike; raises SelectionError if they differ."""
    found = [_lengths_of(dataset, name) for name in names]
    for name, lengths in zip(names, found, strict=True):
        if not np.array_equal(lengths, found[0]):
            row = int(np.argmax(lengths != found[0]))
            raise SelectionError(
                f"{dataset.name}.windows: row {row} has {found[0][row]:,} elements in column {names[0]!r} and "
                f"{lengths[row]:,} in {name!r}. Columns that are cut together are equally long; cut others "
                "by themselves.",
                path=dataset.name,
                column=name,
            )
    return found[0]


def _lengths_of(dataset: Dataset, name: str) -> npt.NDArray[np.int64]:
    column = dataset.schema[name]
    # Of tensors all rows are equally long; the lengths of lists stand nowhere but beside their values.
    if not column.is_variable:
        return np.full(len(dataset), column.shape[0], np.int64)
    batches = dataset.batches(rows_per_scan(dataset, [name]), shuffle=False, columns=[name])
    return np.concatenate([batch[name].lengths for batch in batches])
