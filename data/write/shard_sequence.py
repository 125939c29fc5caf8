"""Rows to record batches to shard files, one after the other.

Where a batch and a shard end depends on the rows alone (`cut`), so equal rows make equal files and equal fingerprints.
A record batch has up to 4,096 rows and 8 MiB: large enough that finding one costs nothing beside reading it, small
enough that the writer and a cache of decoded batches stay bounded. A shard that is on the disk is noted in the journal
with all that is known of the rows so far; without a place to go on from (inside of a buffer that is shuffled) it is
noted as such. Hashes are computed while the bytes pass, so nothing is read again. Encoding in a thread was tried and
did not pay (two cores).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from ..format.account import Account
from ..format.arrow_types import arrow_schema
from ..format.columns import Column
from ..format.manifest import Shard
from ..format.statistics import merged_statistics, rows_statistics
from ..format.stored_arrays import values_of
from .cut import RowQueue, joined
from .journal import Journal, Progress

_MAX_BATCH_ROWS = 4096
_MAX_BATCH_BYTES = 8 << 20
_SEEN_TOGETHER_BYTES = 1 << 20  # batches of few bytes: looking at one costs more than at its rows


class HashedFile(BufferedWriter):
    """A new file that knows the size and hash of what was written to it, so that it need not be read again."""

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(path, "w"))
        self._digest = xxhash.xxh3_128()
        self.num_bytes = 0

    @property
    def xxh3_128(self) -> str:
        """The hash (hex) of the bytes so far."""
        return self._digest.hexdigest()

    def write(self, data: Any) -> int:
        """Append bytes, in any buffer; raises OSError."""
        self._digest.update(data)
        written = super().write(data)
        self.num_bytes += written
        return written

    def sync(self) -> None:
        """Wait until the bytes are on the disk; raises OSError."""
        self.flush()
        os.fsync(self.fileno())


class ShardFile:
    """One shard in the making. Raises OSError."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._file = HashedFile(path)
        self._chunk_rows: list[int] = []
        self._arrow = pa.ipc.new_file(pa.PythonFile(self._file, mode="w"), schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a record batch."""
        self._arrow.write_batch(batch)
        self._chunk_rows.append(batch.num_rows)

    def finish(self, rows_per_batch: int) -> Shard:
        """Complete the file and wait until it is on the disk."""
        self._arrow.close()
        self._file.sync()
        self._file.close()
        rows = self._chunk_rows
        # Then the manifest need not list them: it says how many each has.
        is_regular = all(count == rows_per_batch for count in rows[:-1]) and rows[-1] <= rows_per_batch
        return Shard(
            file=self._path.name,
            num_rows=sum(rows),
            num_bytes=self._file.num_bytes,
            xxh3_128=self._file.xxh3_128,
            chunk_rows=None if is_regular else tuple(rows),
        )

    def abandon(self) -> None:
        """Close the file without completing it."""
        self._file.close()


class ShardSequence:
    """The shards of a dataset in the making; goes on after those that its journal holds. Raises OSError."""

    def __init__(
        self, journal: Journal, columns: Sequence[Column], account: Account, *, shard_bytes: int, num_rows: int | None
    ) -> None:
        self._journal, self._columns, self._account = journal, tuple(columns), account
        self._schema = arrow_schema(columns)
        row_bytes = sum(column.row_bytes for column in columns)
        is_variable = any(column.is_variable for column in columns)
        self.rows_per_batch = max(1, min(_MAX_BATCH_ROWS, _MAX_BATCH_BYTES // max(1, row_bytes)))
        self._batch_bytes = min(_MAX_BATCH_BYTES, shard_bytes) if is_variable else _MAX_BATCH_BYTES
        self._shard_rows = num_rows
        self._shard_bytes = shard_bytes
        # Rows of one size: a number of whole batches. Others are counted in bytes as they come.
        if num_rows is None and not is_variable:
            self._shard_rows = self.rows_per_batch * max(1, shard_bytes // (row_bytes * self.rows_per_batch))
        self.progress: Progress = journal.progress
        self._shards = list(journal.progress.shards)
        # Of the shards so far, and of the rows since; but for some batches, which are looked at together.
        self._statistics = {name: [known] for name, known in (journal.progress.statistics or {}).items()}
        self._unseen: list[pa.RecordBatch] = []
        self._unseen_bytes = 0
        self._rows_written = journal.progress.rows_done
        self._queue = RowQueue(columns)
        self._file: ShardFile | None = None
        # Of the shard in the making.
        self._rows_in_shard = self._bytes_in_shard = 0

    def write(self, batch: pa.RecordBatch, *, is_resumable: bool = True) -> None:
        """Append rows as they are stored; their memory may be used again afterwards.

        Args:
            batch: of the columns of the dataset.
            is_resumable: whether a shard that these rows complete is a place to go on from.
        """
        self._queue.push(batch)
        self._write_batches(at_end=False, is_resumable=is_resumable)
        self._queue.keep()

    def end_shard(self, buffers_done: int) -> None:
        """Write all rows that wait and complete the shard: writing can go on from here.

        `buffers_done` is the number of buffers of shuffled rows that are written with it.
        """
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
        """Write the record batches that are full, or (`at_end`) all rows; end every shard that is."""
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
        """Write a record batch to the shard in the making, and add it to what is known of all rows."""
        if self._file is None:
            path = self._journal.folder / f"shard-{len(self._shards):05d}.arrow"
            self._file = ShardFile(path, self._schema)
        self._file.write(batch)
        self._rows_in_shard += batch.num_rows
        self._rows_written += batch.num_rows
        self._bytes_in_shard += num_bytes
        self._unseen.append(batch)
        self._unseen_bytes += num_bytes
        if self._unseen_bytes >= _SEEN_TOGETHER_BYTES:
            self._see()

    def _see(self) -> None:
        """Add the batches since the last call to what is known of all rows."""
        if not self._unseen:
            return
        rows = joined(self._unseen) if len(self._unseen) > 1 else self._unseen[0]
        self._unseen, self._unseen_bytes = [], 0
        for column, array in zip(self._columns, rows.columns, strict=True):
            first_row = self._rows_written - rows.num_rows
            found = rows_statistics(column, values_of(column, array), first_row=first_row)
            self._statistics.setdefault(column.name, []).append(found)

    def _finish_shard(self, *, is_resumable: bool) -> None:
        """Complete the shard in the making, if there is one, and note it."""
        if self._file is None:
            return
        self._see()
        shard = self._file.finish(self.rows_per_batch)
        self._file = None
        self._shards.append(shard)
        self._rows_in_shard = self._bytes_in_shard = 0
        rows_done = self.progress.rows_done + shard.num_rows
        merged = {name: merged_statistics(parts) for name, parts in self._statistics.items()}
        self._statistics = {name: [known] for name, known in merged.items()}
        self.progress = replace(
            self.progress,
            columns=self._columns,
            statistics=merged,
            rows_done=rows_done,
            account=self._account.settle(rows_done) if is_resumable else self.progress.account,
        )
        self._journal.add_shard(shard, self.progress, is_resumable=is_resumable)
