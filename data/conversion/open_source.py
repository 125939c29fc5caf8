"""From a path or a name to the source that it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..dataset import Dataset
from ..errors import SourceError
from ..format.columns import Column
from ..format.manifest import MANIFEST_NAME
from ..stored import open_dataset
from . import from_images, from_keras, huggingface
from .arrow_tables import ArrowTable, ParquetTable
from .csv_table import CsvTable
from .from_numpy import NpzSource, idx_source, npy_source
from .huggingface import HuggingFaceTable, schema_features
from .json_table import JsonTable
from .requested import Requested, requested_columns
from .sources import PIECE_BYTES, Piece, Source, check_piece_bytes, files_of
from .tables import Table, TableSource

SourceKind = Literal[
    "npz", "npy", "csv", "json", "parquet", "arrow", "huggingface", "tfrecord", "images", "keras", "idx", "dataset"
]
KINDS: tuple[SourceKind, ...] = get_args(SourceKind)
_ENDINGS: Mapping[SourceKind, tuple[str, ...]] = {
    "npz": (".npz",),
    "npy": (".npy",),
    "csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz"),
    "json": tuple(f"{ending}{packed}" for ending in (".jsonl", ".ndjson", ".json") for packed in ("", ".gz", ".zst")),
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".feather", ".ipc"),
    "tfrecord": (".tfrecord", ".tfrecords", ".tfrecord.gz", ".tfrecords.gz"),
    "idx": ("-ubyte", "-ubyte.gz", ".idx", ".idx.gz"),
}
_IDX_SPLITS = {"train": ("train",), "test": ("t10k", "test")}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What is taken of a source, and how much at once, see `convert`."""

    target: str | None = None
    features: Sequence[str] | None = None
    columns: Requested | None = None
    fill_nulls: Mapping[str, Any] | None = None
    split: str | None = None
    piece_bytes: int = PIECE_BYTES

    def __post_init__(self) -> None:
        check_piece_bytes(self.piece_bytes)


_TABLES: tuple[SourceKind, ...] = ("csv", "json", "parquet", "arrow", "huggingface")
_TYPED: tuple[SourceKind, ...] = (*_TABLES, "tfrecord")
_SPLIT: tuple[SourceKind, ...] = ("huggingface", "keras", "idx")
_TAKEN_BY: Mapping[str, tuple[SourceKind, ...]] = {
    "target": _TABLES,
    "columns": _TYPED,
    "fill_nulls": _TYPED,
    "split": _SPLIT,
    "features": (*_TYPED, "npz", "npy", "keras", "dataset"),
}
_FLAGS = {"fill_nulls": "--fill-null", "columns": "--column"}


def open_source(source: str | os.PathLike[str], kind: SourceKind | None, options: SourceOptions) -> Source:
    """The source at a path, or of the name of a data set of Keras; raises SourceError, BadColumnError."""
    text = os.fspath(source)
    found = kind or guess_kind(text)
    if found not in KINDS:
        raise SourceError(f"There is no kind of source {found!r}; there are {', '.join(KINDS)}.", path=source)
    _check_options(found, text, options)
    opened = _table_source(found, text, options) if found in _TABLES else _OPENERS[found](text, options)
    opened.piece_bytes = options.piece_bytes
    return opened


def guess_kind(source: str) -> SourceKind:
    """The kind of a source from its name or, for a folder, from what is in it; raises SourceError."""
    path = Path(source)
    if path.is_dir():
        return _kind_of_folder(path)
    if source.startswith(from_keras.PREFIX) or (source in from_keras.NAMES and not path.exists()):
        return "keras"
    kinds = [kind for kind, endings in _ENDINGS.items() if source.lower().endswith(endings)]
    # Shards of TFRecord are often called train.tfrecord-00000-of-00008.
    if not kinds and ".tfrecord" in path.name.lower():
        return "tfrecord"
    if not kinds:
        raise SourceError(
            f"{source} ends in {path.suffix!r}, which tells nothing about what it holds. Files that end in .npz, .npy, "
            ".csv, .tsv, .jsonl, .parquet, .arrow, .feather and .tfrecord can be converted, IDX files, folders of "
            "them, of images by class, of Hugging Face datasets, and names such as keras:mnist. Give its kind with "
            "kind= (--kind), or write its arrays with heliostat.data.write_dataset(path, {'x': x, 'y': y}).",
            path=source,
        )
    return kinds[0]


def _kind_of_folder(path: Path) -> SourceKind:
    if (path / MANIFEST_NAME).is_file():
        return "dataset"
    if huggingface.is_folder(path):
        return "huggingface"
    names = sorted(entry.name.lower() for entry in os.scandir(path) if not entry.name.startswith((".", "_")))
    found = {kind for kind, endings in _ENDINGS.items() if any(name.endswith(endings) for name in names)}
    if any(".tfrecord" in name for name in names):
        found.add("tfrecord")
    if not found and from_images.has_images(path):
        return "images"
    if len(found) == 1:
        return found.pop()
    what = f"files of several kinds ({', '.join(sorted(found))})" if found else "nothing that can be converted"
    raise SourceError(
        f"Folder {path} has {what}. Give the kind with kind= (--kind), one of {', '.join(KINDS)}, or a file.", path=path
    )


def _check_options(kind: SourceKind, source: str, options: SourceOptions) -> None:
    for name, kinds in _TAKEN_BY.items():
        if getattr(options, name) is not None and getattr(options, name) != {} and kind not in kinds:
            flag = _FLAGS.get(name, f"--{name}")
            raise SourceError(
                f"{name}= ({flag}) is for {', '.join(kinds)}; {source} is of kind {kind}. Leave it out.", path=source
            )


def _table_source(kind: SourceKind, source: str, options: SourceOptions) -> TableSource:
    table, metadata, columns = _table(kind, source, options)
    return TableSource(
        table,
        name=source,
        target=options.target,
        features=options.features,
        columns=columns,
        fill_nulls=options.fill_nulls,
        metadata=metadata,
    )


def _table(kind: SourceKind, source: str, options: SourceOptions) -> tuple[Table, dict[str, Any], Requested]:
    wanted = requested_columns(options.columns)
    if kind == "csv":
        files = files_of(source, _ENDINGS[kind], "CSV")
        texts = [name for name, one in wanted.items() if one.kind in ("string", "bytes")]
        return CsvTable(files, text_columns=texts, piece_bytes=options.piece_bytes), {}, wanted
    if kind == "json":
        files = files_of(source, _ENDINGS[kind], "JSON lines")
        return JsonTable(files, piece_bytes=options.piece_bytes), {}, wanted
    if kind == "huggingface":
        table: Table = HuggingFaceTable(Path(source), options.split)
    else:
        files = files_of(source, _ENDINGS[kind], kind)
        table = ParquetTable(files) if kind == "parquet" else ArrowTable(files)
    features = table.features if isinstance(table, HuggingFaceTable) else schema_features(table.schema)
    class_names = dict(features.class_names)
    if options.target is not None:
        class_names = {"y": class_names[options.target]} if options.target in class_names else {}
    elif options.features is not None:
        class_names = {name: names for name, names in class_names.items() if name in options.features}
    known = {name: one for name, one in features.wanted.items() if name in table.schema.names}
    return table, {"class_names": class_names} if class_names else {}, {**known, **wanted}


def _open_npz(source: str, options: SourceOptions) -> Source:
    return NpzSource(Path(source), features=options.features)


def _open_npy(source: str, options: SourceOptions) -> Source:
    return npy_source(files_of(source, _ENDINGS["npy"], ".npy"), name=source, features=options.features)


def _open_idx(source: str, options: SourceOptions) -> Source:
    files = files_of(source, _ENDINGS["idx"], "IDX")
    if options.split is not None:
        starts = _IDX_SPLITS.get(options.split, (options.split,))
        files = tuple(file for file in files if file.name.lower().startswith(starts))
        if not files:
            raise SourceError(f"{source} has no IDX files of split {options.split!r}.", path=source)
    return idx_source(files, name=source)


def _open_tfrecord(source: str, options: SourceOptions) -> Source:
    from .from_tfrecord import TFRecordSource

    files = files_of(source, _ENDINGS["tfrecord"], "TFRecord") if not Path(source).is_dir() else _tfrecords(source)
    return TFRecordSource(
        files, name=source, features=options.features, columns=options.columns, fill_nulls=options.fill_nulls
    )


def _tfrecords(source: str) -> tuple[Path, ...]:
    names = sorted(entry.name for entry in os.scandir(source) if entry.is_file())
    found = tuple(Path(source, name) for name in names if ".tfrecord" in name.lower() and name[0] not in "._")
    if not found:
        raise SourceError(f"Folder {source} has no files with .tfrecord in their names.", path=source)
    return found


def _open_images(source: str, options: SourceOptions) -> Source:
    if not Path(source).is_dir():
        raise SourceError(f"{source} is no folder of images by class: no such folder.", path=source)
    return from_images.ImageSource(Path(source))


def _open_keras(source: str, options: SourceOptions) -> Source:
    return from_keras.keras_source(source, split=options.split, features=options.features)


def _open_dataset(source: str, options: SourceOptions) -> Source:
    stored = open_dataset(source)
    dataset = stored if options.features is None else stored.select_columns(options.features)
    return DatasetSource(dataset, metadata=stored.metadata)


_OPENERS: Mapping[SourceKind, Callable[[str, SourceOptions], Source]] = {
    "npz": _open_npz,
    "npy": _open_npy,
    "idx": _open_idx,
    "tfrecord": _open_tfrecord,
    "images": _open_images,
    "keras": _open_keras,
    "dataset": _open_dataset,
}


class DatasetSource(Source):
    """The rows of another dataset, in stored order."""

    kind = "dataset"

    def __init__(self, dataset: Dataset, *, metadata: Mapping[str, Any] | None = None) -> None:
        self._dataset, self.name, self.metadata = dataset, dataset.name, dict(metadata or {})
        self.columns: tuple[Column, ...] = tuple(dataset.schema.values())
        self.num_rows = len(dataset)

    def identity(self) -> Mapping[str, Any]:  # noqa: D102
        return {"kind": self.kind, "name": Path(self.name).name, "fingerprint": self._dataset.fingerprint}

    def pieces(self, first_row: int = 0) -> Iterator[Piece]:  # noqa: D102
        if first_row >= len(self._dataset):
            return
        rest = self._dataset.skip(first_row) if first_row else self._dataset
        for rows in rest.batches(self._rows_at_once(), shuffle=False):
            yield Piece(rows, len(next(iter(rows.values()))), 0)

    def _rows_at_once(self) -> int:
        known, row_bytes = self._dataset.statistics, 0.0
        for name, column in self._dataset.schema.items():
            lengths = known[name].lengths if name in known else None
            mean = 1024.0 if lengths is None else lengths.total / len(self._dataset)
            row_bytes += column.element_bytes * (mean if column.is_variable else 1)
        return self.rows_per_piece(row_bytes)
