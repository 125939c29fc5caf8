"""The manifest of a dataset: columns, shards, statistics, fingerprint; and its JSON form."""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash

from ..errors import DatasetNotFoundError, ManifestError
from .announced import check_chunks, check_depth, check_row, natural, plain_file_name
from .columns import DTYPE_NAMES, Column, ColumnKind, ColumnStatistics, LengthStatistics

__all__ = [
    "DTYPE_NAMES",
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "Column",
    "ColumnKind",
    "ColumnStatistics",
    "LengthStatistics",
    "Manifest",
    "Shard",
    "ShardFormat",
    "manifest_from_bytes",
    "read_manifest",
    "write_manifest",
]

MANIFEST_NAME = "manifest.json"
FORMAT_NAME = "heliostat-dataset"
FORMAT_VERSION = 2

ShardFormat = Literal["arrow", "parquet", "plain"]
"""What the files are: "arrow", Arrow IPC as this format lays it out (read through a memory map), "parquet", or "plain":
Arrow or Parquet files of other programs, whose columns are converted while they are read."""

_SHARD_FORMATS: tuple[ShardFormat, ...] = ("arrow", "parquet", "plain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of the dataset: its name in the dataset's folder, rows, bytes and xxh3_128 (hex) of its bytes.

    `chunk_rows` are the rows of its record batches or row groups; None: `rows_per_batch` each, the last one the rest.
    The hash of a file that was opened without a manifest is that of its size and its ends (`edge-` and hex).
    """

    file: str
    num_rows: int
    num_bytes: int
    xxh3_128: str
    chunk_rows: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that is known about a dataset without opening a shard.

    `metadata` is what the writer of the dataset wanted to keep with it: values that JSON can hold.
    """

    columns: tuple[Column, ...]
    shards: tuple[Shard, ...]
    rows_per_batch: int
    statistics: Mapping[str, ColumnStatistics]
    shard_format: ShardFormat = "arrow"
    metadata: Mapping[str, Any] = field(default_factory=dict)

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
        "shards": [shard_to_json(shard) for shard in manifest.shards],
    }
    unfinished = folder / f".{MANIFEST_NAME}.writing"
    with open(unfinished, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, folder / MANIFEST_NAME)


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest in `folder`.

    Raises DatasetNotFoundError if there is none and ManifestError if it is not JSON, from a newer format, incomplete,
    or inconsistent with its own fingerprint.
    """
    path = folder / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetNotFoundError(_not_found_message(folder), path=folder) from None
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
        manifest = _manifest_from_json(content)
        stated = (int(content["num_rows"]), str(content["fingerprint"]))
    except KeyError as error:
        raise ManifestError(
            f"{path} lacks the key {error}. It was edited by hand or by another program: write the dataset again.",
            path=path,
        ) from error
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ManifestError(
            f"{path} holds a value that makes no sense: {error} Write the dataset again.", path=path
        ) from error
    if stated != (manifest.num_rows, manifest.fingerprint):
        raise ManifestError(
            f"{path} states {stated[0]} rows and fingerprint {stated[1]}, but what it lists amounts to "
            f"{manifest.num_rows} rows and {manifest.fingerprint}. It was edited after it was written: "
            "write the dataset again.",
            path=path,
        )
    return manifest


def _not_found_message(folder: Path) -> str:
    if not folder.exists() and (replaced := sorted(folder.parent.glob(f".{glob.escape(folder.name)}.replaced-*"))):
        return (
            f"There is no dataset at {folder}: replacing it was interrupted. The one before is in {replaced[-1]}: "
            "rename it back, or write the new one again."
        )
    if not folder.exists():
        return f"There is no dataset at {folder}: no such folder. Make one with write_dataset or heliostat convert."
    if not folder.is_dir():
        return f"There is no dataset at {folder}: it is a file, a dataset is a folder with a {MANIFEST_NAME}."
    return (
        f"There is no dataset at {folder}: the folder has no {MANIFEST_NAME}. Give the folder that write_dataset made."
    )


def _check_version(content: Any, path: str | os.PathLike[str]) -> None:
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


def _manifest_from_json(content: Mapping[str, Any]) -> Manifest:
    columns = tuple(column_from_json(item) for item in content["columns"])
    shards = tuple(shard_from_json(item) for item in content["shards"])
    if not columns or not shards or len({column.name for column in columns}) < len(columns):
        raise ValueError("there must be columns with different names, and shards.")
    known = content["statistics"]
    statistics = {column.name: statistics_from_json(column, known[column.name]) for column in columns}
    rows_per_batch = natural(content["rows_per_batch"])
    check_chunks((shard.file, shard.num_rows, shard.num_bytes, _num_chunks(shard, rows_per_batch)) for shard in shards)
    metadata = content.get("metadata", {})
    check_depth(metadata)
    shard_format = content.get("shard_format", "arrow")
    if shard_format not in _SHARD_FORMATS:
        raise ValueError(f"{shard_format!r} is none of the shard formats {', '.join(_SHARD_FORMATS)}.")
    return Manifest(
        columns=columns,
        shards=shards,
        rows_per_batch=rows_per_batch,
        statistics=statistics,
        shard_format=shard_format,
        metadata=dict(metadata),
    )


def _num_chunks(shard: Shard, rows_per_batch: int) -> int:
    return -(-shard.num_rows // rows_per_batch) if shard.chunk_rows is None else len(shard.chunk_rows)


def column_to_json(column: Column) -> dict[str, Any]:
    """A column as the manifest has it; raises nothing."""
    # Format version 1 knew no kinds: without the default one, fingerprints of both versions are alike.
    kind = {"kind": column.kind} if column.is_variable else {}
    return {"name": column.name, **kind, "dtype": column.dtype.name, "shape": list(column.shape)}


def column_from_json(item: Mapping[str, Any]) -> Column:
    """The column that `column_to_json` described; raises KeyError, TypeError, ValueError."""
    shape, dtype = tuple(natural(size) for size in item["shape"]), str(item["dtype"])
    check_row(dtype, shape)
    return Column(name=item["name"], dtype=np.dtype(dtype), shape=shape, kind=item.get("kind", "tensor"))


def shard_to_json(shard: Shard) -> dict[str, Any]:
    """A shard as the manifest has it."""
    content: dict[str, Any] = {
        "file": shard.file,
        "num_rows": shard.num_rows,
        "num_bytes": shard.num_bytes,
        "xxh3_128": shard.xxh3_128,
    }
    return content if shard.chunk_rows is None else {**content, "chunk_rows": list(shard.chunk_rows)}


def shard_from_json(item: Mapping[str, Any]) -> Shard:
    """The shard that `shard_to_json` described; raises KeyError, TypeError, ValueError."""
    shard = Shard(
        file=plain_file_name(item["file"]),
        num_rows=natural(item["num_rows"]),
        num_bytes=natural(item["num_bytes"]),
        xxh3_128=str(item["xxh3_128"]),
        chunk_rows=tuple(natural(rows, least=0) for rows in item["chunk_rows"]) if "chunk_rows" in item else None,
    )
    if shard.chunk_rows is not None and sum(shard.chunk_rows) != shard.num_rows:
        raise ValueError(f"{shard.file} has {shard.num_rows} rows, but its chunks have {sum(shard.chunk_rows)}.")
    return shard


def statistics_to_json(value: ColumnStatistics) -> dict[str, Any]:
    """The statistics of a column as the manifest has them."""
    content: dict[str, Any] = {"min": _number_to_json(value.min), "max": _number_to_json(value.max)}
    if value.lengths is not None:
        lengths = value.lengths
        content["lengths"] = {"min": lengths.min, "max": lengths.max, "total": lengths.total}
    return content


def statistics_from_json(column: Column, item: Mapping[str, Any]) -> ColumnStatistics:
    """The statistics that `statistics_to_json` described; raises KeyError, TypeError, ValueError."""
    lengths = item.get("lengths")
    return ColumnStatistics(
        min=_number_from_json(column, item["min"]),
        max=_number_from_json(column, item["max"]),
        lengths=None
        if lengths is None
        else LengthStatistics(min=int(lengths["min"]), max=int(lengths["max"]), total=int(lengths["total"])),
    )


def _number_to_json(value: int | float) -> int | float | str:
    # JSON has no NaN and no infinities.
    return value if math.isfinite(value) else str(value)


def _number_from_json(column: Column, value: Any) -> int | float:
    return float(value) if column.dtype.kind == "f" or value == "nan" else int(value)
