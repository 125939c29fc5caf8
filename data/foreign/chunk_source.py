"""Files whose chunks are decoded as a whole: Parquet row groups, and record batches of other programs' Arrow files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import BadColumnError, ShardError
from ..format.arrow_types import arrow_schema
from ..format.arrow_values import column_of_arrow, values_of_arrow
from ..format.manifest import Column, Manifest, Shard
from ..format.shards import UNREADABLE, check_names, check_shard_size, schema_text
from ..write.blocks import Block, join_blocks

_STREAM_MARK = b"\xff\xff\xff\xff"
PARQUET_SUFFIXES = (".parquet", ".pq")


class ChunkFile(ABC):
    """One open file whose chunks are decoded one at a time. Raises ShardError if it is not the one described."""

    def __init__(self, folder: Path | str, shard: Shard, columns: Sequence[Column]) -> None:
        self.path = folder / shard.file if isinstance(folder, Path) else f"{folder}/{shard.file}"
        self._folder, self.shard = folder, shard
        self._columns = {column.name: column for column in columns}

    @abstractmethod
    def chunk_rows(self) -> tuple[int, ...]:
        """The rows of every chunk, from the file's footer."""

    @abstractmethod
    def arrow_schema(self) -> pa.Schema:
        """The Arrow schema of the file."""

    @abstractmethod
    def _read(self, chunk: int, names: Sequence[str]) -> pa.Table | pa.RecordBatch: ...

    def load(self, chunk: int, names: Sequence[str]) -> Block:
        """The values of these columns in a chunk; raises ShardError naming the chunk and its rows."""
        try:
            found = self._read(chunk, names)
        except UNREADABLE as error:
            raise self.error(f"cannot be read in {self.where(chunk)} ({error})") from error
        if found.num_rows != self.chunk_rows()[chunk]:
            raise self.error(
                f"has {found.num_rows} rows in {self.where(chunk)}; its footer says {self.chunk_rows()[chunk]}"
            )
        block = {}
        for name in names:
            try:
                block[name] = values_of_arrow(self._columns[name], found.column(name))
            except (BadColumnError, pa.ArrowException, ValueError) as error:
                raise self.error(f"has unusable values in {self.where(chunk)}: {error}") from error
        return join_blocks([block], [self._columns[name] for name in names])

    def where(self, chunk: int) -> str:
        """A chunk in words: its number and rows."""
        rows = self.chunk_rows()
        first = sum(rows[:chunk])
        return f"{self.chunk_name} {chunk} (rows {first} to {first + rows[chunk] - 1} of the file)"

    chunk_name = "record batch"

    def error(self, what: str) -> ShardError:
        """A ShardError about this file."""
        return ShardError(
            f"Shard {self.shard.file} of dataset {self._folder} {what}. It was damaged or changed after it was "
            "written: copy or write it again, or leave the damaged part out with on_corrupt='skip'.",
            path=self.path,
        )

    def close(self) -> None:  # noqa: B027 (a map needs no closing)
        """Let go of the file."""


class ParquetFile(ChunkFile):
    """A Parquet file; page checksums are compared where the file has them. `source` is it opened, if it is remote."""

    chunk_name = "row group"

    def __init__(self, folder: Path | str, shard: Shard, columns: Sequence[Column], source: Any = None) -> None:
        super().__init__(folder, shard, columns)
        try:
            self._file = pq.ParquetFile(self.path if source is None else source, page_checksum_verification=True)
            metadata = self.metadata = self._file.metadata
            self._rows = tuple(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
            check_names(self._file.schema_arrow)
        except UNREADABLE as error:
            raise self.error(f"is not a readable Parquet file ({error})") from error

    def chunk_rows(self) -> tuple[int, ...]:  # noqa: D102
        return self._rows

    def arrow_schema(self) -> pa.Schema:  # noqa: D102
        return self._file.schema_arrow

    def _read(self, chunk: int, names: Sequence[str]) -> pa.Table:
        return self._file.read_row_group(chunk, columns=list(names), use_threads=False)

    def close(self) -> None:  # noqa: D102
        self._file.close()


class ArrowFile(ChunkFile):
    """An Arrow IPC file (Feather version 2) of any program, mapped; compressed ones are decompressed batch by batch."""

    def __init__(self, folder: Path, shard: Shard, columns: Sequence[Column]) -> None:
        super().__init__(folder, shard, columns)
        try:
            with pa.memory_map(str(self.path), "r") as file:
                self._file = pa.ipc.open_file(pa.BufferReader(file.read_buffer()))
            batches = range(self._file.num_record_batches)
            self._rows = shard.chunk_rows or tuple(self._file.get_batch(number).num_rows for number in batches)
            check_names(self._file.schema)
        except UNREADABLE as error:
            raise self.error(f"is {self._other_kind()} ({error})") from error
        if len(self._rows) != len(batches):
            raise self.error(f"has {len(batches)} record batches; its manifest says {len(self._rows)}")

    def _other_kind(self) -> str:
        with open(self.path, "rb") as file:
            is_stream = file.read(len(_STREAM_MARK)) == _STREAM_MARK
        return "an Arrow stream, which has no footer: convert it" if is_stream else "not a readable Arrow file"

    def chunk_rows(self) -> tuple[int, ...]:  # noqa: D102
        return self._rows

    def arrow_schema(self) -> pa.Schema:  # noqa: D102
        return self._file.schema

    def _read(self, chunk: int, names: Sequence[str]) -> pa.RecordBatch:
        batch = self._file.get_batch(chunk)
        # Damaged row splits would lead outside of the memory of the file.
        batch.validate(full=True)
        return batch.select(list(names))


def open_chunk_file(folder: Path, shard: Shard, columns: Sequence[Column]) -> ChunkFile:
    """Open a Parquet or Arrow file by its name, without comparing it to a manifest; raises ShardError."""
    is_parquet = shard.file.lower().endswith(PARQUET_SUFFIXES)
    return ParquetFile(folder, shard, columns) if is_parquet else ArrowFile(folder, shard, columns)


def open_checked(folder: Path, manifest: Manifest, shard: Shard) -> ChunkFile:
    """Open a file of a dataset; raises ShardError if size, columns or rows are not those of the manifest."""
    check_shard_size(folder, shard)
    file = open_chunk_file(folder, shard, manifest.columns)
    rows, stated = file.chunk_rows(), manifest.chunk_rows(shard)
    if rows != stated:
        raise file.error(
            f"has {sum(rows)} rows in {len(rows)} {file.chunk_name}s; its manifest says {sum(stated)} in {len(stated)}"
        )
    check_columns(file, manifest)
    return file


def check_columns(file: ChunkFile, manifest: Manifest) -> None:
    """Raise ShardError if a file lacks a column of the manifest or has one of another type."""
    schema = file.arrow_schema()
    if manifest.shard_format == "parquet":
        expected = arrow_schema(manifest.columns)
        if not schema.equals(expected, check_metadata=False):
            raise file.error(f"has the columns {schema_text(schema)}; its manifest says {schema_text(expected)}")
        return
    found: Mapping[str, Any] = {field.name: field.type for field in schema}
    for column in manifest.columns:
        if column.name not in found:
            raise file.error(f"has no column {column.name!r}; it has {', '.join(map(repr, found))}")
        if column_of_arrow(column.name, found[column.name]) != column:
            raise file.error(f"has column {column.name!r} of type {found[column.name]}; its manifest says {column}")
