"""What every reader of rows does; the memory that it reads into."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from ..errors import RowError
from ..format.manifest import Column
from ..format.memory import aligned_empty
from ..format.ragged import Ragged

if TYPE_CHECKING:
    from .lookahead import ComingRows


class Reader(ABC):
    """Rows of some columns of a dataset, by row id. For one thread at a time. A context manager."""

    @property
    @abstractmethod
    def columns(self) -> Mapping[str, Column]:
        """The columns that are read, by name."""

    def start_pass(self, *, seed: int, epoch: int) -> None:  # noqa: B027 (stored rows are the same in every pass)
        """Say which pass the rows are read for: rows that are drawn or changed at random depend on it."""

    def expect(self, order: ComingRows, position: int = 0) -> None:  # noqa: B027 (what is on this host is there)
        """Say that the rows of `order` will be asked for, from `position` on: what is elsewhere is fetched ahead.

        Cheap enough to be called before every batch. Raises CacheError if the rows of a pass cannot be kept.
        """

    @abstractmethod
    def gather(
        self, row_ids: npt.NDArray[np.int64], out: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> dict[str, Any]:
        """Arrays [len(row_ids), *shape] of every column, rows in the order asked; `Ragged` where rows differ in length.

        `out` gives C-contiguous arrays of exactly that shape and dtype to fill, one per tensor column; without it they
        are new and aligned to 64 bytes, as those of variable length always are. Raises RowError for ids outside the
        dataset or unfit buffers, ShardError for a damaged shard, ValueError after `close`.
        """

    def gather_batches(
        self, row_ids: npt.NDArray[np.int64], batch_size: int, out: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The rows cut into batches (the last one maybe short), each as `gather` gives it, read when it is asked for.

        What is the same for many batches is then done once; batches of few bytes may lie in one piece of memory, which
        lives as long as one of them does. `out` gives arrays for all rows, which are filled batch by
        batch. Raises as `gather`, where the batch would have come.
        """
        for low in range(0, len(row_ids), batch_size):
            yield self.gather(row_ids[low : low + batch_size], rows_of(out, low, low + batch_size))

    def gather_parts(
        self,
        row_ids: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int64],
        length: int,
        names: Collection[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> dict[str, Any]:
        """As `gather`, but of the columns `names` (lists, or tensors of at least one axis) only a part of each row.

        That are the elements `starts[i]` to `starts[i]` + `length` of row i, arrays [rows, length, *element shape].

        Here every row is read as a whole and then cut. Raises as `gather`.
        """
        rows, places = np.unique(row_ids, return_inverse=True)
        found = self.gather(rows)
        for name, column in self.columns.items():
            values = found[name]
            if name in names:
                within = starts[:, None] + np.arange(length)
                parts = part_column(column, length)
                found[name] = output_array(parts, len(row_ids), out)
                if isinstance(values, Ragged):
                    np.take(values.values, values.row_splits[places][:, None] + within, axis=0, out=found[name])
                else:
                    found[name][...] = values[places[:, None], within]
            elif isinstance(values, Ragged):
                found[name] = values.take(places)
            else:
                found[name] = np.take(values, places, axis=0, out=output_array(column, len(row_ids), out))
        return found

    @abstractmethod
    def close(self) -> None:
        """Let go of what the reader holds; a closed reader gathers no more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def part_column(column: Column, length: int) -> Column:
    """The column of parts of `length` elements of the rows of a list column, or of a tensor column's first axis."""
    shape = column.shape if column.is_variable else column.shape[1:]
    return Column(name=column.name, dtype=column.dtype, shape=(length, *shape))


def rows_of(out: Mapping[str, npt.NDArray[Any]] | None, low: int, high: int) -> dict[str, npt.NDArray[Any]] | None:
    """The rows [low, high) of every output array; None for None."""
    return None if out is None else {name: array[low:high] for name, array in out.items()}


def output_array(column: Column, num_rows: int, out: Mapping[str, npt.NDArray[Any]] | None) -> npt.NDArray[Any]:
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
