"""Rows to record batches to shard files, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..format.bounds import Bounds
from ..format.manifest import Column, ColumnStatistics, Shard, ShardFormat
from .blocks import Block, BlockQueue
from .journal import Journal
from .shard_writer import ShardWriter, shard_name

_MAX_BATCH_ROWS = 4096
# A row group of Parquet is decoded as a whole when one of its rows is read: they are small.
_MAX_BATCH_BYTES: Mapping[ShardFormat, int] = {"arrow": 8 << 20, "parquet": 1 << 20}


class ShardSequence:
    """The shards of a dataset in the making; goes on after those that its journal holds. Raises OSError.

    Hashes are computed while the bytes pass. Encoding in a thread was tried and did not pay (two cores, both formats).
    """

    def __init__(
        self,
        journal: Journal,
        columns: Sequence[Column],
        shard_format: ShardFormat,
        *,
        shard_bytes: int,
        num_rows: int | None,
    ) -> None:
        self._journal, self._columns, self._format = journal, tuple(columns), shard_format
        row_bytes = sum(column.row_bytes for column in columns)
        is_variable = any(column.is_variable for column in columns)
        most_bytes = _MAX_BATCH_BYTES[shard_format]
        self.rows_per_batch = max(1, min(_MAX_BATCH_ROWS, most_bytes // max(1, row_bytes)))
        self._batch_bytes = min(most_bytes, shard_bytes) if is_variable else most_bytes
        self._shard_rows, self._shard_bytes = num_rows, shard_bytes
        if num_rows is None and not is_variable:
            self._shard_rows = self.rows_per_batch * max(1, shard_bytes // (row_bytes * self.rows_per_batch))
        progress = journal.progress
        known = progress.statistics or {}
        self._bounds = {column.name: Bounds(column, known.get(column.name)) for column in columns}
        self._shards = list(progress.shards)
        self._rows_done, self._buffers_done = progress.rows_done, progress.buffers_done
        self._queue = BlockQueue(columns)
        self._writer: ShardWriter | None = None
        self._rows_in_shard = self._bytes_in_shard = 0

    def write(self, block: Block, num_rows: int, *, is_resumable: bool = True) -> None:
        """Append rows; their memory may be used again afterwards."""
        self._queue.push(block, num_rows)
        self._write_batches(at_end=False, is_resumable=is_resumable)
        self._queue.keep()

    def end_shard(self, buffers_done: int) -> None:
        """Write all rows that wait and complete the shard: writing can go on from here."""
        self._buffers_done = buffers_done
        self._write_batches(at_end=True, is_resumable=False)
        self._finish_shard(is_resumable=True)

    def finish(self) -> tuple[tuple[Shard, ...], dict[str, ColumnStatistics]]:
        """Write all rows that wait; all shards and the statistics of all rows."""
        self._write_batches(at_end=True, is_resumable=True)
        self._finish_shard(is_resumable=True)
        return tuple(self._shards), self._statistics()

    def abandon(self) -> None:
        """Close the shard in the making without completing it."""
        if self._writer is not None:
            self._writer.abandon()

    def _write_batches(self, *, at_end: bool, is_resumable: bool) -> None:
        while True:
            # A shard ends where it is full; whether a further batch fits is known only when there is one.
            limit = self.rows_per_batch
            if self._shard_rows is not None:
                limit = min(limit, self._shard_rows - self._rows_in_shard)
            popped = self._queue.pop(limit, self._batch_bytes, at_end=at_end)
            if popped is None:
                return
            block, num_rows, num_bytes = popped
            if self._shard_rows is None and self._bytes_in_shard + num_bytes > self._shard_bytes:
                self._finish_shard(is_resumable=is_resumable)
            self._write_batch(block, num_rows, num_bytes)
            if self._rows_in_shard == self._shard_rows:
                self._finish_shard(is_resumable=is_resumable)

    def _write_batch(self, block: Block, num_rows: int, num_bytes: int) -> None:
        if self._writer is None:
            path = self._journal.folder / shard_name(len(self._shards), self._format)
            self._writer = ShardWriter(path, self._columns, self._format)
        self._writer.write(block, num_rows)
        self._rows_in_shard += num_rows
        self._bytes_in_shard += num_bytes
        for name, bounds in self._bounds.items():
            bounds.add(block[name])

    def _finish_shard(self, *, is_resumable: bool) -> None:
        """Complete the shard in the making, if there is one, and note it."""
        if self._writer is None:
            return
        shard = self._writer.finish(self.rows_per_batch)
        self._writer = None
        self._shards.append(shard)
        self._rows_done += shard.num_rows
        self._rows_in_shard = self._bytes_in_shard = 0
        self._journal.add_shard(
            shard, self._statistics(), self._rows_done if is_resumable else None, self._buffers_done
        )

    def _statistics(self) -> dict[str, ColumnStatistics]:
        return {name: bounds.statistics() for name, bounds in self._bounds.items()}
