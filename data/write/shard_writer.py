"""Writing one shard file, Arrow IPC or Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..format.manifest import Column, Shard, ShardFormat
from ..format.shards import HashedFile, arrow_schema, record_batch
from .blocks import Block

_SUFFIXES = {"arrow": ".arrow", "parquet": ".parquet"}


def shard_name(number: int, shard_format: ShardFormat) -> str:
    """The file name of a dataset's shard."""
    return f"shard-{number:05d}{_SUFFIXES[shard_format]}"


class ShardWriter:
    """One shard in the making: every block becomes a record batch or a row group. Raises OSError."""

    def __init__(self, path: Path, columns: Sequence[Column], shard_format: ShardFormat) -> None:
        self._path, self._columns = path, tuple(columns)
        self._file = HashedFile(path)
        self._chunk_rows: list[int] = []
        self._arrow: Any = _ipc(self._file, columns) if shard_format == "arrow" else _parquet(self._file, columns)

    def write(self, block: Block, num_rows: int) -> None:
        """Append a block of C-contiguous native values."""
        batch = record_batch(self._columns, [block[column.name] for column in self._columns])
        if isinstance(self._arrow, pq.ParquetWriter):
            self._arrow.write_batch(batch, row_group_size=num_rows)
        else:
            self._arrow.write_batch(batch)
        self._chunk_rows.append(num_rows)

    def finish(self, rows_per_batch: int) -> Shard:
        """Complete the file and wait until it is on the disk."""
        self._arrow.close()
        self._file.sync()
        self._file.close()
        rows = self._chunk_rows
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


def _ipc(file: HashedFile, columns: Sequence[Column]) -> pa.RecordBatchFileWriter:
    return pa.ipc.new_file(pa.PythonFile(file, mode="w"), arrow_schema(columns))


def _parquet(file: HashedFile, columns: Sequence[Column]) -> pq.ParquetWriter:
    # Page checksums, because that is how a flipped bit is found while reading. Dictionaries help text that repeats, and
    # cost time for numbers.
    text = [column.name for column in columns if column.kind == "string"]
    return pq.ParquetWriter(
        pa.PythonFile(file, mode="w"),
        arrow_schema(columns),
        compression="zstd",
        use_dictionary=text or False,
        write_page_checksum=True,
        store_schema=True,
    )
