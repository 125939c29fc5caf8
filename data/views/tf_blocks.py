"""Blocks of several batches for `tf.data`, which pays for every call of Python: cut there into the same batches."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dataset import Dataset
from ..format.columns import Column
from ..format.memory import aligned_empty
from ..format.ragged import Ragged
from ..order.order import RowOrder
from ..read.prefetch import Prefetcher
from ..read.reader import Reader
from ..read.stretches import Stretch
from .view import num_bytes

_BLOCK_BYTES = 4 << 20
_MAX_BATCHES = 32


class BlockSize:
    """How many batches the next block has: one at first, then twice as many each time, up to 32 and some MiB."""

    def __init__(self, batch_size: int, prefetch_bytes: int) -> None:
        self.batch_size = batch_size
        self._max_bytes = min(_BLOCK_BYTES, max(1, prefetch_bytes // 2)) if prefetch_bytes else _BLOCK_BYTES
        self._num_batches, self._bytes_per_row = 1, 0.0

    def note(self, num_rows: int, num_bytes: int) -> None:
        """Take the bytes of a block into account."""
        self._bytes_per_row = max(self._bytes_per_row, num_bytes / max(1, num_rows))

    def next(self) -> int:
        """The number of batches of the next block; one until the bytes of a row are known."""
        if not self._bytes_per_row:
            return 1
        fitting = int(self._max_bytes / (self._bytes_per_row * self.batch_size))
        self._num_batches = max(1, min(2 * self._num_batches, fitting, _MAX_BATCHES))
        return self._num_batches

    def stretches(self, order: RowOrder, num_steps: int) -> Iterator[Stretch]:
        """The first `num_steps` batches of a pass in blocks; the last batch is one of its own.

        So it is taken when the pass is done, not when a block is.
        """
        step = 0
        while step < num_steps:
            count = min(self.next(), max(1, num_steps - 1 - step))
            low = step * self.batch_size
            yield Stretch(order, low, min(low + count * self.batch_size, order.num_rows))
            step += count


class PartialBlockError(Exception):
    """Some batches of a block were read before one could not be: their rows, and why."""

    def __init__(self, rows: Mapping[str, Any], reason: Exception) -> None:
        super().__init__(str(reason))
        self.rows, self.reason = rows, reason


class BlockReader(Reader):
    """Reads blocks: their batches one by one, as any reader of batches does, into memory that follows each other.

    `gather` raises PartialBlockError if a batch but the first cannot be read.
    """

    def __init__(self, below: Reader, size: BlockSize) -> None:
        self._below, self._size = below, size

    @property
    def columns(self) -> Mapping[str, Column]:  # noqa: D102
        return self._below.columns

    def start_pass(self, *, seed: int, epoch: int) -> None:  # noqa: D102
        self._below.start_pass(seed=seed, epoch=epoch)

    def expect(self, order: Any, position: int = 0) -> None:  # noqa: D102
        self._below.expect(order, position)

    def gather(  # noqa: D102
        self, row_ids: npt.NDArray[np.int64], out: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> dict[str, Any]:
        size, columns = self._size.batch_size, self._below.columns
        if len(row_ids) <= size:
            rows = self._below.gather(row_ids, out)
            self._size.note(len(row_ids), num_bytes(rows))
            return rows
        arrays = out or {
            name: aligned_empty((len(row_ids), *column.shape), column.dtype)
            for name, column in columns.items()
            if not column.is_variable
        }
        parts: dict[str, list[Ragged]] = {name: [] for name, column in columns.items() if column.is_variable}
        done = 0
        try:
            for batch in self._below.gather_batches(row_ids, size, arrays):
                for name, ragged in parts.items():
                    ragged.append(batch[name])
                done = min(done + size, len(row_ids))
        except Exception as error:
            if not done:
                raise
            raise PartialBlockError(_joined(columns, arrays, parts, done), error) from error
        rows = _joined(columns, arrays, parts, done)
        self._size.note(done, num_bytes(rows))
        return rows

    def close(self) -> None:  # noqa: D102
        self._below.close()


def read_blocks(
    dataset: Dataset,
    columns: list[str],
    order: RowOrder,
    num_steps: int,
    size: BlockSize,
    *,
    prefetch_bytes: int,
    num_threads: int,
) -> Generator[dict[str, Any], None, None]:
    """The batches of a pass in blocks, read ahead by threads, or on demand if `prefetch_bytes` is 0.

    An error comes after the batches before it.
    """
    parts = size.stretches(order, num_steps)
    make_reader = partial(_block_reader, dataset, columns, order, size)
    try:
        if prefetch_bytes < 1:
            with make_reader() as reader:
                for part in parts:
                    part.announce(reader)
                    yield reader.gather(part.row_ids())
            return
        with Prefetcher(make_reader, parts, max_bytes=prefetch_bytes, num_threads=num_threads) as prefetcher:
            yield from prefetcher
    except PartialBlockError as partial_block:
        yield dict(partial_block.rows)
        raise partial_block.reason from None


def _block_reader(dataset: Dataset, columns: list[str], order: RowOrder, size: BlockSize) -> BlockReader:
    return BlockReader(dataset.pass_reader(columns, seed=order.seed, epoch=order.epoch), size)


def _joined(
    columns: Mapping[str, Column], arrays: Mapping[str, npt.NDArray[Any]], parts: Mapping[str, list[Ragged]], done: int
) -> dict[str, Any]:
    return {
        name: Ragged.concatenate(parts[name]) if column.is_variable else arrays[name][:done]
        for name, column in columns.items()
    }
