"""The fetchers of foreign files: a row group, a record batch or a run of records becomes an Arrow file of the cache.

So there is one reader of rows, whatever programs wrote them. It reads mapped files and nothing else; what is decoded is
kept on disk, bounded and evicted like shards of an object store, and used again by the next epoch and the next run. (A
reader that kept decoded chunks in memory was there before: it decoded a chunk for every few rows of a full shuffle, in
every epoch anew.) The price is room on a disk of this host for the rows as they are in memory, which is told when
such a dataset is opened.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
import xxhash

from ..errors import BadColumnError, ShardError
from ..format.arrow import arrow_schema, as_stored
from ..format.chunks import ChunkTable, Skipped
from ..format.columns import Column, column_to_json
from ..format.manifest import Manifest, Shard
from ..format.shards import EDGE_PREFIX, edge_hash, schema_text
from ..remote.cache import CacheFile, CacheSettings, ShardCache, Write
from ..remote.files import DatasetFiles, LocalFiles, RemoteFiles
from ..remote.room import PART_SUFFIX
from .examples import Feature
from .files import BATCH_ROWS, PARQUET_SUFFIXES, ArrowFile, ForeignFile, ParquetFile, guarded
from .folder import ForeignFolder
from .tfrecord import TFRecordFile

DECODER_VERSION = 1
"""Part of the names of decoded files; changes whenever other bytes would be made of the same files."""

_MOST_OPENINGS = 3
_COLUMN_OVERHEAD_BYTES = 200  # of a column in the head of a record batch, and in the schema


@dataclass(frozen=True, kw_only=True)
class ForeignFiles:
    """The files of a dataset that are decoded into the cache; a fetcher (see `remote.cache`).

    Args:
        name: the dataset, in messages.
        folder: what is known of the files.
        place: where they lie.
        settings: where decoded ones are kept.
    """

    name: str
    folder: ForeignFolder
    place: DatasetFiles
    settings: CacheSettings

    @property
    def manifest(self) -> Manifest:
        """Columns and files."""
        return self.folder.manifest

    @property
    def is_flat(self) -> bool:
        """Whether a manifest beside the files would tell all."""
        return not (self.folder.runs or self.folder.keys or any("/" in shard.file for shard in self.manifest.shards))

    @property
    def num_bytes(self) -> int:
        """About how many bytes all rows take in the cache."""
        return sum(file.num_bytes for file in self.files({}))

    def files(self, skipped: Skipped) -> tuple[CacheFile, ...]:
        """The files of the cache, one for each chunk that has rows and is not skipped."""
        chunks = ChunkTable.of(self.manifest, skipped)
        places = zip(chunks.shards.tolist(), chunks.numbers.tolist(), chunks.num_rows.tolist(), strict=True)
        columns = [column_to_json(column) for column in self.manifest.columns]
        stamps = {number: self._identity(number, columns) for number in set(chunks.shards.tolist())}
        return tuple(self._file(shard, chunk, rows, stamps[shard]) for shard, chunk, rows in places)

    def _identity(self, number: int, columns: Sequence[Mapping[str, object]]) -> str:
        keys = {name: values[number] for name, values in self.folder.keys.items()}
        digest = self.manifest.shards[number].xxh3_128
        return json.dumps([DECODER_VERSION, digest, self.place.stamp(number), columns, keys], sort_keys=True)

    def _file(self, shard: int, chunk: int, num_rows: int, identity: str) -> CacheFile:
        full, rest = divmod(num_rows, BATCH_ROWS)
        rows = (BATCH_ROWS,) * full + ((rest,) if rest else ())
        overhead = _COLUMN_OVERHEAD_BYTES * (2 + len(self.manifest.columns))
        return CacheFile(
            name=_name(identity, chunk),
            num_bytes=int(num_rows * self.folder.row_bytes) + overhead * (1 + len(rows)),
            xxh3_128=None,
            origin=f"{self.manifest.shards[shard].file} of {self.name}, chunk {chunk}",
            rows=rows,
            shard=shard,
            chunk=chunk,
        )

    def fetch(self, file: CacheFile, write: Write, stop: threading.Event) -> None:
        """Decode a chunk; raises ShardError, BadColumnError for values that the dataset cannot hold."""
        self.place.look_again([file.shard])
        opened, batches = self._begun(file)
        try:
            sink = pa.PythonFile(_Sink(write, stop), mode="w")
            with pa.ipc.new_file(sink, arrow_schema(self.manifest.columns)) as writer:
                for batch in batches:
                    writer.write_batch(batch)
        finally:
            opened.close()
        if isinstance(self.place, RemoteFiles) and self._is_decoded(file):
            self.place.let_go(file.shard)

    def _begun(self, file: CacheFile) -> tuple[ForeignFile, Iterator[pa.RecordBatch]]:
        """The file that a chunk is of, opened, and the chunk's rows, of which the first are read.

        A copy from another machine may be deleted, for room, until it is open: then it is fetched again.
        """
        for _ in range(_MOST_OPENINGS - 1):
            try:
                return self._opened_at(file)
            except FileNotFoundError:
                continue
            except ShardError:
                if not isinstance(self.place, RemoteFiles) or self.place.is_here(file.shard):
                    raise
        return self._opened_at(file)

    def _opened_at(self, file: CacheFile) -> tuple[ForeignFile, Iterator[pa.RecordBatch]]:
        opened = self.opened(file.shard)
        batches = _of_equal_rows(self.stored_batches(opened, file.shard, file.chunk))
        try:
            return opened, chain(list(islice(batches, 1)), batches)
        except BaseException:
            opened.close()
            raise

    def _is_decoded(self, file: CacheFile) -> bool:
        """Whether all chunks of the file that this one is of are in the cache, or will be soon."""
        cache = ShardCache(self.settings.folder(), self.settings.cache_bytes)
        identity = self._identity(file.shard, [column_to_json(column) for column in self.manifest.columns])
        rows = self.manifest.chunk_rows(self.manifest.shards[file.shard])
        paths = [cache.folder / _name(identity, chunk) for chunk, num_rows in enumerate(rows) if num_rows]
        return all(path.exists() or path.with_name(f"{path.name}{PART_SUFFIX}").exists() for path in paths)

    def look_again(self, numbers: Iterable[int]) -> None:
        """Look whether these files are still the same; raises ShardError."""
        self.place.look_again(numbers)

    def check(self, numbers: Sequence[int]) -> None:
        """Look whether files are there and have the sizes of the manifest, on this host also its rows and columns.

        Raises ShardError.
        """
        self.place.check(numbers)
        for number in numbers:
            # Of those that were opened without a manifest it was made just now.
            is_stated = not (self.folder.runs or self.manifest.shards[number].xxh3_128.startswith(EDGE_PREFIX))
            if is_stated and isinstance(self.place, LocalFiles):
                self.opened(number).close()

    def opened(self, number: int) -> ForeignFile:
        """A file, opened; raises ShardError if it is not the one of the manifest."""
        shard, path = self.manifest.shards[number], self.place.path_of(number)
        file = self._open(number, shard, path)
        if shard.xxh3_128.startswith(EDGE_PREFIX) and edge_hash(path) != shard.xxh3_128:
            raise ShardError(
                f"File {file.name} changed after the dataset was opened: open it again, and do not write to it while "
                "it is read.",
                path=path,
            )
        rows, stated = file.chunk_rows, self.manifest.chunk_rows(shard)
        if rows != stated:
            raise file.damaged(
                f"has {sum(rows)} rows in {len(rows)} {file.chunk_name}s; its manifest says {sum(stated)} in "
                f"{len(stated)}"
            )
        self._check_columns(file)
        return file

    def _open(self, number: int, shard: Shard, path: Path) -> ForeignFile:
        name = f"{shard.file} of {self.name}"
        if self.folder.runs:
            features: Mapping[str, Feature] = self.folder.features
            return TFRecordFile(path, name, self._own_columns(), features, self.folder.runs[number])
        is_parquet = shard.file.lower().endswith(PARQUET_SUFFIXES)
        return ParquetFile(path, name) if is_parquet else ArrowFile(path, name, self.manifest.chunk_rows(shard))

    def _own_columns(self) -> list[Column]:
        """The columns that are in the files, and not in the names of their folders."""
        return [column for column in self.manifest.columns if column.name not in self.folder.keys]

    def _check_columns(self, file: ForeignFile) -> None:
        if self.folder.runs:
            return
        if self.manifest.shard_format == "parquet":
            expected = arrow_schema(self.manifest.columns)
            if not file.schema.equals(expected, check_metadata=False):
                raise file.damaged(
                    f"has the columns {schema_text(file.schema)}; its manifest says {schema_text(expected)}"
                )
        for column in self._own_columns():
            if column.name not in file.schema.names:
                raise file.damaged(f"has no column {column.name!r}; it has {', '.join(map(repr, file.schema.names))}")

    def stored_batches(self, file: ForeignFile, number: int, chunk: int) -> Iterator[pa.RecordBatch]:
        """The rows of a chunk as they are stored; raises ShardError, BadColumnError, which name file, chunk and row."""
        columns = self.manifest.columns
        schema, first_row = arrow_schema(columns), sum(file.chunk_rows[:chunk])
        for batch in guarded(file, chunk, [column.name for column in self._own_columns()]):
            try:
                arrays = [as_stored(c, self._column(c, batch, number), first_row=first_row) for c in columns]
            except BadColumnError as error:
                raise BadColumnError(
                    f"File {file.name} cannot be read as it is, in {file.where(chunk)}: {error} That is done by "
                    "converting the files (heliostat convert).",
                    path=file.path,
                    column=error.column,
                ) from error
            first_row += batch.num_rows
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _column(self, column: Column, batch: pa.RecordBatch, number: int) -> pa.Array:
        if column.name in self.folder.keys:
            return pa.repeat(self.folder.keys[column.name][number], batch.num_rows)
        return batch.column(column.name)


def _name(identity: str, chunk: int) -> str:
    return f"{xxhash.xxh3_128_hexdigest(f'{identity} {chunk}'.encode())}.decoded"


class _Sink:
    """A file for Arrow to write to, whose bytes are handed on."""

    def __init__(self, write: Write, stop: threading.Event) -> None:
        self._write, self._stop, self._num_bytes, self.closed = write, stop, 0, False

    def write(self, data: bytes | memoryview) -> int:
        """Hand bytes on; raises ShardError when the reader was closed."""
        if self._stop.is_set():
            raise ShardError("Decoding was stopped: the reader was closed.")
        block = memoryview(data)
        self._write(block)
        self._num_bytes += block.nbytes
        return block.nbytes

    def tell(self) -> int:
        """The bytes written so far."""
        return self._num_bytes

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """The cache closes its file."""
        self.closed = True


def _of_equal_rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in record batches of BATCH_ROWS, the last one maybe fewer: where a reader splits is its affair."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        while sum(one.num_rows for one in waiting) >= BATCH_ROWS:
            joined = waiting[0] if len(waiting) == 1 else pa.concat_batches(waiting)
            yield joined.slice(0, BATCH_ROWS)
            rest = joined.slice(BATCH_ROWS)
            waiting = [rest] if rest.num_rows else []
    if waiting:
        yield waiting[0] if len(waiting) == 1 else pa.concat_batches(waiting)
