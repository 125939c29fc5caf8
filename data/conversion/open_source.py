"""From a path or a name to the source that it is.

What something is, is told by what lies there: the ending of a file, the notes that a library leaves in a folder, the
files right in it before those below. Where several kinds fit, none is guessed but all are named, for a wrong guess
is a dataset of other rows. Options that a kind of source does not take are refused as well: one that were passed over
would change nothing, and nobody would know.

Each opener is given the options and an account; what it notes of files and splits goes before what the source itself
tells of its columns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import BadColumnError, SourceError
from ..foreign.schemas import partition_keys, split_of
from ..format.account import Account
from ..format.manifest import MANIFEST_NAME
from ..format.not_found import has_pictures
from ..opening import open_dataset
from ..remote.filesystem import is_uri, local_path, shown_uri
from . import from_images, from_keras, huggingface
from .columnar import ArrowTable, ParquetTable
from .csv_table import CsvTable
from .files import ENDINGS, check_utf8, find_files, has_ending, is_hidden, listed
from .from_dataset import DatasetSource
from .from_numpy import idx_source, npy_source, npz_source
from .json_table import JsonTable
from .requested import Requested, RequestedColumn, requested_columns
from .sources import PIECE_BYTES, Source, check_piece_bytes
from .table_source import TableSource
from .tables import FileTable, Table
from .text_values import asked_of

SourceKind = Literal[
    "npz", "npy", "csv", "json", "parquet", "arrow", "huggingface", "tfrecord", "images", "keras", "idx", "dataset"
]
KINDS: tuple[SourceKind, ...] = get_args(SourceKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What is taken of a source, and how much at once, see `convert`.

    `on_read` hears how many bytes have been read to open a source that has to be read whole for that.
    """

    target: str | None = None
    features: Sequence[str] | None = None
    columns: Requested | None = None
    fill_nulls: Mapping[str, Any] | None = None
    split: str | None = None
    bad_pictures: from_images.BadPictures | None = None
    upright: bool = False
    piece_bytes: int = PIECE_BYTES
    on_read: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        check_piece_bytes(self.piece_bytes)


_TABLES: tuple[SourceKind, ...] = ("csv", "json", "parquet", "arrow", "huggingface")
_TYPED: tuple[SourceKind, ...] = (*_TABLES, "tfrecord")
_TAKEN_BY: Mapping[str, tuple[SourceKind, ...]] = {
    "target": _TABLES,
    "columns": _TYPED,
    "fill_nulls": _TYPED,
    "split": (*_TYPED, "images", "keras", "idx"),
    "bad_pictures": ("images",),
    "upright": ("images",),
    "features": (*_TYPED, "npz", "npy", "keras", "dataset"),
}
_FLAGS = {"fill_nulls": "--fill-null", "columns": "--column", "bad_pictures": "--bad-pictures"}
_Open = Callable[[str, SourceOptions, Account], Source]


def open_source(source: str | os.PathLike[str], kind: SourceKind | None, options: SourceOptions) -> Source:
    """The source at a path or URI, or of the name of a data set of Keras; raises SourceError, BadColumnError."""
    text = os.path.expanduser(os.fspath(source))
    check_utf8(text)
    if is_uri(text):
        local = local_path(text)
        if local is None:
            return _open_uri(text, kind, options)
        text = str(local)
    found = kind or guess_kind(text)
    if found not in KINDS:
        raise SourceError(f"There is no kind of source {found!r}; there are {', '.join(KINDS)}.", path=source)
    _check_options(found, text, options)
    return _finished(_OPENERS[found], text, options)


def _finished(opener: _Open, source: str, options: SourceOptions) -> Source:
    account = Account()
    opened = opener(source, options, account)
    for entry in account.entries:
        opened.account.add(entry.change, entry.name, count=entry.count, unit=entry.unit, detail=entry.detail)
    opened.piece_bytes = options.piece_bytes
    return opened


def guess_kind(source: str) -> SourceKind:
    """The kind of a source from its name or, for a folder or pattern, from what is in it; raises SourceError."""
    path = Path(source)
    if path.is_dir():
        return _kind_of_folder(path)
    if source.startswith(from_keras.PREFIX) or (source in from_keras.NAMES and not path.exists()):
        return "keras"
    kinds = _kinds_of([source]) or _kinds_of(listed(source)[1])
    if len(kinds) == 1:
        return kinds.pop()
    what = f"has files of several kinds ({', '.join(sorted(kinds))})"
    if not kinds:
        what = f"ends in {path.suffix!r}, which tells nothing about what it holds"
    raise SourceError(
        f"{source} {what}. Files that end in .npz, .npy, .csv, .tsv, .jsonl, .parquet, .arrow, .feather and .tfrecord "
        "can be converted, IDX files, folders of them, of images by class, of Hugging Face datasets, and names such as "
        "keras:mnist. Give its kind with kind= (--kind), or write its arrays with heliostat.data.write_dataset(path, "
        "{'x': x, 'y': y}).",
        path=source,
    )


def _kinds_of(names: Sequence[str]) -> set[SourceKind]:
    return {kind for kind in KINDS if kind in ENDINGS and any(has_ending(name, kind) for name in names)}


def _kind_of_folder(path: Path) -> SourceKind:
    if (path / MANIFEST_NAME).is_file():
        return "dataset"
    if huggingface.is_folder(path):
        return "huggingface"
    names = [name for name in listed(str(path))[1] if not is_hidden(name)]
    # What lies right in the folder says what it is; what lies below only if there is nothing else.
    here = [name for name in names if "/" not in name and _kinds_of([name])]
    found = _kinds_of(here)
    if any(has_pictures(root) for root in (path, *_split_folders(path).values())):
        found.add("images")
    found = found or _kinds_of(names)
    if len(found) == 1:
        return found.pop()
    what = "nothing that can be converted"
    if not found:
        from_images.refuse_pictures_without_classes(path, names)
    else:
        examples = ", ".join(here[:3]) or ", ".join(name for name in names if _kinds_of([name]))[:100]
        what = f"files of several kinds ({', '.join(sorted(found))}), such as {examples}; one kind becomes a dataset"
    raise SourceError(
        f"Folder {path} has {what}. Give the kind with kind= (--kind), one of {', '.join(KINDS)}, or a file.", path=path
    )


def _check_options(kind: SourceKind, source: str, options: SourceOptions) -> None:
    for name, kinds in _TAKEN_BY.items():
        if getattr(options, name) not in (None, False, {}) and kind not in kinds:
            flag = _FLAGS.get(name, f"--{name}")
            raise SourceError(
                f"{name}= ({flag}) is for {', '.join(kinds)}; {source} is of kind {kind}. Leave it out.", path=source
            )
    named = [*(options.features or ()), *([] if options.target is None else [options.target])]
    for name in named:
        if named.count(name) > 1:
            raise BadColumnError(
                f"Column {name!r} of {source} is named twice, in features= (--feature) or as target= (--target) too. "
                "Name every column once.",
                path=source,
                column=name,
            )


def _open_uri(uri: str, kind: SourceKind | None, options: SourceOptions) -> Source:
    name = shown_uri(uri)
    is_plain = (options.target, options.columns or None, options.fill_nulls or None, options.split) == (None,) * 4
    if kind not in (None, "dataset", "parquet", "arrow") or not is_plain:
        raise SourceError(
            f"{name}: a conversion reads files of this host. Only a dataset, and a folder of Parquet or Arrow files as "
            "they are, can be read by URI (and need no conversion: open_dataset takes the URI). Copy the files here "
            "first.",
            path=name,
        )
    return _finished(_open_dataset, uri, options)


def _open_table(kind: SourceKind, source: str, options: SourceOptions, account: Account) -> Source:
    requested = requested_columns(options.columns)
    if kind == "huggingface":
        table: Table = huggingface.HuggingFaceTable(Path(source), options.split)
    else:
        files = find_files(source, kind, account, split=options.split)
        table = found = _file_table(kind, files.paths, requested, options)
        found.add_keys(partition_keys(files.names))
    noted = huggingface.schema_features(table.schema)
    class_names = dict(noted.class_names)
    if options.target is not None:
        class_names = {"y": class_names[options.target]} if options.target in class_names else {}
    elif options.features is not None:
        class_names = {name: names for name, names in class_names.items() if name in options.features}
    known = {name: one for name, one in noted.requested.items() if name in table.schema.names}
    return TableSource(
        table,
        name=source,
        target=options.target,
        features=options.features,
        columns={**known, **requested},
        fill_nulls=options.fill_nulls,
        metadata={"class_names": class_names} if class_names else {},
    )


def _file_table(
    kind: SourceKind, files: Sequence[Path], requested: Mapping[str, RequestedColumn], options: SourceOptions
) -> FileTable:
    if kind == "csv":
        return CsvTable(files, asked=asked_of(requested), piece_bytes=options.piece_bytes)
    if kind == "json":
        return JsonTable(files, asked=asked_of(requested), piece_bytes=options.piece_bytes)
    return ParquetTable(files) if kind == "parquet" else ArrowTable(files)


def _open_npz(source: str, options: SourceOptions, account: Account) -> Source:
    del account
    return npz_source(Path(source), features=options.features)


def _open_npy(source: str, options: SourceOptions, account: Account) -> Source:
    files = find_files(source, "npy", account, are_joined=False)
    return npy_source(files.paths, name=source, features=options.features)


def _open_idx(source: str, options: SourceOptions, account: Account) -> Source:
    return idx_source(find_files(source, "idx", account, split=options.split).paths, name=source)


def _open_tfrecord(source: str, options: SourceOptions, account: Account) -> Source:
    from .from_tfrecord import TFRecordSource

    files = find_files(source, "tfrecord", account, split=options.split)
    for key in partition_keys(files.names):
        account.add("left out", key, unit="column", detail="a key in the names of folders, which only tables get")
    return TFRecordSource(
        files.paths,
        name=source,
        features=options.features,
        columns=options.columns,
        fill_nulls=options.fill_nulls,
        on_read=options.on_read,
    )


def _open_images(source: str, options: SourceOptions, account: Account) -> Source:
    root = Path(source)
    if not root.is_dir():
        raise SourceError(f"{source} is no folder of images by class: no such folder.", path=source)
    splits = _split_folders(root)
    if splits and options.split not in splits:
        raise SourceError(
            f"{source} has the splits {', '.join(map(repr, splits))}, a folder each; choose one with split= (--split "
            "NAME).",
            path=source,
        )
    if options.split is not None and not splits:
        raise SourceError(f"{source} has no splits: leave split= (--split) out.", path=source)
    for path in sorted(root.iterdir()) if splits else ():
        if path != splits[options.split or ""]:
            unit, why = ("folder", "of another split; --split chooses it") if path.is_dir() else ("file", "no image")
            account.add("left out", path.name, unit=unit, detail=why)
    root = splits.get(options.split or "", root)
    return from_images.ImageSource(root, bad=options.bad_pictures or "refuse", upright=options.upright)


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders of splits (`train/cat/1.jpg`) by split; none if other folders lie beside them, or only one does."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {split_of(path.name) or "": path for path in folders if any(below.is_dir() for below in path.iterdir())}
    return found if len(found) == len(folders) > 1 and "" not in found else {}


def _open_keras(source: str, options: SourceOptions, account: Account) -> Source:
    del account
    return from_keras.keras_source(source, split=options.split, features=options.features)


def _open_dataset(source: str, options: SourceOptions, account: Account) -> Source:
    stored = open_dataset(source)
    for entry in stored.account:  # what it does not have is not in this one either
        if options.features is not None and entry.name in set(stored.schema) - set(options.features):
            continue
        account.add(entry.change, entry.name, count=entry.count, unit=entry.unit, detail=entry.detail)
    dataset = stored if options.features is None else stored.select_columns(options.features)
    return DatasetSource(dataset, metadata=stored.metadata)


_OPENERS: Mapping[SourceKind, _Open] = {
    **{kind: partial(_open_table, kind) for kind in _TABLES},
    "npz": _open_npz,
    "npy": _open_npy,
    "idx": _open_idx,
    "tfrecord": _open_tfrecord,
    "images": _open_images,
    "keras": _open_keras,
    "dataset": _open_dataset,
}
