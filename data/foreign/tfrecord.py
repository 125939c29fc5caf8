"""TFRecord files read where they lie: runs of records, found by one scan, that are decoded as row groups are.

A TFRecord file has no footer, so nobody can say how many records it has, where the thousandth lies, or which features
there are, without reading all of it. That is done once, when the dataset is opened: TensorFlow's reader, which compares
the checksums, gives the records; their lengths say where they lie; all of them say what the features are (`examples`).
What is kept is a few numbers for every run of some thousand records, with a hash, which the records must have when
they are decoded. Decoding records one by one as rows are asked for was not tried: each would be parsed in every epoch.

The scan parses every record in Python, some megabytes a second, so what it notes lies in the cache of this host as an
*index*: whoever opens the same files later, also another process, reads that. They are the same files if place, size,
time of change (the kernel's, which nobody sets) and ends are. What is changed behind all of these is still found where
it matters: its run has another hash when it is decoded. Without a cache that can be used, every opening scans.
"""

from __future__ import annotations

import json
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import msgspec
import pyarrow as pa
import xxhash

from ..errors import CacheError, ShardError, SourceError
from ..format.columns import Column
from ..format.shards import edge_hash, hash_file
from ..remote.cache import CacheFile, CacheSettings, ShardCache, Write
from .examples import Feature, Features, parse
from .files import BATCH_ROWS, ForeignFile

_RUN_ROWS = 4 * BATCH_ROWS
_RUN_BYTES = 8 << 20
_HEAD_BYTES, _TAIL_BYTES = 12, 4
_AT_ONCE_BYTES = 8 << 20
_TOLD_BYTES = 256 << 20
_PLACE_IN_TENSORFLOW = re.compile(r"\{\{.*?\}\} | \[Op:.*\].*")
_NOT_RECORDS = (".idx", ".index")  # of other programs, beside their records

INDEX_VERSION = 1
"""Part of the names of indices; changes whenever a scan would note something else of the same files."""


@dataclass(frozen=True, slots=True)
class Run:
    """Some records that follow each other: the place of the first in the file, their number, the hash of what is in
    them."""

    place: int
    num_rows: int
    xxh3_128: str


@dataclass(frozen=True, slots=True)
class Index:
    """What a scan of all records notes: the features of all files; for each file its runs and the hash of its bytes."""

    features: Features
    runs: tuple[tuple[Run, ...], ...]
    hashes: tuple[str, ...]

    def columns(self, place: Path) -> tuple[Column, ...]:
        """What the features become; raises ShardError, BadColumnError for those that are no columns as they are."""
        if self.features.lists:
            raise ShardError(
                f"{place} holds tf.train.SequenceExample with the feature lists "
                f"{', '.join(map(repr, self.features.lists))}, which are no columns. Convert it and choose features of "
                "the context (heliostat convert --feature NAME).",
                path=place,
            )
        return tuple(self.features.column(name) for name in sorted(self.features.known))


def is_tfrecord(name: str) -> bool:
    """Whether a file of that name holds TFRecords; shards are often called train.tfrecord-00000-of-00008."""
    bare = PurePath(name).name.lower()
    return ".tfrecord" in bare and not bare.endswith(_NOT_RECORDS)


def index_of(paths: Sequence[Path], settings: CacheSettings) -> Index:
    """The index of files, from the cache if it has it, else after reading all records once; raises ShardError,
    BadColumnError for records that do not go together."""
    indexing = _Indexing(paths)
    try:
        cache, file = ShardCache(settings.folder(), settings.cache_bytes), indexing.file()
        cache.fetch(file, indexing, wait_s=0.0)
        return indexing.index or msgspec.json.decode((cache.folder / file.name).read_bytes(), type=Index)
    except (CacheError, OSError, msgspec.DecodeError):  # no room, no rights, evicted just now, damaged
        return indexing.index or _scanned(paths)


class _Indexing:
    """The fetcher of an index; `index` is the one that it made, if it did."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self.index: Index | None = None

    def file(self) -> CacheFile:
        """The index as the cache has it, named by what tells the files from others and from what they were before."""
        found = [(path, path.stat()) for path in self._paths]
        stamps = [
            (str(path.resolve()), stat.st_size, stat.st_ctime_ns, stat.st_ino, edge_hash(path)) for path, stat in found
        ]
        identity = json.dumps([INDEX_VERSION, _RUN_ROWS, _RUN_BYTES, stamps])
        name = f"{xxhash.xxh3_128_hexdigest(identity.encode())}.index"
        return CacheFile(name=name, num_bytes=0, xxh3_128=None, origin=f"the index of {self._paths[0].parent}")

    def fetch(self, file: CacheFile, write: Write, stop: threading.Event) -> None:
        """Read all records."""
        del file, stop
        num_bytes = sum(path.stat().st_size for path in self._paths)
        if num_bytes > _TOLD_BYTES:
            warnings.warn(
                f"{self._paths[0].parent}: all {num_bytes:,} bytes of TFRecord are read once to know their rows, which "
                "takes minutes for some gigabytes; the next opening here reads what was found.",
                stacklevel=2,
            )
        self.index = _scanned(self._paths)
        write(msgspec.json.encode(self.index))


def _scanned(paths: Sequence[Path]) -> Index:
    features = Features()
    try:
        runs = tuple(tuple(_runs(path, features)) for path in paths)
    except SourceError as error:
        raise ShardError(str(error), path=error.path) from error
    return Index(features, runs, tuple(map(hash_file, paths)))


def scan(paths: Sequence[Path], on_read: Callable[[int], None] | None = None) -> Features:
    """What the records of all files hold; `on_read` hears the bytes so far. Raises SourceError, BadColumnError."""
    features = Features()
    for path in paths:
        for _ in _runs(path, features, on_read):
            pass
    return features


def _runs(path: Path, features: Features, on_read: Callable[[int], None] | None = None) -> Iterator[Run]:
    place = begin = num_rows = row = 0
    digest = xxhash.xxh3_128()
    # A compressed file cannot be read from the middle: it is one run.
    most = (1 << 62, 1 << 62) if compression(path) else (_RUN_ROWS, _RUN_BYTES)
    for records in records_of(path, BATCH_ROWS):
        for record in records:
            features.add(record, path, row)
            row += 1
            digest.update(record)
            num_rows, place = num_rows + 1, place + _HEAD_BYTES + len(record) + _TAIL_BYTES
            if num_rows == most[0] or place - begin >= most[1]:
                yield Run(begin, num_rows, digest.hexdigest())
                digest, begin, num_rows = xxhash.xxh3_128(), place, 0
        if on_read is not None:
            on_read(features.num_bytes)
    if num_rows:
        yield Run(begin, num_rows, digest.hexdigest())


def records_of(path: Path, step: int) -> Iterator[list[bytes]]:
    """The records of a file, up to `step` at once, unpacked; raises SourceError where it is damaged or cut."""
    import tensorflow as tf

    row = num_bytes = 0
    step = max(1, min(step, _AT_ONCE_BYTES // _first_bytes(path)))
    try:
        with tf.device("CPU:0"):
            # Eager batches of tf.string: one object array, its bytes are handed on as they are.
            for batch in tf.data.TFRecordDataset(str(path), compression(path)).batch(step).as_numpy_iterator():
                records = batch.tolist()
                row += len(records)
                num_bytes += sum(_HEAD_BYTES + len(record) + _TAIL_BYTES for record in records)
                yield records
    except tf.errors.OpError as error:
        raise _cut_short(path, row, _PLACE_IN_TENSORFLOW.sub("", error.message)) from error
    # TensorFlow takes a head that was cut, and compressed data without its end, for the end of the file.
    more = _unpacked_bytes(path, row) - num_bytes
    if more:
        raise _cut_short(path, row, f"{more:,} bytes follow that are no record")


def compression(path: Path) -> str:
    """How a file is packed, as TensorFlow names it; empty if it is not.

    A record may be as long as the number that marks gzip: its length has a checksum, which decides.
    """
    with open(path, "rb") as file:
        start = file.read(_HEAD_BYTES)
    if start[8:] == _checksum(start[:8]):
        return ""
    if start.startswith(b"\x1f\x8b"):
        return "GZIP"
    return "ZLIB" if start[:1] == b"\x78" and int.from_bytes(start[:2]) % 31 == 0 else ""


def _checksum(data: bytes) -> bytes:
    """The CRC-32C of a few bytes, masked and stored as in TFRecord files."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _unpacked_bytes(path: Path, row: int) -> int:
    """The bytes of all records of a file; raises SourceError if it is packed and was cut short."""
    if not compression(path):
        return path.stat().st_size
    num_bytes, unpacking = 0, zlib.decompressobj(wbits=47)  # gzip or zlib, as its head says
    try:
        with open(path, "rb") as file:
            while data := unpacking.unconsumed_tail or unpacking.unused_data or file.read(1 << 20):
                if unpacking.eof:  # another member follows
                    unpacking = zlib.decompressobj(wbits=47)
                num_bytes += len(unpacking.decompress(data, 1 << 20))
        num_bytes += len(unpacking.flush())
    except zlib.error as error:
        raise _cut_short(path, row, str(error)) from error
    if not unpacking.eof:
        raise _cut_short(path, row, "the end of the compressed data is missing")
    return num_bytes


def _first_bytes(path: Path) -> int:
    """Bytes of the first record, by which the others are judged; of a packed file a guess."""
    with open(path, "rb") as file:
        start = file.read(8)
    return 1 << 16 if compression(path) or len(start) < 8 else max(1, int.from_bytes(start, "little"))


def _cut_short(path: Path, row: int, what: str) -> SourceError:
    return SourceError(
        f"{path} cannot be read as TFRecord after row {row}: {what}. It was probably cut short or damaged: copy it "
        "again.",
        path=path,
    )


class TFRecordFile(ForeignFile):
    """A TFRecord file whose runs and features are known."""

    chunk_name = "run of records"

    def __init__(
        self, path: Path, name: str, columns: Sequence[Column], features: Mapping[str, Feature], runs: Sequence[Run]
    ) -> None:
        super().__init__(path, name)
        self._columns, self._features, self._runs = columns, features, runs
        self.chunk_rows = tuple(run.num_rows for run in runs)

    def record_batches(self, chunk: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:  # noqa: D102
        first_row = sum(self.chunk_rows[:chunk])
        chosen = [column for column in self._columns if column.name in names]
        for records in self._records(chunk):
            arrays = parse(records, chosen, self._features, first_row)
            first_row += len(records)
            yield pa.RecordBatch.from_pydict(arrays)

    def _records(self, chunk: int) -> Iterator[list[bytes]]:
        """The records of a run; raises ShardError if they are not those that were scanned."""
        run, digest = self._runs[chunk], xxhash.xxh3_128()
        is_whole = bool(compression(Path(self.path)))
        for records in records_of(Path(self.path), BATCH_ROWS) if is_whole else self._read(run):
            for record in records:
                digest.update(record)
            yield records
        if digest.hexdigest() != run.xxh3_128:
            raise self.damaged(f"has other records than when it was opened, in {self.where(chunk)}")

    def _read(self, run: Run) -> Iterator[list[bytes]]:
        with open(self.path, "rb") as file:
            place, num_bytes = file.seek(run.place), os.fstat(file.fileno()).st_size
            for first in range(0, run.num_rows, BATCH_ROWS):
                records = []
                for _ in range(min(run.num_rows - first, BATCH_ROWS)):
                    head = file.read(_HEAD_BYTES)
                    length = int.from_bytes(head[:8], "little")
                    after = place + _HEAD_BYTES + length + _TAIL_BYTES
                    if len(head) < _HEAD_BYTES or after > num_bytes:
                        raise self.damaged(f"has a record that leads beyond its end, at byte {place}")
                    records.append(file.read(length))
                    place = file.seek(after)
                yield records
