"""What the `datasets` library of Hugging Face wrote: its folders, read by it, and its notes in Parquet and Arrow.

A folder looks like Arrow files and is not: a dataset that was filtered or sorted has its rows by a list of indices, and
one of concatenated parts has them in other folders. So the library reads its folders, and its Arrow rows are a table
like others. Its notes are read without it: class names and shapes of arrays lie as JSON in the schema of every file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import SourceError
from ..foreign.schemas import split_of
from .requested import RequestedColumn
from .tables import Table, TablePart, whole_columns

INFO_NAME, STATE_NAME, DICT_NAME = "dataset_info.json", "state.json", "dataset_dict.json"
_ARRAYS = tuple(f"Array{dims}D" for dims in range(2, 6))
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Features:
    """What the library knows of columns beyond Arrow: class names by column, and shapes of arrays."""

    class_names: Mapping[str, list[str]]
    requested: Mapping[str, RequestedColumn]


class HuggingFaceTable(Table):
    """A folder written by `Dataset.save_to_disk`, one split of a `DatasetDict`, or a folder of the library's cache.

    `split` is needed where there are several. Raises SourceError, also if the library is not installed.
    """

    kind = "huggingface"

    def __init__(self, folder: Path, split: str | None = None) -> None:
        try:
            library = import_module("datasets")
        except ImportError as error:
            raise SourceError(
                f"{folder} was written by Hugging Face's datasets, which has to read it: pip install 'datasets>=4,<6'.",
                path=folder,
            ) from error
        try:
            dataset = _opened(library, folder, split)
        except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
            raise SourceError(
                f"{folder} cannot be read by Hugging Face's datasets: {error}. It has no rows, or was "
                "not copied whole.",
                path=folder,
            ) from error
        self._dataset = dataset.with_format("arrow")
        self.files = tuple(Path(file["filename"]) for file in dataset.cache_files)
        self.num_rows, self.schema = dataset.num_rows, dataset.features.arrow_schema
        self.num_bytes = sum(path.stat().st_size for path in self.files)
        self._folder = folder

    def parts(self, first_row: int, names: Sequence[str]) -> Iterator[TablePart]:  # noqa: D102
        dataset = self._dataset.select_columns(whole_columns(self.schema, names))
        row, total = first_row, self.num_rows or 1
        while row < total:
            for batch in dataset[row : row + _ROWS_AT_ONCE].combine_chunks().to_batches():
                after = row + batch.num_rows
                yield TablePart(batch, self._folder, row, self.num_bytes * after // total)
                row = after


def is_folder(path: Path) -> bool:
    """Whether a folder looks like one that the library wrote."""
    names = set(os.listdir(path))
    return bool(names & {DICT_NAME, STATE_NAME}) or (
        INFO_NAME in names and any(one.endswith(".arrow") for one in names)
    )


def schema_features(schema: pa.Schema) -> Features:
    """What the library noted in the schema of a file that it wrote (Parquet, Arrow)."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return _features(noted["info"]["features"])
    except (ValueError, KeyError, TypeError):
        return Features({}, {})


def _features(features: Mapping[str, Any]) -> Features:
    class_names, requested = {}, {}
    for name, feature in _flat(features):
        kind = feature.get("_type")
        if kind == "ClassLabel" and feature.get("names"):
            class_names[name] = [str(one) for one in feature["names"]]
        if kind in _ARRAYS and all(isinstance(size, int) for size in feature.get("shape", [None])):
            requested[name] = RequestedColumn(kind="tensor", dtype=feature["dtype"], shape=tuple(feature["shape"]))
    return Features(class_names, requested)


def _flat(features: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, feature in features.items():
        if isinstance(feature, Mapping) and "_type" in feature:
            yield prefix + name, feature
        elif isinstance(feature, Mapping):
            yield from _flat(feature, f"{prefix}{name}.")


def _opened(library: Any, folder: Path, split: str | None) -> Any:
    """The dataset of a folder, one of its splits."""
    if (folder / DICT_NAME).is_file() or (folder / STATE_NAME).is_file():
        found = library.load_from_disk(str(folder))
        parts = found if isinstance(found, dict) else {split or "": found}
    else:
        paths = sorted(path for path in folder.glob("*.arrow") if not path.name.startswith("cache-"))
        by_split: dict[str, list[Any]] = {}
        for path in paths:
            by_split.setdefault(split_of(path.name) or "", []).append(library.Dataset.from_file(str(path)))
        parts = {name: library.concatenate_datasets(several) for name, several in by_split.items()}
    if not parts:
        raise SourceError(f"{folder} has no data files: it was probably not copied whole.", path=folder)
    if split is None and len(parts) == 1:
        return next(iter(parts.values()))
    if split not in parts:
        asked = "none was chosen" if split is None else f"{split!r} is none of them"
        raise SourceError(
            f"{folder} has the splits {', '.join(map(repr, parts))}; {asked}. Choose one with split= (--split NAME).",
            path=folder,
        )
    return parts[split]
