"""Folders that the `datasets` library of Hugging Face wrote, read without it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import SourceError
from .arrow_tables import ArrowTable
from .requested import RequestedColumn

INFO_NAME, STATE_NAME, DICT_NAME = "dataset_info.json", "state.json", "dataset_dict.json"
_ARRAYS = tuple(f"Array{dims}D" for dims in range(2, 6))


@dataclass(frozen=True, slots=True)
class Features:
    """What the library knows of columns beyond Arrow: class names by column, and shapes of arrays."""

    class_names: Mapping[str, list[str]]
    wanted: Mapping[str, RequestedColumn]


class HuggingFaceTable(ArrowTable):
    """A folder written by `Dataset.save_to_disk`, one split of a `DatasetDict`, or a folder of the library's cache.

    `split` is needed where there are several.
    """

    kind = "huggingface"

    def __init__(self, folder: Path, split: str | None = None) -> None:
        folder = _split_folder(folder, split)
        super().__init__(_data_files(folder, split))
        info = _read_json(folder / INFO_NAME) if (folder / INFO_NAME).is_file() else {}
        self.features = features_of(info.get("features") or {}) if info else schema_features(self.schema)


def is_folder(path: Path) -> bool:
    """Whether a folder looks like one that the library wrote."""
    return any((path / name).is_file() for name in (DICT_NAME, STATE_NAME, INFO_NAME))


def schema_features(schema: pa.Schema) -> Features:
    """What the library noted in the schema of a file that it wrote (Parquet, Arrow)."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return features_of(noted["info"]["features"])
    except (ValueError, KeyError, TypeError):
        return Features({}, {})


def features_of(features: Mapping[str, Any]) -> Features:
    """Class names and shapes of the features in `dataset_info.json`."""
    class_names, wanted = {}, {}
    for name, feature in _flat(features):
        kind = feature.get("_type")
        if kind == "ClassLabel" and feature.get("names"):
            class_names[name] = [str(one) for one in feature["names"]]
        if kind in _ARRAYS and all(isinstance(size, int) for size in feature.get("shape", [None])):
            wanted[name] = RequestedColumn(kind="tensor", dtype=feature["dtype"], shape=tuple(feature["shape"]))
    return Features(class_names, wanted)


def _flat(features: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, feature in features.items():
        if isinstance(feature, Mapping) and "_type" in feature:
            yield prefix + name, feature
        elif isinstance(feature, Mapping):
            yield from _flat(feature, f"{prefix}{name}.")


def _split_folder(folder: Path, split: str | None) -> Path:
    if not (folder / DICT_NAME).is_file():
        return folder
    splits = [str(name) for name in _read_json(folder / DICT_NAME).get("splits", [])]
    if split is None and len(splits) == 1:
        return folder / splits[0]
    if split not in splits:
        asked = "none was chosen" if split is None else f"{split!r} is none of them"
        raise SourceError(
            f"{folder} has the splits {', '.join(map(repr, splits))}; {asked}. Choose one with split= (--split NAME).",
            path=folder,
        )
    return folder / split


def _data_files(folder: Path, split: str | None) -> list[Path]:
    if (folder / STATE_NAME).is_file():
        state = _read_json(folder / STATE_NAME)
        if state.get("_indices_data_files"):
            raise SourceError(
                f"{folder} keeps its row order in files of its own. Save it again after flatten_indices().",
                path=folder,
            )
        names = [str(item["filename"]) for item in state.get("_data_files") or []]
    else:
        names = sorted(path.name for path in folder.glob("*.arrow") if not path.name.startswith("cache-"))
        if split is not None:
            names = [name for name in names if f"-{split}" in name]
        elif (parts := {name.rsplit("-", 1)[-1] for name in names if "-of-" not in name}) and len(parts) > 1:
            found = ", ".join(repr(part.removesuffix(".arrow")) for part in sorted(parts))
            raise SourceError(f"{folder} has the splits {found}; choose one with split= (--split NAME).", path=folder)
    if not names:
        wanted = "" if split is None else f" of split {split!r}"
        raise SourceError(f"{folder} has no data files{wanted}: it was probably not copied whole.", path=folder)
    return [folder / Path(name).name for name in names]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read as JSON: {error}", path=path) from error
    if not isinstance(content, dict):
        raise SourceError(f"{path} holds no JSON object: it was not written by save_to_disk.", path=path)
    return content
