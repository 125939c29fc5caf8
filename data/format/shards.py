"""Shard files: whether one is there, whole, and still the same.

Three ways to know a file, by what they cost. Its **stamp** (size, time, number; no byte read) tells on one host that
somebody wrote to it after it was opened: a mapped file that changes underneath would give rows of two datasets. Its
**edge hash** (128 KiB read) stands in for a hash where nobody made one, in folders that other programs wrote: they may
hold terabytes, and a file of the same size and footer is, in practice, the same. Its **hash** (all of it read) is what
the manifest has and `verify` compares. xxh3 rather than SHA-256, because it keeps up with the disk; it protects against
faults, not against somebody who wants to deceive.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import xxhash

from ..errors import ShardError
from .manifest import Shard

EDGE_PREFIX = "edge-"
"""What an edge hash begins with."""
_EDGE_BYTES = 1 << 16

UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
"""What pyarrow raises for a damaged file: of its own, of the system, of names that are no text and sizes that cannot
be. A caller turns these into a ShardError, which names the file."""


def hash_file(path: Path) -> str:
    """xxh3_128 (hex) of the file's bytes; raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def edge_hash(path: Path) -> str:
    """`edge-` and xxh3_128 (hex) over a file's size, its first 64 KiB and its last 64 KiB (with most of a footer)."""
    with open(path, "rb") as file:
        return edge_hash_of(file, path.stat().st_size)


def edge_hash_of(file: BinaryIO, num_bytes: int) -> str:
    """The same of an open file of that size."""
    head = file.read(_EDGE_BYTES)
    file.seek(max(0, num_bytes - _EDGE_BYTES))
    digest = xxhash.xxh3_128(num_bytes.to_bytes(8, "little") + bytes(head) + bytes(file.read()))
    return EDGE_PREFIX + digest.hexdigest()


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
        raise unfound_shard(folder, shard, error) from error
    if num_bytes != shard.num_bytes:
        raise ShardError(
            f"Shard {shard.file} of dataset {folder} has {num_bytes} bytes; its manifest says {shard.num_bytes}. "
            "It was cut short while being copied, or written to afterwards: copy or write the dataset again.",
            path=path,
        )


def unfound_shard(folder: Path, shard: Shard, error: OSError) -> ShardError:
    """The error for a shard whose file cannot be opened."""
    return ShardError(
        f"Shard {shard.file} of dataset {folder} cannot be found ({error.strerror or error}). "
        "It was deleted or not copied along with the manifest: copy the whole folder again.",
        path=folder / shard.file,
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
