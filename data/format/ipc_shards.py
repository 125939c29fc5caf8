"""Arrow IPC shards, read through a memory map.

Arrow is asked once where things lie, not for every batch: a shard is opened, its schema and record batches compared
with the manifest, and the addresses of all columns noted (`Place`). From then on rows are copied by arithmetic out of
the mapped bytes, into the memory that a trainer trains from; a random row costs one copy and no object. Asking Arrow
for every row would build arrays only to throw them away, and a format of our own would not be readable by every
program that reads Arrow.

What is noted is checked first, because nothing is afterwards: a buffer that ends outside of the file, or a missing
value, would be memory of somebody else or a wrong number.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import ShardError
from .arrow_types import arrow_schema
from .columns import Column
from .manifest import Shard
from .shards import UNREADABLE, check_names, check_shard_size, schema_text, unfound_shard

_SPLIT_BYTES = 8


class Place(NamedTuple):
    """Where a column of one record batch lies in the file, in bytes: its values, their end, and its row splits (0 for
    columns of fixed shape)."""

    values: int
    values_end: int
    splits: int


class MappedShard:
    """One shard in memory through a read-only map; pages are read when rows are.

    `chunk_rows` are the rows that its record batches should have. Raises ShardError if the file is not the one that the
    manifest describes. Holds no file descriptor open.
    """

    def __init__(self, folder: Path, shard: Shard, columns: Sequence[Column], chunk_rows: Sequence[int]) -> None:
        check_shard_size(folder, shard)
        self._path, self._shard, self._chunk_rows = folder / shard.file, shard, chunk_rows
        self._first_rows = [0, *accumulate(chunk_rows)]
        self._columns = tuple(columns)
        # Arrow's map outlives its file; Python's mmap keeps a descriptor, and there may be thousands of shards.
        try:
            with pa.memory_map(str(self._path), "r") as file:
                buffer = file.read_buffer()
        except OSError as error:  # deleted since its size was looked at: a cache makes room at any time
            raise unfound_shard(folder, shard, error) from error
        self._bytes = np.frombuffer(buffer, np.uint8)
        self._file = self._open(buffer)

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """The bytes of the file."""
        return self._bytes

    def column_places(self) -> dict[str, list[Place]]:
        """For every column where it lies in every record batch."""
        batches = [self._load(self._file, index) for index in range(self._file.num_record_batches)]
        return {
            column.name: [self._place(batch.column(number), column) for batch in batches]
            for number, column in enumerate(self._columns)
        }

    def _open(self, buffer: pa.Buffer) -> pa.RecordBatchFileReader:
        """The file, if it is what the manifest says; reads its footer and the last record batch's lengths."""
        try:
            file = pa.ipc.open_file(pa.BufferReader(buffer))
            check_names(file.schema)
        except UNREADABLE as error:
            raise self._error(f"is not a readable Arrow file ({error})") from error
        expected = arrow_schema(self._columns)
        if not file.schema.equals(expected, check_metadata=False):
            raise self._error(f"has the columns {schema_text(file.schema)}; its manifest says {schema_text(expected)}")
        if file.num_record_batches != len(self._chunk_rows):
            raise self._error(
                f"has {file.num_record_batches} record batches; its manifest says {len(self._chunk_rows)} for its "
                f"{self._shard.num_rows} rows"
            )
        # Only the last batch can tell a wrong row count that leaves the number of batches as it is.
        self._load(file, file.num_record_batches - 1)
        return file

    def _load(self, file: pa.RecordBatchFileReader, index: int) -> pa.RecordBatch:
        """A record batch over the mapped bytes, checked."""
        start, expected = self._first_rows[index], self._chunk_rows[index]
        try:
            batch = file.get_batch(index)
            batch.validate()  # lengths that cannot be would end the process where they are used
        except UNREADABLE as error:
            raise self._error(
                f"has an unreadable record batch {index}, rows {start} to {start + expected - 1} of the file ({error})"
            ) from error
        if batch.num_rows != expected:
            raise self._error(
                f"has {start + batch.num_rows} rows up to record batch {index}; its manifest says {start + expected}"
            )
        return batch

    def _place(self, array: pa.Array, column: Column) -> Place:
        """Where one record batch's array lies in the file."""
        if not column.is_variable:
            values = array.storage.flatten() if column.shape else array  # flatten() respects slices, .values does not
            self._refuse_nulls(column, array.storage if column.shape else array, values)
            start, end = self._span(column, values.buffers()[1], values.offset, len(array), column.element_bytes)
            return Place(start, end, 0)
        self._refuse_nulls(column, array)
        # The splits lead to the values; where those begin in the file is that of the whole buffer.
        splits, _ = self._span(column, array.buffers()[1], array.offset, len(array) + 1, _SPLIT_BYTES)
        buffer = array.buffers()[-1]
        if buffer is None or not buffer.size:
            return Place(0, 0, splits)
        if column.kind == "list":
            self._refuse_nulls(column, array.values)
        start, end = self._span(column, buffer, 0, buffer.size, 1)
        return Place(start, end, splits)

    def _span(self, column: Column, buffer: pa.Buffer, offset: int, count: int, width: int) -> tuple[int, int]:
        """First byte in the file, and end, of `count` elements of `width` bytes from `offset` of a buffer on."""
        start = buffer.address - self._bytes.ctypes.data + offset * width
        end = start + count * width
        if start < 0 or end > self._bytes.size:
            raise self._error(f"has column {column.name!r} outside of the file")
        return int(start), int(end)

    def _refuse_nulls(self, column: Column, *arrays: pa.Array) -> None:
        if any(array.null_count for array in arrays):
            raise self._error(f"has missing values in column {column.name!r}")

    def _error(self, what: str) -> ShardError:
        return ShardError(
            f"Shard {self._shard.file} of dataset {self._path.parent} {what}. "
            "The file and the manifest do not belong together: copy or write the dataset again.",
            path=self._path,
        )
