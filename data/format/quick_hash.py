"""A hash of a file's size and ends, for files that nobody hashed when they were written."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import xxhash

EDGE_PREFIX = "edge-"
_EDGE_BYTES = 1 << 16


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
