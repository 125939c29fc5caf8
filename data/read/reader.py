"""What every reader of rows does, once: checks what is asked, hands passes, prefetching and closing down to its bases.

A reader reads rows that are stored, or makes its rows of those of other readers, its bases. What is read next is told
to the outermost reader and reaches those of the files by construction: `prefetch` cannot be overridden, a view only
says which rows of its bases the rows of a pass are (`base_orders`), and by default they are the same ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt

from ..errors import RowError
from ..format.columns import Column
from ..format.memory import aligned_empty
from ..format.ragged import Ragged, Values
from ..order.order import RowIds
from .upcoming import Order

Out = Mapping[str, npt.NDArray[Any]]
"""Arrays to fill, by column."""


class Reader(ABC):
    """Rows of some columns of a dataset, by row id. For one thread at a time. A context manager.

    Args:
        name: what messages call the dataset.
        num_rows: row ids lie below this.
        columns: what is read, by name.
        bases: the readers that rows are made of.
    """

    computes = False
    """Whether functions are called for the rows of a `gather`, so that several batches are not read by one."""

    def __init__(self, name: str, num_rows: int, columns: Mapping[str, Column], bases: Sequence[Reader] = ()) -> None:
        self._name, self._num_rows, self._columns, self._bases = name, num_rows, columns, tuple(bases)
        self._is_closed = False
        self._orders: tuple[Order | None, Sequence[tuple[Reader, Order]]] = (None, ())
        self.computes = self.computes or any(base.computes for base in self._bases)

    @property
    def columns(self) -> Mapping[str, Column]:
        """The columns that are read, by name."""
        return self._columns

    def start_pass(self, *, seed: int, epoch: int) -> None:
        """Say which pass the rows are read for: rows that are drawn or changed at random depend on it."""
        self._orders = (None, ())
        for base in self._bases:
            base.start_pass(seed=seed, epoch=epoch)

    @final
    def prefetch(self, order: Order, position: int = 0) -> None:
        """Say that the rows of `order` will be asked for, from `position` on: what is elsewhere is fetched ahead.

        Cheap enough to be called before every batch. Raises CacheError if the rows of a pass cannot be kept.
        """
        if self._orders[0] is not order and self._orders[0] != order:
            self._orders = (order, tuple(self.base_orders(order)))
        self.fetch_ahead(order, position)
        for base, base_order in self._orders[1]:
            base.prefetch(base_order, position)

    def base_orders(self, order: Order) -> Sequence[tuple[Reader, Order]]:
        """For every base the rows of it that the rows of a pass are made of, at the same positions."""
        return [(base, order) for base in self._bases]

    def fetch_ahead(self, order: Order, position: int) -> None:  # noqa: B027 (what is on this host is there)
        """What a reader of files that lie elsewhere does on `prefetch`."""

    @final
    def gather(self, row_ids: npt.NDArray[np.int64], out: Out | None = None) -> dict[str, Any]:
        """Arrays [len(row_ids), *shape] of every column, rows in the order asked; `Ragged` where rows differ in length.

        `out` gives C-contiguous arrays of exactly that shape and dtype to fill, one per tensor column; without it they
        are new and aligned to 64 bytes, as those of variable length always are. Raises RowError for ids outside the
        dataset or unfit buffers, ShardError for a damaged shard, ValueError after `close`.
        """
        self._check_not_closed()
        return self.gather_checked(checked_row_ids(row_ids, self._num_rows, self._name), out)

    def _check_not_closed(self) -> None:
        if self._is_closed:
            raise ValueError(f"The reader of dataset {self._name} is closed; make another with dataset.reader().")

    @abstractmethod
    def gather_checked(self, ids: RowIds, out: Out | None) -> dict[str, Any]:
        """What `gather` returns, for row ids that exist."""

    @final
    def gather_parts(
        self,
        row_ids: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int64],
        length: int,
        names: Collection[str],
        out: Out | None = None,
    ) -> dict[str, Any]:
        """As `gather`, but of the columns `names` (lists, or tensors of at least one axis) only a part of each row.

        That are the elements `starts[i]` to `starts[i]` + `length` of row i, arrays [rows, length, *element shape].
        """
        self._check_not_closed()
        ids = checked_row_ids(row_ids, self._num_rows, self._name)
        return self.gather_parts_checked(ids, starts, length, names, out)

    def gather_parts_checked(
        self, ids: RowIds, starts: RowIds, length: int, names: Collection[str], out: Out | None
    ) -> dict[str, Any]:
        """What `gather_parts` returns, for row ids that exist; here rows are read as a whole and then cut."""
        rows, places = np.unique(ids, return_inverse=True)
        found = self.gather(rows)
        for name, column in self.columns.items():
            values = found[name]
            if name in names:
                within = starts[:, None] + np.arange(length)
                found[name] = output_array(part_column(column, length), ids.size, out)
                if isinstance(values, Ragged):
                    np.take(values.values, values.row_splits[places][:, None] + within, axis=0, out=found[name])
                else:
                    found[name][...] = values[places[:, None], within]
            elif isinstance(values, Ragged):
                found[name] = values.take(places)
            else:
                found[name] = np.take(values, places, axis=0, out=output_array(column, ids.size, out))
        return found

    def close(self) -> None:
        """Let go of what the reader holds; a closed reader gathers no more."""
        self._is_closed = True
        for base in self._bases:
            base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def checked_row_ids(row_ids: npt.ArrayLike, num_rows: int, name: str) -> RowIds:
    """The ids as int64 [rows]; raises RowError if they are not a vector of integers in [0, num_rows)."""
    ids = np.asarray(row_ids)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise RowError(f"Row ids must be a vector of integers; got {ids.dtype} of shape {ids.shape}.", path=name)
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= num_rows):
        raise RowError(
            f"Row ids {ids.min()} to {ids.max()} were asked of dataset {name}, which has rows 0 to {num_rows - 1}. "
            "They were probably computed for another dataset.",
            path=name,
        )
    return ids.astype(np.int64, copy=False)


def output_array(column: Column, num_rows: int, out: Out | None) -> npt.NDArray[Any]:
    """The array of a tensor column to fill: that of `out`, else a new aligned one.

    Raises RowError for a missing or unfit output array.
    """
    shape = (num_rows, *column.shape)
    if out is None:
        return aligned_empty(shape, column.dtype)
    array = out.get(column.name)
    if array is None:
        raise RowError(f"No output array was given for column {column.name!r}.", column=column.name)
    fits = array.shape == shape and array.dtype == column.dtype
    if not (fits and array.flags.c_contiguous and array.flags.writeable):
        raise RowError(
            f"The output array of column {column.name!r} must be a writeable C-contiguous {column.dtype} {shape}; "
            f"got {array.dtype} {array.shape} "
            f"(contiguous: {array.flags.c_contiguous}, writeable: {array.flags.writeable}).",
            column=column.name,
        )
    return array


def part_column(column: Column, length: int) -> Column:
    """The column of parts of `length` elements of the rows of a list column, or of a tensor column's first axis."""
    shape = column.shape if column.is_variable else column.shape[1:]
    return Column(name=column.name, dtype=column.dtype, shape=(length, *shape))


def num_bytes(rows: Mapping[str, Values]) -> int:
    """Bytes of the rows of all columns."""
    return sum(values.nbytes for values in rows.values())
