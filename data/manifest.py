"""The manifest of a dataset: columns, shards, statistics, fingerprint; and its JSON form."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from heliostat.data.errors import BadColumnError, DatasetNotFoundError, ManifestError

MANIFEST_NAME = "manifest.json"
FORMAT_NAME = "heliostat-dataset"
FORMAT_VERSION = 1
DTYPE_NAMES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its name, the numpy dtype of its values and the shape of one row (() for a scalar).

    Raises BadColumnError for a dtype that is not numeric or bool, and for a shape without values.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise BadColumnError(f"A column is named {self.name!r}; a name is a non-empty string.")
        if self.dtype.name not in DTYPE_NAMES or not self.dtype.isnative:
            raise BadColumnError(
                f"Column {self.name!r} has dtype {self.dtype}; a dataset holds {', '.join(DTYPE_NAMES)}. "
                "Turn text into integer ids and dates into numbers before writing.",
                column=self.name,
            )
        if any(size < 1 for size in self.shape):
            raise BadColumnError(
                f"Column {self.name!r} has rows of shape {self.shape}, which hold no value.", column=self.name
            )

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of this column."""
        return self.dtype.itemsize * math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStatistics:
    """The smallest and largest value of a column: int for integer and bool columns, float otherwise.

    NaN values are left out; both are NaN if there is nothing else.
    """

    min: int | float
    max: int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of the dataset: its name in the dataset's folder, rows, bytes and xxh3_128 (hex) of its bytes."""

    file: str
    num_rows: int
    num_bytes: int
    xxh3_128: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that is known about a dataset without opening a shard."""

    columns: tuple[Column, ...]
    shards: tuple[Shard, ...]
    rows_per_batch: int
    statistics: Mapping[str, ColumnStatistics]

    @property
    def num_rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.num_rows for shard in self.shards)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row over all columns."""
        return sum(column.row_bytes for column in self.columns)

    @property
    def fingerprint(self) -> str:
        """xxh3_128 (hex) over the columns and the rows and hashes of the shards, in order."""
        content = {
            "columns": [_column_to_json(column) for column in self.columns],
            "shards": [[shard.num_rows, shard.xxh3_128] for shard in self.shards],
        }
        return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest` into `folder` and flush it to the disk; raises OSError."""
    content = {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "num_rows": manifest.num_rows,
        "rows_per_batch": manifest.rows_per_batch,
        "fingerprint": manifest.fingerprint,
        "columns": [_column_to_json(column) for column in manifest.columns],
        "statistics": {
            name: {"min": _number_to_json(value.min), "max": _number_to_json(value.max)}
            for name, value in manifest.statistics.items()
        },
        "shards": [
            {"file": s.file, "num_rows": s.num_rows, "num_bytes": s.num_bytes, "xxh3_128": s.xxh3_128}
            for s in manifest.shards
        ],
    }
    with open(folder / MANIFEST_NAME, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest in `folder`.

    Raises DatasetNotFoundError if there is none and ManifestError if it is not JSON, from a newer format, incomplete,
    or inconsistent with its own fingerprint.
    """
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetNotFoundError(_not_found_message(folder), path=folder) from None
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
    except (TypeError, ValueError, AttributeError) as error:
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
    if not folder.exists():
        return f"There is no dataset at {folder}: no such folder. Make one with write_dataset or heliostat convert."
    if not folder.is_dir():
        return f"There is no dataset at {folder}: it is a file, a dataset is a folder with a {MANIFEST_NAME}."
    return (
        f"There is no dataset at {folder}: the folder has no {MANIFEST_NAME}. Give the folder that write_dataset made."
    )


def _check_version(content: Any, path: Path) -> None:
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
    columns = tuple(
        Column(
            name=item["name"], dtype=np.dtype(str(item["dtype"])), shape=tuple(_natural(size) for size in item["shape"])
        )
        for item in content["columns"]
    )
    shards = tuple(
        Shard(
            file=_plain_file_name(item["file"]),
            num_rows=_natural(item["num_rows"]),
            num_bytes=_natural(item["num_bytes"]),
            xxh3_128=str(item["xxh3_128"]),
        )
        for item in content["shards"]
    )
    if not columns or not shards or len({column.name for column in columns}) < len(columns):
        raise ValueError("there must be columns with different names, and shards.")
    statistics = {
        column.name: ColumnStatistics(
            **{key: _number_from_json(column, content["statistics"][column.name][key]) for key in ("min", "max")}
        )
        for column in columns
    }
    return Manifest(
        columns=columns, shards=shards, rows_per_batch=_natural(content["rows_per_batch"]), statistics=statistics
    )


def _column_to_json(column: Column) -> dict[str, Any]:
    return {"name": column.name, "dtype": column.dtype.name, "shape": list(column.shape)}


def _plain_file_name(name: Any) -> str:
    # A manifest from elsewhere must not make us open files outside its folder.
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"{name!r} is not a plain file name.")
    return name


def _natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is not an integer of at least 1.")
    return value


def _number_to_json(value: int | float) -> int | float | str:
    # JSON has no NaN and no infinities.
    return value if math.isfinite(value) else str(value)


def _number_from_json(column: Column, value: Any) -> int | float:
    return float(value) if column.dtype.kind == "f" else int(value)
