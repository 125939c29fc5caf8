"""Rows to record batches to shard files, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from ..format.account import Account
from ..format.arrow_types import arrow_schema
from ..format.columns import Column
from ..format.statistics import array_statistics, merged_statistics
from .cut import RowQueue
from .journal import Journal, Progress
from .shard_file import ShardFile, shard_name

_MAX_BATCH_ROWS = 4096
_MAX_BATCH_BYTES = 8 << 20


class ShardSequence:
    """The shards of a dataset in the making; goes on after those that its journal holds. Raises OSError.

    Hashes are computed while the bytes pass. Encoding in a thread was tried and did not pay (two cores).
    """

    def __init__(
        self, journal: Journal, columns: Sequence[Column], account: Account, *, shard_bytes: int, num_rows: int | None
    ) -> None:
        self._journal, self._columns, self._account = journal, tuple(columns), account
        self._schema = arrow_schema(columns)
        row_bytes = sum(column.row_bytes for column in columns)
        is_variable = any(column.is_variable for column in columns)
        self.rows_per_batch = max(1, min(_MAX_BATCH_ROWS, _MAX_BATCH_BYTES // max(1, row_bytes)))
        self._batch_bytes = min(_MAX_BATCH_BYTES, shard_bytes) if is_variable else _MAX_BATCH_BYTES
        self._shard_rows, self._shard_bytes = num_rows, shard_bytes
        if num_rows is None and not is_variable:
            self._shard_rows = self.rows_per_batch * max(1, shard_bytes // (row_bytes * self.rows_per_batch))
        self.progress: Progress = journal.progress
        self._shards = list(journal.progress.shards)
        self._statistics = dict(journal.progress.statistics or {})
        self._rows_written = journal.progress.rows_done
        self._queue = RowQueue(columns)
        self._file: ShardFile | None = None
        self._rows_in_shard = self._bytes_in_shard = 0

    def write(self, batch: pa.RecordBatch, *, is_resumable: bool = True) -> None:
        """Append rows as they are stored; their memory may be used again afterwards."""
        self._queue.push(batch)
        self._write_batches(at_end=False, is_resumable=is_resumable)
        self._queue.keep()

    def end_shard(self, buffers_done: int) -> None:
        """Write all rows that wait and complete the shard: writing can go on from here."""
        self.progress = replace(self.progress, buffers_done=buffers_done)
        self._write_batches(at_end=True, is_resumable=False)
        self._finish_shard(is_resumable=True)

    def finish(self) -> Progress:
        """Write all rows that wait; all shards and the statistics of all rows."""
        self._write_batches(at_end=True, is_resumable=True)
        self._finish_shard(is_resumable=True)
        return replace(self.progress, shards=tuple(self._shards))

    def abandon(self) -> None:
        """Close the shard in the making without completing it."""
        if self._file is not None:
            self._file.abandon()

    def _write_batches(self, *, at_end: bool, is_resumable: bool) -> None:
        while True:
            # A shard ends where it is full; whether a further batch fits is known only when there is one.
            limit = self.rows_per_batch
            if self._shard_rows is not None:
                limit = min(limit, self._shard_rows - self._rows_in_shard)
            popped = self._queue.pop(limit, self._batch_bytes, at_end=at_end)
            if popped is None:
                return
            batch, num_bytes = popped
            if self._shard_rows is None and self._bytes_in_shard + num_bytes > self._shard_bytes:
                self._finish_shard(is_resumable=is_resumable)
            self._write_batch(batch, num_bytes)
            if self._rows_in_shard == self._shard_rows:
                self._finish_shard(is_resumable=is_resumable)

    def _write_batch(self, batch: pa.RecordBatch, num_bytes: int) -> None:
        if self._file is None:
            path = self._journal.folder / shard_name(len(self._shards))
            self._file = ShardFile(path, self._schema)
        self._file.write(batch)
        for column, array in zip(self._columns, batch.columns, strict=True):
            found = array_statistics(column, array, first_row=self._rows_written)
            before = self._statistics.get(column.name)
            self._statistics[column.name] = found if before is None else merged_statistics([before, found])
        self._rows_in_shard += batch.num_rows
        self._rows_written += batch.num_rows
        self._bytes_in_shard += num_bytes

    def _finish_shard(self, *, is_resumable: bool) -> None:
        """Complete the shard in the making, if there is one, and note it."""
        if self._file is None:
            return
        shard = self._file.finish(self.rows_per_batch)
        self._file = None
        self._shards.append(shard)
        self._rows_in_shard = self._bytes_in_shard = 0
        rows_done = self.progress.rows_done + shard.num_rows
        self.progress = replace(
            self.progress,
            columns=self._columns,
            statistics=dict(self._statistics),
            rows_done=rows_done,
            account=self._account.settle(rows_done) if is_resumable else self.progress.account,
        )
        self._journal.add_shard(shard, self.progress, is_resumable=is_resumable)
