"""What the footers of Arrow and Parquet files tell without reading their rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import xxhash

from ..format.columns import Column, ColumnStatistics

EDGE_PREFIX = "edge-"
_EDGE_BYTES = 1 << 16


def edge_hash(path: Path) -> str:
    """`edge-` and xxh3_128 (hex) over a file's size, its first 64 KiB and its last 64 KiB (with most of a footer)."""
    with open(path, "rb") as file:
        return edge_hash_of(file, path.stat().st_size)


def edge_hash_of(file: Any, num_bytes: int) -> str:
    """The same of an open file of that size."""
    head = file.read(_EDGE_BYTES)
    file.seek(max(0, num_bytes - _EDGE_BYTES))
    digest = xxhash.xxh3_128(num_bytes.to_bytes(8, "little") + bytes(head) + bytes(file.read()))
    return EDGE_PREFIX + digest.hexdigest()


def parquet_statistics(files: Sequence[pq.FileMetaData], columns: Sequence[Column]) -> dict[str, ColumnStatistics]:
    """Smallest and largest value of the scalar columns for which every row group of every file tells them."""
    found = {}
    for column in columns:
        if column.kind == "tensor" and not column.shape:
            ranges = [_range(chunk) for chunk in _chunks(files, column.name)]
            known = [item for item in ranges if item is not None]
            if known and len(known) == len(ranges):
                number = float if column.dtype.kind == "f" else int
                low, high = min(low for low, _ in known), max(high for _, high in known)
                found[column.name] = ColumnStatistics(min=number(low), max=number(high))
    return found


def first_null(metadata: pq.FileMetaData, names: Sequence[str]) -> tuple[str, int] | None:
    """A scalar column with missing values and the row group of the first, as far as statistics tell."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            chunk = group.column(place)
            statistics = chunk.statistics
            # Inside of lists an empty list counts as missing too.
            if chunk.path_in_schema in names and statistics is not None and statistics.null_count:
                return str(chunk.path_in_schema), number
    return None


def _chunks(files: Sequence[pq.FileMetaData], name: str) -> Iterator[Any]:
    for metadata in files:
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            for place in range(group.num_columns):
                if group.column(place).path_in_schema == name and group.num_rows:
                    yield group.column(place)


def _range(chunk: Any) -> tuple[Any, Any] | None:
    statistics = chunk.statistics
    if statistics is None or not statistics.has_min_max:
        return None
    low, high = statistics.min, statistics.max
    is_usable = all(isinstance(value, bool | int | float) and not math.isnan(value) for value in (low, high))
    return (low, high) if is_usable else None
