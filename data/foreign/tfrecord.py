"""TFRecord files read where they lie: runs of records, found by one scan, that are decoded as row groups are.

A TFRecord file has no footer, so nobody can say how many records it has, where the thousandth lies, or which features
there are, without reading all of it. That is done once, when the dataset is opened: TensorFlow's reader, which compares
the checksums, gives the records; their lengths say where they lie; all of them say what the features are (`examples`).
What is kept is a few numbers for every run of some thousand records, with a hash, which the records must have when
they are decoded. Decoding records one by one as rows are asked for was not tried: each would be parsed in every epoch.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import pyarrow as pa
import xxhash

from ..errors import ShardError, SourceError
from ..format.columns import Column
from .examples import Feature, Features, compression, parse, records_of
from .files import BATCH_ROWS, ForeignFile

_RUN_ROWS = 4 * BATCH_ROWS
_RUN_BYTES = 8 << 20
_HEAD_BYTES, _TAIL_BYTES = 12, 4


@dataclass(frozen=True, slots=True)
class Run:
    """Some records that follow each other: the place of the first in the file, their number, the hash of what is in
    them."""

    place: int
    num_rows: int
    xxh3_128: str


@dataclass(frozen=True, slots=True)
class ScannedRecords:
    """The columns and features of all files, and the runs of each."""

    columns: tuple[Column, ...]
    features: Mapping[str, Feature]
    runs: tuple[tuple[Run, ...], ...]
    num_bytes: int


def is_tfrecord(name: str) -> bool:
    """Whether a file of that name holds TFRecords; those of several are often called train.tfrecord-00000-of-00008."""
    return ".tfrecord" in PurePath(name).name.lower()


def scan_records(paths: Sequence[Path]) -> ScannedRecords:
    """Read all records once; raises ShardError, BadColumnError for what cannot be read as columns as it is."""
    features, runs = Features(), []
    try:
        for path in paths:
            runs.append(tuple(_runs(path, features)))
    except SourceError as error:
        raise ShardError(str(error), path=error.path) from error
    if features.lists:
        raise ShardError(
            f"{paths[0].parent} holds tf.train.SequenceExample with the feature lists "
            f"{', '.join(map(repr, features.lists))}, which are no columns. Convert it and choose features of the "
            "context (heliostat convert --features).",
            path=paths[0].parent,
        )
    columns = tuple(features.column(name) for name in sorted(features.known))
    return ScannedRecords(columns, dict(features.known), tuple(runs), features.num_bytes)


def _runs(path: Path, features: Features) -> Iterator[Run]:
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
    if num_rows:
        yield Run(begin, num_rows, digest.hexdigest())


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
        for records in records_of(Path(self.path), BATCH_ROWS) if is_whole else self._mapped(run):
            for record in records:
                digest.update(record)
            yield records
        if digest.hexdigest() != run.xxh3_128:
            raise self.damaged(f"has other records than when it was opened, in {self.where(chunk)}")

    def _mapped(self, run: Run) -> Iterator[list[bytes]]:
        with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            place, left = run.place, run.num_rows
            while left:
                records = []
                for _ in range(min(left, BATCH_ROWS)):
                    (length,) = struct.unpack_from("<Q", data, place)
                    if place + _HEAD_BYTES + length + _TAIL_BYTES > len(data):
                        raise self.damaged(f"has a record that leads beyond its end, at byte {place}")
                    records.append(data[place + _HEAD_BYTES : place + _HEAD_BYTES + length])
                    place += _HEAD_BYTES + length + _TAIL_BYTES
                left -= len(records)
                yield records
