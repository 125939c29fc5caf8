"""Opening Parquet files, and what their footers tell of values without reading their rows."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from ..format.columns import Column, ColumnStatistics

_END_BYTES = 8  # the bytes of the footer, and the mark
_SIGNATURE_BYTES = 28  # of a footer that can be read, in a file whose columns are encrypted


def open_parquet(source: str | Path | BinaryIO) -> pq.ParquetFile:
    """A Parquet file, opened; page checksums are compared when rows are read, and little is read ahead.

    Raises OSError and pyarrow's own errors for what cannot be read. A file with encrypted columns is such a one:
    asking its footer for what belongs to them ends the process (pyarrow 26).
    """
    place = str(source) if isinstance(source, Path) else source
    file = pq.ParquetFile(place, page_checksum_verification=True, pre_buffer=False, buffer_size=1 << 20)
    with open(place, "rb") if isinstance(place, str) else nullcontext(place) as opened:
        opened.seek(-_END_BYTES, os.SEEK_END)
        footer_bytes = int.from_bytes(opened.read(4), "little")
    if footer_bytes == file.metadata.serialized_size + _SIGNATURE_BYTES:
        file.close()
        raise OSError("some of its columns are encrypted, and no keys are given")
    return file


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


def uncompressed_bytes(files: Sequence[pq.FileMetaData], name: str) -> int:
    """Bytes of the pages of a column and of all fields inside of it; values that repeat may be there once."""
    return sum(
        chunk.total_uncompressed_size
        for metadata in files
        for chunk in _all_chunks(metadata)
        if f"{chunk.path_in_schema}.".startswith(f"{name}.")
    )


def null_groups(metadata: pq.FileMetaData) -> dict[str, int]:
    """The scalar columns that have missing values, and the row group of the first, as far as statistics tell."""
    found: dict[str, int] = {}
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            chunk = group.column(place)
            statistics = chunk.statistics
            # Inside of lists an empty list counts as missing too, but the path of what is inside is longer.
            if statistics is not None and statistics.null_count:
                found.setdefault(str(chunk.path_in_schema), number)
    return found


def _chunks(files: Sequence[pq.FileMetaData], name: str) -> Iterator[pq.ColumnChunkMetaData]:
    for metadata in files:
        yield from (chunk for chunk in _all_chunks(metadata) if chunk.path_in_schema == name)


def _all_chunks(metadata: pq.FileMetaData) -> Iterator[pq.ColumnChunkMetaData]:
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.num_rows:
            yield from (group.column(place) for place in range(group.num_columns))


def _range(chunk: pq.ColumnChunkMetaData) -> tuple[Any, Any] | None:
    statistics = chunk.statistics
    if statistics is None or not statistics.has_min_max:
        return None
    low, high = statistics.min, statistics.max
    is_usable = all(isinstance(value, bool | int | float) and not math.isnan(value) for value in (low, high))
    return (low, high) if is_usable else None
