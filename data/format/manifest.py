"""The manifest of a dataset: columns, shards, statistics, fingerprint; and its JSON form.

All that is needed to open a dataset of any size is in one small file, so that no shard is opened before its rows are
asked for, and a reader can tell that what it opens then is what was written. The fingerprint is made of columns and of
the rows and hashes of shards, of nothing else: equal rows in equal files have it wherever they lie, and a note in the
metadata does not change it. Its JSON is fixed byte for byte, because runs and caches keep it.

A manifest may come from anywhere, so reading one is written for files that lie: msgspec checks the types (a hundred
thousand shards in 0.12 s; checks by hand took 3.5 s, pydantic 1.8 s), and what follows the bounds, before anything of
an announced size is made. Arrow's own schema in a shard was not taken as the truth: it would have to be fetched first.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import xxhash

from ..errors import DatasetNotFoundError, ManifestError
from .account import Entry
from .columns import (
    Column,
    ColumnContent,
    ColumnStatistics,
    Count,
    Natural,
    StatisticsContent,
    column_to_json,
    statistics_to_json,
    without_none,
)
from .files import replace_file
from .not_found import not_found_message

MANIFEST_NAME = "manifest.json"
FORMAT_NAME = "heliostat-dataset"
FORMAT_VERSION = 2
_MAX_DEPTH = 100  # of metadata
_MAX_CHUNKS = 2**26  # of a dataset: their rows are lists in memory
_MIN_CHUNK_BYTES = 24  # what a footer says of each record batch or row group at least

ShardFormat = Literal["arrow", "parquet", "plain"]
"""What the files are: "arrow", Arrow IPC as this format lays it out (read through a memory map), "parquet", or "plain":
Arrow or Parquet files of other programs, whose columns are converted while they are read."""

_MISSING = re.compile(r"missing required field `(\w+)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of the dataset: its name in the dataset's folder, rows, bytes and xxh3_128 (hex) of its bytes.

    `chunk_rows` are the rows of its record batches or row groups; None: `rows_per_batch` each, the last one the rest.
    The hash of a file that was opened without a manifest is that of its size and its ends (`edge-` and hex).
    """

    file: str
    num_rows: Natural
    num_bytes: Natural
    xxh3_128: str
    chunk_rows: tuple[Count, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that is known about a dataset without opening a shard.

    `metadata` is what the writer of the dataset wanted to keep with it: values that JSON can hold; `account` what was
    left out or changed when it was written. Neither is part of the fingerprint.
    """

    columns: tuple[Column, ...]
    shards: tuple[Shard, ...]
    rows_per_batch: int
    statistics: Mapping[str, ColumnStatistics]
    shard_format: ShardFormat = "arrow"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    account: tuple[Entry, ...] = ()

    @property
    def num_rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.num_rows for shard in self.shards)

    @property
    def row_bytes(self) -> int:
        """Bytes that every row has over all columns of fixed shape."""
        return sum(column.row_bytes for column in self.columns)

    @property
    def fingerprint(self) -> str:
        """xxh3_128 (hex) over the columns and the rows and hashes of the shards, in order."""
        content = {
            "columns": [column_to_json(column) for column in self.columns],
            "shards": [[shard.num_rows, shard.xxh3_128] for shard in self.shards],
        }
        return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())

    def chunk_rows(self, shard: Shard) -> tuple[int, ...]:
        """The rows of every record batch or row group of a shard."""
        if shard.chunk_rows is not None:
            return shard.chunk_rows
        full, rest = divmod(shard.num_rows, self.rows_per_batch)
        return (self.rows_per_batch,) * full + ((rest,) if rest else ())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest` into `folder` and flush it to the disk; raises OSError."""
    content = {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "shard_format": manifest.shard_format,
        "num_rows": manifest.num_rows,
        "rows_per_batch": manifest.rows_per_batch,
        "fingerprint": manifest.fingerprint,
        "columns": [column_to_json(column) for column in manifest.columns],
        "statistics": {name: statistics_to_json(value) for name, value in manifest.statistics.items()},
        "metadata": dict(manifest.metadata),
        "account": [without_none(entry) for entry in manifest.account],
        "shards": [without_none(shard) for shard in manifest.shards],
    }
    # Not msgspec's own JSON: class names may come from files whose names are no UTF-8.
    replace_file(folder / MANIFEST_NAME, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest in `folder`.

    Raises DatasetNotFoundError if there is none and ManifestError if it is not JSON, from a newer format, incomplete,
    or inconsistent with its own fingerprint.
    """
    path = folder / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetNotFoundError(not_found_message(folder, MANIFEST_NAME), path=folder) from None
    return manifest_from_bytes(data, path)


def manifest_from_bytes(data: bytes, path: str | os.PathLike[str]) -> Manifest:
    """Check the bytes of a manifest, which were read from `path`; raises ManifestError as `read_manifest` does."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestError(
            f"{path} is not valid JSON ({error}). It was cut short or edited by hand: write the dataset again.",
            path=path,
        ) from error
    _check_version(content, path)
    try:
        told = msgspec.convert(content, ManifestContent)
        manifest = _manifest_of(told)
    except msgspec.ValidationError as error:
        missing = _MISSING.search(str(error))
        if missing is None:
            raise _senseless(path, error) from error
        raise ManifestError(
            f"{path} lacks the key {missing[1]!r}. It was edited by hand or by another program: write the dataset "
            "again.",
            path=path,
        ) from error
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _senseless(path, error) from error
    stated = told.num_rows, told.fingerprint
    if stated != (manifest.num_rows, manifest.fingerprint):
        raise ManifestError(
            f"{path} states {stated[0]} rows and fingerprint {stated[1]}, but what it lists amounts to "
            f"{manifest.num_rows} rows and {manifest.fingerprint}. It was edited after it was written: "
            "write the dataset again.",
            path=path,
        )
    return manifest


def _check_version(content: object, path: str | os.PathLike[str]) -> None:
    if not isinstance(content, dict) or content.get("format") != FORMAT_NAME:
        raise ManifestError(
            f'{path} is not a Heliostat manifest: it does not say "format": "{FORMAT_NAME}".', path=path
        )
    version = content.get("format_version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ManifestError(
            f"{path} has format version {version!r}, which makes no sense; write the dataset again.", path=path
        )
    if version > FORMAT_VERSION:
        raise ManifestError(
            f"{path} has format version {version}; this Heliostat reads up to {FORMAT_VERSION}. "
            "It was written by a newer Heliostat: upgrade this one, or write the dataset again with it.",
            path=path,
        )


def _senseless(path: str | os.PathLike[str], error: Exception) -> ManifestError:
    return ManifestError(
        f"{path} holds a value that makes no sense: {str(error).rstrip('.')}. Write the dataset again.", path=path
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestContent:
    """What a manifest must hold, and may."""

    num_rows: Natural
    rows_per_batch: Natural
    fingerprint: str
    columns: tuple[ColumnContent, ...]
    statistics: dict[str, StatisticsContent]
    shards: tuple[Shard, ...]
    shard_format: ShardFormat = "arrow"
    metadata: dict[str, Any] = field(default_factory=dict)
    account: tuple[Entry, ...] = ()


def _manifest_of(told: ManifestContent) -> Manifest:
    """What the file told, checked beyond its types; raises ValueError, whose text becomes part of the message."""
    columns = tuple(item.column() for item in told.columns)
    if not columns or not told.shards or len({column.name for column in columns}) < len(columns):
        raise ValueError("there must be columns with different names, and shards.")
    for shard in told.shards:
        check_shard(shard)
    _check_chunks(told.shards, told.rows_per_batch)
    _check_depth(told.metadata)
    missing = next((column.name for column in columns if column.name not in told.statistics), None)
    if missing is not None:
        raise ValueError(f"it has no statistics of column {missing!r}.")
    return Manifest(
        columns=columns,
        shards=told.shards,
        rows_per_batch=told.rows_per_batch,
        statistics={column.name: told.statistics[column.name].statistics(column) for column in columns},
        shard_format=told.shard_format,
        metadata=told.metadata,
        account=told.account,
    )


def check_shard(shard: Shard) -> None:
    """Raise ValueError for a shard that cannot be, beyond what its types say."""
    # The bare name of a file: nobody's manifest makes us open others.
    if shard.file in ("", ".", "..") or "\0" in shard.file or "/" in shard.file:
        raise ValueError(f"{shard.file!r} is not the bare name of a file.")
    if shard.chunk_rows is not None and sum(shard.chunk_rows) != shard.num_rows:
        raise ValueError(f"{shard.file} has {shard.num_rows} rows, but its chunks have {sum(shard.chunk_rows)}.")


def _check_chunks(shards: Sequence[Shard], rows_per_batch: int) -> None:
    """Refuse more record batches than the files can hold, before lists of that length are made."""
    total = 0
    for shard in shards:
        here = -(-shard.num_rows // rows_per_batch) if shard.chunk_rows is None else len(shard.chunk_rows)
        total += here
        if here * _MIN_CHUNK_BYTES > shard.num_bytes or total > _MAX_CHUNKS:
            raise ValueError(
                f"{shard.file} is said to have {shard.num_rows} rows in {here} record batches and {shard.num_bytes} "
                f"bytes (a dataset has at most {_MAX_CHUNKS} batches)."
            )


def _check_depth(value: object, left: int = _MAX_DEPTH) -> None:
    """Lists and mappings inside of each other: not everybody could read or write deep ones again."""
    if left == 0:
        raise ValueError(f"its metadata is nested more than {_MAX_DEPTH} deep.")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(inner, left - 1)
