"""Shard files: how columns are laid out in Arrow, what is written and hashed, and whether a file is still the same.

A scalar column is a plain Arrow array, any other of fixed shape a fixed-shape tensor array; lists, text and bytes are
Arrow's large (64-bit) ones. Arrow packs bools into bits, which cannot be gathered as bytes: they are stored as uint8
and the manifest keeps the dtype.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from ..errors import ShardError
from .manifest import Column, Shard
from .ragged import Ragged

_HASH_BLOCK_BYTES = 1 << 24

UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
"""What pyarrow raises for a damaged file: of its own, of the system, of names that are no text and sizes that cannot
be. A caller turns these into a ShardError, which names the file."""

Values = npt.NDArray[Any] | Ragged
"""Rows of one column: an array [rows, *shape], or `Ragged` for a column of variable length."""


def stored_dtype(column: Column) -> np.dtype[Any]:
    """The dtype of the column's values inside the file."""
    return np.dtype(np.uint8) if column.dtype.kind == "b" else column.dtype


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """The Arrow schema of a shard with these columns, none of them nullable."""
    return pa.schema([pa.field(column.name, arrow_type(column), nullable=False) for column in columns])


def arrow_type(column: Column) -> pa.DataType:
    """The Arrow type that a column is stored as."""
    if column.kind == "string":
        return pa.large_string()
    if column.kind == "bytes":
        return pa.large_binary()
    value_type = pa.from_numpy_dtype(stored_dtype(column))
    if column.kind == "list":
        element = pa.list_(value_type, math.prod(column.shape)) if column.shape else value_type
        return pa.large_list(pa.field("item", element, nullable=False))
    return pa.fixed_shape_tensor(value_type, column.shape) if column.shape else value_type


def record_batch(columns: Sequence[Column], values: Sequence[Values]) -> pa.RecordBatch:
    """An Arrow record batch over C-contiguous values of the columns' dtypes, without copying them."""
    parts = [_arrow_array(column, part) for column, part in zip(columns, values, strict=True)]
    return pa.RecordBatch.from_arrays(parts, schema=arrow_schema(columns))


def _arrow_array(column: Column, part: Values) -> pa.Array:
    if isinstance(part, Ragged):
        return _arrow_ragged(column, part)
    values = _flat(part, column)
    if not column.shape:
        return values
    rows = pa.FixedSizeListArray.from_arrays(values, math.prod(column.shape))
    return pa.ExtensionArray.from_storage(arrow_type(column), rows)


def _arrow_ragged(column: Column, rows: Ragged) -> pa.Array:
    splits = pa.py_buffer(rows.row_splits)
    if column.kind != "list":
        return pa.Array.from_buffers(arrow_type(column), len(rows), [None, splits, pa.py_buffer(rows.values)])
    values = _flat(rows.values, column)
    if column.shape:
        values = pa.FixedSizeListArray.from_arrays(values, math.prod(column.shape))
    return pa.Array.from_buffers(arrow_type(column), len(rows), [None, splits], children=[values])


def _flat(array: npt.NDArray[Any], column: Column) -> pa.Array:
    dtype = stored_dtype(column)
    return pa.Array.from_buffers(pa.from_numpy_dtype(dtype), array.size, [None, pa.py_buffer(array.view(dtype))])


class HashedFile:
    """A new file that knows the size and hash of what was written to it, so that it need not be read again."""

    def __init__(self, path: Path) -> None:
        self._file, self._digest = open(path, "wb"), xxhash.xxh3_128()  # noqa: SIM115 (closed by close)
        self.num_bytes = 0

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file.closed

    @property
    def xxh3_128(self) -> str:
        """The hash (hex) of the bytes so far."""
        return self._digest.hexdigest()

    def write(self, data: Any) -> int:
        """Append bytes; raises OSError."""
        block = memoryview(data)
        self._file.write(block)
        self._digest.update(block)
        self.num_bytes += block.nbytes
        return block.nbytes

    def tell(self) -> int:
        """The bytes written so far."""
        return self.num_bytes

    def flush(self) -> None:
        """Hand what is buffered to the operating system."""
        self._file.flush()

    def sync(self) -> None:
        """Wait until the bytes are on the disk; raises OSError."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def hash_file(path: Path) -> str:
    """xxh3_128 (hex) of the file's bytes; raises OSError."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


class FileStamp(NamedTuple):
    """What tells on one host, without reading it, that a file was replaced or written to."""

    num_bytes: int
    changed_ns: int
    number: int


def stamp_of(path: Path) -> FileStamp | None:
    """The stamp of a file, None if it cannot be found."""
    try:
        found = path.stat()
    except OSError:
        return None
    return FileStamp(found.st_size, found.st_mtime_ns, found.st_ino)


def check_stamp(folder: Path, shard: Shard, stamp: FileStamp | None) -> None:
    """Raise ShardError if the shard's file is no longer the one that had the stamp; None is not checked."""
    path = folder / shard.file
    if stamp is None or stamp_of(path) == stamp:
        return
    check_shard_size(folder, shard)
    raise ShardError(
        f"Shard {shard.file} of dataset {folder} ({shard.num_rows} rows) changed after the dataset was opened. It was "
        "written to or replaced by another program: open the dataset again, and do not write to it while it is read.",
        path=path,
    )


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


def check_names(schema: pa.Schema) -> None:
    """Raise UnicodeDecodeError, one of `UNREADABLE`, if the name of a column is no text: nobody else looks so soon."""
    list(schema.names)


def schema_text(schema: pa.Schema) -> str:
    """An Arrow schema as one line for messages."""
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
