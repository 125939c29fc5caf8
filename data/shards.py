"""Shard files: uncompressed Arrow IPC, how columns are laid out in them, and reading them through a memory map.

A scalar column is a plain Arrow array, any other a fixed-shape tensor array. Arrow packs bools into bits, which cannot
be gathered as bytes: they are stored as uint8 and the manifest keeps the dtype.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash
from heliostat.data.errors import ShardError
from heliostat.data.manifest import Column, Shard

_HASH_BLOCK_BYTES = 1 << 24


def stored_dtype(column: Column) -> np.dtype[Any]:
    """The dtype of the column's values inside the file."""
    return np.dtype(np.uint8) if column.dtype.kind == "b" else column.dtype


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """The Arrow schema of a shard with these columns, none of them nullable."""
    return pa.schema([pa.field(column.name, _arrow_type(column), nullable=False) for column in columns])


def _arrow_type(column: Column) -> pa.DataType:
    value_type = pa.from_numpy_dtype(stored_dtype(column))
    return pa.fixed_shape_tensor(value_type, column.shape) if column.shape else value_type


def record_batch(columns: Sequence[Column], arrays: Sequence[npt.NDArray[Any]]) -> pa.RecordBatch:
    """An Arrow record batch over C-contiguous arrays [rows, *shape] of the columns' dtypes, without copying them."""
    parts = [_arrow_array(column, array) for column, array in zip(columns, arrays, strict=True)]
    return pa.RecordBatch.from_arrays(parts, schema=arrow_schema(columns))


def _arrow_array(column: Column, array: npt.NDArray[Any]) -> pa.Array:
    value_type = pa.from_numpy_dtype(stored_dtype(column))
    values = pa.Array.from_buffers(value_type, array.size, [None, pa.py_buffer(array)])
    if not column.shape:
        return values
    rows = pa.FixedSizeListArray.from_arrays(values, math.prod(column.shape))
    return pa.ExtensionArray.from_storage(_arrow_type(column), rows)


def hash_file(path: Path) -> str:
    """xxh3_128 (hex) of the file's bytes; raises OSError."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def check_shard_size(folder: Path, shard: Shard) -> None:
    """Raise ShardError if the shard's file is missing or has another size than the manifest says; reads no data."""
    path = folder / shard.file
    try:
        num_bytes = path.stat().st_size
    except OSError as error:
        raise ShardError(
            f"Shard {shard.file} of dataset {folder} cannot be found ({error.strerror}). "
            "It was deleted or not copied along with the manifest: copy the whole folder again.",
            path=path,
        ) from error
    if num_bytes != shard.num_bytes:
        raise ShardError(
            f"Shard {shard.file} of dataset {folder} has {num_bytes} bytes; its manifest says {shard.num_bytes}. "
            "It was cut short while being copied, or written to afterwards: copy or write the dataset again.",
            path=path,
        )


def check_shard_hash(folder: Path, shard: Shard) -> None:
    """Raise ShardError if the bytes of the shard's file differ from those that were written; reads the whole file."""
    check_shard_size(folder, shard)
    found = hash_file(folder / shard.file)
    if found != shard.xxh3_128:
        raise ShardError(
            f"Shard {shard.file} of dataset {folder} has xxh3_128 {found}; its manifest says {shard.xxh3_128}. "
            "Its bytes changed after it was written (disk, memory or copying fault): copy or write the dataset again.",
            path=folder / shard.file,
        )


class MappedShard:
    """One shard in memory through a read-only map; pages are read when rows are.

    Raises ShardError if the file is not the one that the manifest describes. Holds no file descriptor open.
    """

    def __init__(self, folder: Path, shard: Shard, columns: Sequence[Column], rows_per_batch: int) -> None:
        check_shard_size(folder, shard)
        self._path, self._shard, self._rows_per_batch = folder / shard.file, shard, rows_per_batch
        self._columns = tuple(columns)
        # Arrow's map outlives its file; Python's mmap keeps a descriptor, and there may be thousands of shards.
        with pa.memory_map(str(self._path), "r") as file:
            buffer = file.read_buffer()
        self._bytes = np.frombuffer(buffer, np.uint8)
        self._file = self._open(buffer)

    def rows_at_every_byte(self, column: Column) -> npt.NDArray[np.void]:
        """The file as an array with an element at every byte offset, each as long as a row of the column.

        So any rows of a column, in whatever record batches, are one indexing with their offsets.
        """
        num_elements = self._bytes.size - column.row_bytes + 1
        return np.ndarray((num_elements,), f"V{column.row_bytes}", buffer=self._bytes, strides=(1,))

    def column_starts(self) -> dict[str, list[int]]:
        """For every column the byte offset of its first row in every record batch."""
        batches = [self._load(self._file, index) for index in range(self._file.num_record_batches)]
        return {
            column.name: [self._start(batch.column(number), column) for batch in batches]
            for number, column in enumerate(self._columns)
        }

    def _open(self, buffer: pa.Buffer) -> pa.RecordBatchFileReader:
        try:
            file = pa.ipc.open_file(pa.BufferReader(buffer))
        except pa.ArrowException as error:
            raise self._error(f"is not a readable Arrow file ({error})") from error
        expected = arrow_schema(self._columns)
        if not file.schema.equals(expected, check_metadata=False):
            raise self._error(
                f"has the columns {_schema_text(file.schema)}; its manifest says {_schema_text(expected)}"
            )
        full, rest = divmod(self._shard.num_rows, self._rows_per_batch)
        if file.num_record_batches != full + (rest > 0):
            raise self._error(
                f"has {file.num_record_batches} record batches; {self._shard.num_rows} rows in batches of "
                f"{self._rows_per_batch} make {full + (rest > 0)}"
            )
        # Only the last batch can tell a wrong row count that leaves the number of batches as it is.
        self._load(file, file.num_record_batches - 1)
        return file

    def _load(self, file: pa.RecordBatchFileReader, index: int) -> pa.RecordBatch:
        start = index * self._rows_per_batch
        expected = min(self._rows_per_batch, self._shard.num_rows - start)
        try:
            batch = file.get_batch(index)
        except (pa.ArrowException, OSError) as error:
            raise self._error(f"has an unreadable record batch {index} ({error})") from error
        if batch.num_rows != expected:
            raise self._error(
                f"has {start + batch.num_rows} rows up to record batch {index}; its manifest says {start + expected}"
            )
        return batch

    def _start(self, array: pa.Array, column: Column) -> int:
        """Byte offset in the file of the first row of one record batch's array."""
        storage = array.storage if column.shape else array
        values = storage.flatten() if column.shape else storage  # flatten() respects slices, .values does not
        if storage.null_count or values.null_count:
            raise self._error(f"has missing values in column {column.name!r}")
        buffer = values.buffers()[1]
        start = buffer.address - self._bytes.ctypes.data + values.offset * stored_dtype(column).itemsize
        if start < 0 or start + len(array) * column.row_bytes > self._bytes.size:
            raise self._error(f"has column {column.name!r} outside of the file")
        return int(start)

    def _error(self, what: str) -> ShardError:
        return ShardError(
            f"Shard {self._shard.file} of dataset {self._path.parent} {what}. "
            "The file and the manifest do not belong together: copy or write the dataset again.",
            path=self._path,
        )


def _schema_text(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
