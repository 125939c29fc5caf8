"""Converters: what people have (files, folders, names of known data sets) to datasets.

A conversion is a source, which gives record batches of the stored schema from any row on, and a writer, which keeps a
journal of finished shards; neither knows of the other. So every conversion can go on after it was killed, whatever the
source is, and `resume` only says whether what is found of an earlier one may be used. That it is the same conversion
is told by the identity of the source and its options, which are in the manifest, and in the journal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import BadColumnError, RemoteError
from ..format.columns import Column
from ..remote.filesystem import is_uri, local_path, shown_uri
from ..stored import StoredDataset
from ..write.commit import check_target
from ..write.folder_writer import SHARD_BYTES
from ..writer import DatasetWriter
from .from_images import BadPictures
from .open_source import SourceKind, SourceOptions, open_source
from .requested import Requested, requested_columns
from .sources import PIECE_BYTES, Source

_Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """How far a conversion is: rows and bytes of the source; None where the whole is not known.

    Without columns it has not begun: the source is looked through to know what it holds.
    """

    kind: str
    columns: tuple[Column, ...] | None
    num_rows: int
    total_rows: int | None
    num_bytes: int
    total_bytes: int | None


OnProgress = Callable[[Conversion], None]


def convert(
    source: _Path,
    destination: _Path,
    *,
    kind: SourceKind | None = None,
    target: str | None = None,
    features: Sequence[str] | None = None,
    columns: Requested | None = None,
    fill_nulls: Mapping[str, Any] | None = None,
    split: str | None = None,
    bad_pictures: BadPictures | None = None,
    upright: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    shuffle_seed: int | None = None,
    rows_per_shard: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    piece_bytes: int = PIECE_BYTES,
    on_progress: OnProgress | None = None,
) -> StoredDataset:
    """Write a file, the files of a folder or pattern, or a data set of Keras as a dataset, in bounded memory.

    A value that is stored equals the one in the source, or an error names its file, column and row, or it is an entry
    of `account` of the dataset that is returned: what was left out or changed, with counts.

    Args:
        source: a path, "~" being the home folder; a pattern (`*`); a name such as "keras:mnist"; or the URI of a
            dataset, or of a folder of Parquet or Arrow files. A folder is taken with what lies below it; `year=2023/`
            in a path is a column "year".
        destination: a folder of this host.
        kind: None: from the name, or from what is in the folder; "npz", "npy", "csv", "json" (lines), "parquet",
            "arrow" (files and streams, Feather), "huggingface" (a folder of `save_to_disk`), "tfrecord" (of
            `tf.train.Example`), "images" (a sub-folder per class), "keras", "idx", or "dataset" (another of ours).
        target: this column of a table becomes "y", and the features are stacked into "x", float32 [rows, features].
        features: the columns that are taken.
        columns: what columns become: a kind, a dtype or both, such as "string", "float32", "list:int32",
            "tensor:uint8[28,28]".
        fill_nulls: by column what takes the place of missing values, which are refused without it.
        split: one of a source that has several, by its names of files or by what it notes; "all" joins those of names.
        bad_pictures: what to do with images that cannot be decoded: None refuses them by name, "drop" leaves them out,
            "keep" does not look at them.
        upright: turn images that have an EXIF orientation.
        overwrite: replace a dataset that is there.
        resume: go on from the complete shards of an interrupted conversion of the same source with the same options,
            and leave them also after an error; the result is that of an uninterrupted one. Without it, an error leaves
            nothing behind, and an interruption (Ctrl-C, a kill) the shards that were complete.
        shuffle_seed: see `DatasetWriter`, as for `rows_per_shard` and `shard_bytes`.
        rows_per_shard: rows of a file.
        shard_bytes: or bytes of a file.
        piece_bytes: about so many bytes of rows are read and written at once: fewer take less memory.
        on_progress: called after each such piece, and while records of TFRecord are looked through before.

    The metadata of the dataset holds where it came from, the class names that the source has, and the columns that a
    model is fed with where they can be told, which `Trainer.fit` then takes.

    Raises SourceError for what cannot be read, BadColumnError for what cannot be stored, DatasetExistsError, OSError.

    Example:
        >>> dataset = convert("rows.csv", "converted", columns={"size": "float32"})
        >>> dataset.row(1)
        {'id': '007', 'size': 2.5}
        >>> [str(entry)[:20] for entry in dataset.account]
        ['id: 2 values read as']
    """
    folder = local_path(str(destination)) if is_uri(destination) else Path(os.path.expanduser(destination))
    if folder is None:
        name = shown_uri(str(destination))
        raise RemoteError(
            f"{name}: a conversion is resumable, so it writes to a folder of this host. Convert to one, then "
            "upload_dataset(open_dataset(FOLDER), URI).",
            path=name,
        )
    check_target(folder.absolute(), overwrite)  # before a large source is looked at
    options = SourceOptions(
        target=target,
        features=features,
        columns=columns,
        fill_nulls=fill_nulls,
        split=split,
        bad_pictures=bad_pictures,
        upright=upright,
        piece_bytes=piece_bytes,
        on_read=None if on_progress is None else partial(_opening, on_progress, kind or "source"),
    )
    opened = open_source(source, kind, options)
    metadata = {
        **opened.metadata,
        **_model_columns(opened.columns or ()),
        "source": {**opened.identity(), "options": _options_json(options)},
    }
    writing = {
        "columns": opened.columns,
        "shuffle_seed": shuffle_seed,
        "rows_per_shard": rows_per_shard,
        "shard_bytes": shard_bytes,
        "metadata": metadata,
        "overwrite": overwrite,
    }
    return write_source(opened, folder, writing, resume=resume, on_progress=on_progress)


def _opening(on_progress: OnProgress, kind: str, num_bytes: int) -> None:
    on_progress(Conversion(kind=kind, columns=None, num_rows=0, total_rows=None, num_bytes=num_bytes, total_bytes=None))


def _model_columns(columns: Sequence[Column]) -> dict[str, Any]:
    """The columns that a model is fed with, for the manifest, where they can be told: x, or the only one beside y."""
    names = [column.name for column in columns]
    inputs = ["x"] if "x" in names else [name for name in names if name != "y"]
    return {"model": {"inputs": inputs[0], "targets": "y"}} if "y" in names and len(inputs) == 1 else {}


def write_source(
    source: Source,
    destination: _Path,
    writing: Mapping[str, Any],
    *,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> StoredDataset:
    """Write the rows of a source; `writing` are the options of `DatasetWriter`. Raises as `convert` does."""
    if not resume:
        _discard_unfinished(destination, writing)
    # Resumable in any case: an interruption leaves what is complete.
    writer = DatasetWriter(destination, **writing, account=source.account, resume=True)
    try:
        for rows in source.record_batches(writer.rows_done):
            _write(writer, rows.batch, source)
            if on_progress is not None:
                on_progress(
                    Conversion(
                        kind=source.kind,
                        columns=source.columns,
                        num_rows=writer.rows_written,
                        total_rows=source.num_rows,
                        num_bytes=rows.num_bytes,
                        total_bytes=source.num_bytes,
                    )
                )
        return writer.close()
    except BaseException as error:
        writer.abort()
        if isinstance(error, Exception) and not resume:
            _discard_unfinished(destination, writing)
        raise


def _write(writer: DatasetWriter, rows: pa.RecordBatch, source: Source) -> None:
    try:
        writer.write(rows)
    except BadColumnError as error:
        if error.path is not None:
            raise
        raise BadColumnError(f"{source.name}: {error}", path=source.name, column=error.column) from error


def _discard_unfinished(destination: _Path, writing: Mapping[str, Any]) -> None:
    """Remove what an interrupted conversion left: a writer that does not resume does so."""
    DatasetWriter(destination, **writing, resume=False).abort()


def _options_json(options: SourceOptions) -> dict[str, Any]:
    """The options that were given, as JSON can hold them."""
    found: dict[str, Any] = {
        "target": options.target,
        "features": None if options.features is None else list(options.features),
        "columns": {name: str(one) for name, one in requested_columns(options.columns).items()} or None,
        "fill_nulls": {name: _plain(value) for name, value in (options.fill_nulls or {}).items()} or None,
        "split": options.split,
        "bad_pictures": options.bad_pictures,
        "upright": options.upright or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | float | str) and value == value else repr(value)
