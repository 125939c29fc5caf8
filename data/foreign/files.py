"""Files of other programs, one at a time: what their footers say, and their rows, chunk by chunk.

A chunk is what is read as a whole: a row group of Parquet, a record batch of Arrow, a run of TFRecords (`tfrecord`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from ..errors import DatasetError, ShardError
from ..format.shards import UNREADABLE, check_names
from .footers import open_parquet

BATCH_ROWS = 1024
"""Rows that are decoded at once, and rows of a record batch in the cache: a row may be a picture, or a book."""

PARQUET_SUFFIXES = (".parquet", ".pq")
ARROW_SUFFIXES = (".arrow", ".feather", ".ipc")
_STREAM_MARK = b"\xff\xff\xff\xff"


class ForeignFile(ABC):
    """One open file. Raises ShardError if it cannot be read.

    Args:
        path: the file on this host, or its URI.
        name: what messages call it.
    """

    chunk_name: str
    schema: pa.Schema
    chunk_rows: tuple[int, ...]

    def __init__(self, path: Path | str, name: str) -> None:
        self.path, self.name = path, name

    @abstractmethod
    def record_batches(self, chunk: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of these columns in a chunk, BATCH_ROWS at most at once, as they are in the file."""

    def where(self, chunk: int) -> str:
        """A chunk in words: its number and rows."""
        first = sum(self.chunk_rows[:chunk])
        return f"{self.chunk_name} {chunk} (rows {first} to {first + self.chunk_rows[chunk] - 1} of the file)"

    def damaged(self, what: str) -> ShardError:
        """The error for a file that is not as it was written."""
        return ShardError(
            f"File {self.name} {what}. It was damaged or changed after it was written: copy or write it again, or "
            "leave the damaged part out with on_corrupt='skip'.",
            path=self.path,
        )

    def unreadable(self, what: str, error: Exception) -> ShardError:
        """The error for what the libraries say, which is not always damage."""
        text = f"{type(error).__name__ if isinstance(error, MemoryError) else error}"
        if any(word in text.lower() for word in ("decrypt", "encrypt")):
            return ShardError(
                f"File {self.name} is encrypted, and there are no keys for it here ({text}). Write it again without "
                "encryption (pyarrow.parquet with decryption_properties), and read or convert that.",
                path=self.path,
            )
        if isinstance(error, MemoryError) or "overflow" in text.lower() or "capacity" in text.lower():
            return ShardError(
                f"File {self.name} {what}: more than fits at once ({text}). Write it again in smaller row groups "
                "(pyarrow: row_group_size=), or convert it on a host with more memory.",
                path=self.path,
            )
        return self.damaged(f"{what} ({text})")

    def close(self) -> None:  # noqa: B027 (a map needs no closing)
        """Let go of the file."""


class ParquetFile(ForeignFile):
    """A Parquet file; page checksums are compared where the file has them. `source` is it opened, if it is remote."""

    chunk_name = "row group"

    def __init__(self, path: Path | str, name: str, source: BinaryIO | None = None) -> None:
        super().__init__(path, name)
        try:
            self._file = open_parquet(path if source is None else source)
            self.metadata, self.schema = self._file.metadata, self._file.schema_arrow
            groups = range(self.metadata.num_row_groups)
            self.chunk_rows = tuple(self.metadata.row_group(number).num_rows for number in groups)
            check_names(self.schema)
        except UNREADABLE as error:
            raise self.unreadable("is not a readable Parquet file", error) from error

    def record_batches(self, chunk: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:  # noqa: D102
        yield from self._file.iter_batches(BATCH_ROWS, row_groups=[chunk], columns=list(names), use_threads=False)

    def close(self) -> None:  # noqa: D102
        self._file.close()


class ArrowFile(ForeignFile):
    """An Arrow IPC file (Feather version 2) of any program, read record batch by record batch.

    Not mapped: who touches rows that somebody cut off meanwhile is ended by the system, and decoding is done beside
    the training, where nobody has just looked whether the file is whole.
    """

    chunk_name = "record batch"

    def __init__(self, path: Path, name: str, chunk_rows: Sequence[int] | None = None) -> None:
        super().__init__(path, name)
        self._source = pa.OSFile(str(path))
        try:
            self._file = pa.ipc.open_file(self._source)
            count = self._file.num_record_batches
            is_known = chunk_rows is not None and len(chunk_rows) == count
            self.chunk_rows = tuple(chunk_rows or ()) if is_known else _rows_of_batches(path)
            self.schema = self._file.schema
            check_names(self.schema)
        except UNREADABLE as error:
            with open(path, "rb") as opened:
                is_stream = opened.read(len(_STREAM_MARK)) == _STREAM_MARK
            if is_stream:
                message = f"File {name} is an Arrow stream, which has no footer: convert it (heliostat convert)."
                raise ShardError(message, path=path) from error
            raise self.damaged(f"is not a readable Arrow file ({error})") from error

    def record_batches(self, chunk: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:  # noqa: D102
        batch = self._file.get_batch(chunk)
        # Damaged row splits would lead outside of the memory of the batch.
        batch.validate(full=True)
        for first in range(0, batch.num_rows, BATCH_ROWS):
            yield batch.select(list(names)).slice(first, BATCH_ROWS)

    def close(self) -> None:  # noqa: D102
        self._source.close()


def _rows_of_batches(path: Path) -> tuple[int, ...]:
    """The rows of every record batch, without reading them: in a map only their heads are touched."""
    with pa.memory_map(str(path), "r") as source:
        file = pa.ipc.open_file(source)
        return tuple(file.get_batch(number).num_rows for number in range(file.num_record_batches))


def guarded(file: ForeignFile, chunk: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a chunk; raises ShardError naming it, also if there are others than the footer says."""
    num_rows = 0
    try:
        for batch in file.record_batches(chunk, names):
            num_rows += batch.num_rows
            yield batch
    except DatasetError:
        raise
    except UNREADABLE as error:
        raise file.unreadable(f"cannot be read in {file.where(chunk)}", error) from error
    if num_rows != file.chunk_rows[chunk]:
        raise file.damaged(f"has {num_rows} rows in {file.where(chunk)}; its footer says {file.chunk_rows[chunk]}")
