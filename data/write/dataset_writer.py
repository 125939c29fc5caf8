"""Writing a dataset piece by piece, in bounded memory, all or nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import pyarrow as pa

from ..errors import BadColumnError
from ..format.manifest import Column, Manifest, ShardFormat, column_to_json, write_manifest
from ..order.order import RowOrder
from ..remote.filesystem import is_uri, local_path
from ..stored import StoredDataset
from .blocks import Block, BlockQueue, take_block
from .commit import check_target, put_in_place
from .incoming import check_names, incoming_column, incoming_values
from .journal import Journal
from .shard_sequence import ShardSequence

if TYPE_CHECKING:
    from ..remote.upload import Upload

SHARD_BYTES = 64 << 20
_SHUFFLE_ROWS = 1 << 62

Rows: TypeAlias = Mapping[str, Any] | pa.RecordBatch | pa.Table
"""Rows of all columns: arrays [rows, *shape], lists of numbers, str, bytes or arrays, `Ragged`, or Arrow data."""


class DatasetWriter:
    """Writes a dataset to a folder that appears at `path` complete or not at all. A context manager.

    `write` takes rows as they come; shards are cut by rows (`rows_per_shard`) or bytes (`shard_bytes`), and depend on
    the rows alone, not on how many came at once. About two record batches (of 8 MiB) are held in memory. The columns
    are those of the first write unless `columns` gives them. `fill_nulls` gives, by column, the value that takes the
    place of missing ones; without it they are refused. `metadata` (what JSON can hold) is kept in the manifest.

    `shuffle_seed`: rows are collected in a buffer of `shuffle_bytes` (None: four shards) and come out of it in a
    pseudo-random order that depends on the seed and the rows alone; a row moves within its buffer only, so sources much
    larger than the buffer keep their coarse order. Takes twice the buffer in memory.

    Shards that are complete are noted in a journal in `.NAME.writing` beside the target. `resume=True` goes on from
    what an interrupted writer (same options) left there: skip `rows_done` rows of the source and write the others;
    after an exception it leaves the folder for the next one. `resume=False` begins anew and leaves nothing.

    A dataset for s3://bucket/folder (any URI of pyarrow or fsspec) is made in a temporary folder (in `work_dir`) and
    uploaded by `close`, the manifest last: a crash leaves the dataset that was there, or none. If uploading fails,
    the error says where the finished dataset is kept. `resume` is for folders of this host.

    Raises DatasetExistsError if the path is taken (`overwrite` replaces a dataset, never another kind of folder) or
    another process is writing there, BadColumnError, ValueError for senseless options, OSError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        columns: Sequence[Column] | None = None,
        overwrite: bool = False,
        shard_bytes: int = SHARD_BYTES,
        rows_per_shard: int | None = None,
        format: ShardFormat = "arrow",
        shuffle_seed: int | None = None,
        shuffle_bytes: int | None = None,
        fill_nulls: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        resume: bool = False,
        work_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        _check_options(columns, shard_bytes, rows_per_shard, shuffle_bytes, format, metadata)
        self._overwrite, self._resume = overwrite, resume
        self._upload, self._target = _upload_of(path, overwrite, resume, work_dir)
        self._format, self._metadata, self._fills = format, dict(metadata or {}), dict(fill_nulls or {})
        self._shard_bytes, self._rows_per_shard = shard_bytes, rows_per_shard
        self._seed, self._shuffle_bytes = shuffle_seed, shuffle_bytes or 4 * shard_bytes
        self._dataset: StoredDataset | None = None
        self._is_open = True
        try:
            self._open(columns)
        except BaseException:
            if self._upload is not None:
                self._upload.remove()
            raise

    def _open(self, columns: Sequence[Column] | None) -> None:
        self._columns: dict[str, Column] | None = None
        self._names: tuple[str, ...] = ()
        check_target(self._target, self._overwrite)
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._journal = Journal.begin(self._target, self._options(columns), resume=self._resume)
        self._rows_in = self._journal.progress.rows_done
        self._buffers_done = self._journal.progress.buffers_done
        if columns is not None or self._journal.progress.columns is not None:
            self._begin(columns or self._journal.progress.columns or ())

    @property
    def rows_done(self) -> int:
        """Rows of the source that an interrupted writer has already written: the next `write` goes on after them."""
        return self._journal.progress.rows_done

    @property
    def rows_written(self) -> int:
        """Rows that were taken so far, those of an interrupted writer included."""
        return self._rows_in

    @property
    def dataset(self) -> StoredDataset:
        """The finished dataset, opened; raises ValueError before `close`."""
        if self._dataset is None:
            raise ValueError(f"The dataset {self._target} is not finished: close the writer first.")
        return self._dataset

    def write(self, rows: Rows) -> None:
        """Append rows of all columns, equal in number; their memory may be used again afterwards.

        Raises BadColumnError for columns of other names, kinds, dtypes or lengths and for missing values, OSError.
        """
        self._check_open()
        if isinstance(rows, pa.Table | pa.RecordBatch):
            for batch in rows.to_batches() if isinstance(rows, pa.Table) else [rows]:
                self._write(dict(zip(batch.schema.names, batch.columns, strict=True)))
        else:
            self._write(rows)

    def close(self) -> StoredDataset:
        """Write what is left, put the dataset in its place and return it opened; a second call only returns it.

        Raises BadColumnError if there are no rows, DatasetExistsError, RemoteError, OSError.
        """
        if self._dataset is None:
            self._check_open()
            try:
                self._finish()
            except BaseException:
                self.abort()
                raise
            if self._upload is not None:
                self._dataset = self._upload.send(self.dataset)
        return self.dataset

    def abort(self) -> None:
        """Stop without a dataset; what is finished is kept for the next writer only with `resume=True`."""
        if not self._is_open:
            return
        self._is_open = False
        if self._columns is not None:
            self._shards.abandon()
        self._journal.close()
        if not self._resume:
            shutil.rmtree(self._journal.folder, ignore_errors=True)
        if self._upload is not None:
            self._upload.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif self._is_open:
            self.close()

    def _options(self, columns: Sequence[Column] | None) -> dict[str, Any]:
        """What must be equal for a writer to go on where another one stopped."""
        return {
            "columns": None if columns is None else [column_to_json(column) for column in columns],
            "shard_bytes": self._shard_bytes,
            "rows_per_shard": self._rows_per_shard,
            "format": self._format,
            "shuffle_seed": self._seed,
            "shuffle_bytes": None if self._seed is None else self._shuffle_bytes,
            "fill_nulls": {name: repr(value) for name, value in self._fills.items()},
            "metadata": self._metadata,
        }

    def _check_open(self) -> None:
        if not self._is_open:
            raise ValueError(f"The writer of dataset {self._target} is closed; make another.")

    def _begin(self, columns: Sequence[Column]) -> None:
        if not columns:
            raise BadColumnError("A dataset needs at least one column; none was given.")
        self._columns = {column.name: column for column in columns}
        if self._journal.progress.columns is None:
            self._journal.set_columns(tuple(columns))
        self._shards = ShardSequence(
            self._journal, tuple(columns), self._format, shard_bytes=self._shard_bytes, num_rows=self._rows_per_shard
        )
        self._buffer = BlockQueue(columns)

    def _write(self, rows: Mapping[str, Any]) -> None:
        if self._columns is None and _all_empty(rows):
            # An empty list says nothing about the kind of its column.
            self._names = self._names or tuple(rows)
            return
        if self._columns is None:
            self._begin([incoming_column(name, values) for name, values in rows.items()])
        known = self._columns or {}
        check_names(known, rows)
        block = {
            name: incoming_values(column, rows[name], first_row=self._rows_in, fill=self._fills.get(name))
            for name, column in known.items()
        }
        num_rows = _common_length(block)
        self._rows_in += num_rows
        if self._seed is None:
            self._shards.write(block, num_rows)
            return
        self._buffer.push(block, num_rows)
        self._shuffle(at_end=False)
        self._buffer.keep()

    def _shuffle(self, *, at_end: bool) -> None:
        while (popped := self._buffer.pop(_SHUFFLE_ROWS, self._shuffle_bytes, at_end=at_end)) is not None:
            block, num_rows, _ = popped
            for part, count in _shuffled(block, num_rows, self._seed or 0, self._buffers_done):
                self._shards.write(part, count, is_resumable=False)
            self._buffers_done += 1
            self._shards.end_shard(self._buffers_done)

    def _finish(self) -> None:
        columns = self._columns or {}
        if not self._rows_in:
            first = next(iter(columns or self._names), None)
            raise BadColumnError(
                "A dataset needs at least one row; nothing was written."
                if first is None
                else f"Column {first!r} has 0 rows; a dataset needs at least one.",
                column=first,
            )
        if self._seed is not None:
            self._shuffle(at_end=True)
        shards, statistics = self._shards.finish()
        manifest = Manifest(
            columns=tuple(columns.values()),
            shards=shards,
            rows_per_batch=self._shards.rows_per_batch,
            statistics=statistics,
            shard_format=self._format,
            metadata=self._metadata,
        )
        write_manifest(self._journal.folder, manifest)
        check_target(self._target, self._overwrite)
        self._journal.close(remove=True)
        put_in_place(self._journal.folder, self._target, self._overwrite)
        self._is_open = False
        self._dataset = StoredDataset.open(self._target)


def _upload_of(
    path: str | os.PathLike[str], overwrite: bool, resume: bool, work_dir: str | os.PathLike[str] | None
) -> tuple[Upload | None, Path]:
    """What is to be done with the finished dataset, None for a path; and the folder that it is written to."""
    if not is_uri(path):
        return None, Path(os.path.abspath(path))
    here = local_path(str(path))
    if here is not None:
        return None, here
    if resume:
        raise ValueError(
            "resume is for folders of this host: write the dataset there, and upload it with upload_dataset."
        )
    from ..remote.upload import Upload

    upload = Upload(str(path), overwrite=overwrite, work_dir=work_dir)
    return upload, upload.folder


def _shuffled(block: Block, num_rows: int, seed: int, number: int) -> Iterator[tuple[Block, int]]:
    """The rows of buffer `number` in pseudo-random order, in pieces."""
    order = RowOrder(num_rows=num_rows, seed=seed, epoch=number).rows(0, num_rows)
    for low in range(0, num_rows, 4096):
        places = order[low : low + 4096]
        yield take_block(block, places), len(places)


def _common_length(block: Block) -> int:
    lengths = {name: len(values) for name, values in block.items()}
    first, num_rows = next(iter(lengths.items()))
    for name, length in lengths.items():
        if length != num_rows:
            raise BadColumnError(
                f"Column {name!r} has {length} rows and column {first!r} has {num_rows}; "
                "all columns need the same number.",
                column=name,
            )
    return num_rows


def _all_empty(rows: Mapping[str, Any]) -> bool:
    return bool(rows) and all(_length(values) == 0 for values in rows.values())


def _length(values: Any) -> int | None:
    """The rows of what was given for a column, None if it has none (a single value)."""
    try:
        return len(values)
    except TypeError:
        return None


def _check_options(
    columns: Sequence[Column] | None,
    shard_bytes: int,
    rows_per_shard: int | None,
    shuffle_bytes: int | None,
    shard_format: str,
    metadata: Mapping[str, Any] | None,
) -> None:
    for name, value in (
        ("shard_bytes", shard_bytes),
        ("rows_per_shard", rows_per_shard),
        ("shuffle_bytes", shuffle_bytes),
    ):
        if value is None and name != "shard_bytes":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            optional = "" if name == "shard_bytes" else ", or None"
            raise ValueError(f"{name} is {value!r}; it must be an integer of at least 1{optional}.")
    if shard_format not in ("arrow", "parquet"):
        raise ValueError(f'format is {shard_format!r}; it must be "arrow" or "parquet".')
    names = [column.name for column in columns or ()]
    if columns is not None and (not names or len(set(names)) < len(names)):
        raise BadColumnError(f"The columns {names} were given; a dataset needs at least one, with different names.")
    try:
        json.dumps(dict(metadata or {}), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be a dict of what JSON can hold ({error}).") from error
