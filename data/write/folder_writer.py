"""Writing a dataset into a folder, piece by piece, in bounded memory, all or nothing.

Rows of any kind become Arrow arrays (`arrow_of`), are cast exactly to what is stored (`as_stored`), cut into record
batches (`cut`) and written (`shard_sequence`). A finished shard is noted in a journal beside it, with what was changed
in its rows, so another process goes on behind the last one. The folder gets its name by a rename when all is on the
disk. Writing to the final name with a manifest last was not taken: a reader would see half a dataset of old files and
new ones when a dataset is replaced.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from ..errors import BadColumnError
from ..format.account import Account
from ..format.arrow import arrow_of, as_stored
from ..format.arrow_types import arrow_schema
from ..format.columns import Column, column_to_json
from ..format.manifest import Manifest, write_manifest
from ..order.order import RowOrder
from .commit import check_target, put_in_place
from .cut import RowQueue
from .given import all_empty, check_alike, check_different, check_names, first_column
from .journal import Journal
from .shard_sequence import ShardSequence

SHARD_BYTES = 64 << 20
_SHUFFLE_ROWS = 1 << 62  # no limit: a buffer is full by its bytes
_SHUFFLED_TOGETHER = 4096

Rows: TypeAlias = Mapping[str, Any] | pa.RecordBatch | pa.Table
"""Rows of all columns: arrays [rows, *shape], lists of numbers, str, bytes or arrays, `Ragged`, or Arrow data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How a dataset is written: the options of `DatasetWriter`, which says what they mean; raises as that does."""

    columns: Sequence[Column] | None = None
    shard_bytes: int = SHARD_BYTES
    rows_per_shard: int | None = None
    shuffle_seed: int | None = None
    shuffle_bytes: int | None = None
    fill_nulls: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_size("shard_bytes", self.shard_bytes)
        for name in ("rows_per_shard", "shuffle_bytes"):
            if getattr(self, name) is not None:
                _check_size(name, getattr(self, name), ", or None")
        names = [column.name for column in self.columns or ()]
        if self.columns is not None and (not names or len(set(names)) < len(names)):
            raise BadColumnError(f"The columns {names} were given; a dataset needs at least one, with different names.")
        try:
            json.dumps(dict(self.metadata), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"metadata must be a dict of what JSON can hold ({error}).") from error

    def to_json(self) -> dict[str, Any]:
        """What must be equal for a writer to go on where another one stopped."""
        seed = self.shuffle_seed
        return {
            "columns": None if self.columns is None else [column_to_json(column) for column in self.columns],
            "shard_bytes": self.shard_bytes,
            "rows_per_shard": self.rows_per_shard,
            "format": "arrow",
            "shuffle_seed": seed,
            "shuffle_bytes": None if seed is None else self.buffer_bytes,
            "fill_nulls": {name: repr(value) for name, value in self.fill_nulls.items()},
            "metadata": dict(self.metadata),
        }

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the rows that are shuffled together."""
        return self.shuffle_bytes or 4 * self.shard_bytes


def _check_size(name: str, value: object, optional: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least 1{optional}.")


class FolderWriter:
    """Writes a dataset to a folder that appears at `target` complete or not at all.

    With `resume` it goes on from what an interrupted writer with the same options left beside the target, and leaves it
    to the next one after an error. `account` is what is known to be left out or changed; what is filled and rounded
    here is added to it. Raises DatasetExistsError, BadColumnError, OSError.
    """

    def __init__(
        self,
        target: Path,
        writing: Writing,
        *,
        overwrite: bool = False,
        resume: bool = False,
        account: Account | None = None,
    ) -> None:
        self._target, self._writing, self._overwrite, self._resume = target, writing, overwrite, resume
        self.account = Account() if account is None else account
        self.manifest: Manifest | None = None
        self._columns: dict[str, Column] | None = None
        self._names: tuple[str, ...] = ()
        check_target(target, overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._journal = Journal.begin(target, writing.to_json(), resume=resume)
        self.is_open = True
        progress = self._journal.progress
        self.account.restore(progress.account)
        self.rows_done = self.rows_written = progress.rows_done
        self._buffers_done = progress.buffers_done
        if writing.columns is not None or progress.columns is not None:
            self._begin(writing.columns or progress.columns or ())

    def write(self, rows: Rows) -> None:
        """Append rows of all columns, equal in number; their memory may be used again afterwards.

        Raises BadColumnError for columns of other names, kinds, dtypes or lengths, for missing values and for those
        that cannot be stored as they are, ValueError after `close`, OSError.
        """
        self._check_open()
        if isinstance(rows, pa.Table | pa.RecordBatch):
            check_different(rows.schema.names)
            for batch in rows.to_batches() if isinstance(rows, pa.Table) else [rows]:
                self._write(dict(zip(batch.schema.names, batch.columns, strict=True)))
        else:
            self._write(rows)

    def close(self) -> Manifest:
        """Write what is left and put the dataset in its place; raises BadColumnError if there are no rows."""
        self._check_open()
        try:
            return self._finish()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Stop without a dataset; what is finished is kept for the next writer only with `resume`."""
        if not self.is_open:
            return
        self.is_open = False
        if self._columns is not None:
            self._shards.abandon()
        self._journal.close()
        if not self._resume:
            shutil.rmtree(self._journal.folder, ignore_errors=True)

    def _check_open(self) -> None:
        if not self.is_open:
            raise ValueError(f"The writer of dataset {self._target} is closed; make another.")

    def _begin(self, columns: Sequence[Column]) -> None:
        """What can be made when the columns are known: declared ones, those of the journal, or of the first rows."""
        if not columns:
            raise BadColumnError("A dataset needs at least one column; none was given.")
        if self._journal.progress.columns is None:
            self._journal.set_columns(tuple(columns))
        self._schema = arrow_schema(columns)
        self._shards = ShardSequence(
            self._journal,
            columns,
            self.account,
            shard_bytes=self._writing.shard_bytes,
            num_rows=self._writing.rows_per_shard,
        )
        self._buffer = RowQueue(columns)
        self._columns = {column.name: column for column in columns}  # last: `abort` takes it for all of these

    def _write(self, rows: Mapping[str, Any]) -> None:
        """Append rows; nothing of them is taken if a column is refused, so a caller may leave them out and go on."""
        if self._columns is None and all_empty(rows):
            # An empty list says nothing about the kind of its column.
            self._names = self._names or tuple(rows)
            return
        given = {name: arrow_of(name, values) for name, values in rows.items()}
        if self._columns is None:
            self._begin([first_column(name, array, rows[name]) for name, array in given.items()])
        batch = self._stored(self._columns or {}, given, rows)
        self.rows_written += batch.num_rows
        if self._writing.shuffle_seed is None:
            self._shards.write(batch)
            return
        self._buffer.push(batch)
        self._shuffle(at_end=False)
        self._buffer.keep()

    def _stored(
        self, columns: Mapping[str, Column], given: Mapping[str, pa.Array], rows: Mapping[str, Any]
    ) -> pa.RecordBatch:
        """The record batch of the rows as they are stored."""
        check_names(columns, given)
        arrays = []
        # By itself, until the rows are taken: a caller may go on after a refusal.
        account = Account()
        for name, column in columns.items():
            check_alike(column, given[name], rows[name])
            fill = self._writing.fill_nulls.get(name)
            arrays.append(as_stored(column, given[name], first_row=self.rows_written, fill=fill, account=account))
            if len(arrays[-1]) != len(arrays[0]):
                raise BadColumnError(
                    f"Column {name!r} has {len(arrays[-1])} rows and column {next(iter(columns))!r} has "
                    f"{len(arrays[0])}; all columns need the same number.",
                    column=name,
                )
        self.account.add_all(account)
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _shuffle(self, *, at_end: bool) -> None:
        """Write the buffers that are full, in an order of their own; a shard ends with each, to go on from there."""
        while (popped := self._buffer.pop(_SHUFFLE_ROWS, self._writing.buffer_bytes, at_end=at_end)) is not None:
            # Inside of a buffer there is no place to go on from: its rows come from everywhere in it.
            for part in _shuffled(popped[0], self._writing.shuffle_seed or 0, self._buffers_done):
                self._shards.write(part, is_resumable=False)
            self._buffers_done += 1
            self._shards.end_shard(self._buffers_done)

    def _finish(self) -> Manifest:
        """The manifest, the last file of the folder, and the rename: only now there is a dataset."""
        columns = self._columns or {}
        if not self.rows_written:
            first = next(iter(columns or self._names), None)
            raise BadColumnError(
                "A dataset needs at least one row; nothing was written."
                if first is None
                else f"Column {first!r} has 0 rows; a dataset needs at least one.",
                column=first,
            )
        if self._writing.shuffle_seed is not None:
            self._shuffle(at_end=True)
        progress = self._shards.finish()
        statistics = progress.statistics or {}
        # Told at the end, with what is known of all rows: an interrupted writer would tell them twice.
        for name, known in statistics.items():
            if known.nans is not None:
                detail = f"NaN, the first in row {known.nans.first_row} of the dataset; a loss over it is NaN too"
                self.account.add("noticed", name, count=known.nans.count, detail=detail)
        self.manifest = Manifest(
            columns=tuple(columns.values()),
            shards=progress.shards,
            rows_per_batch=self._shards.rows_per_batch,
            statistics=statistics,
            metadata=dict(self._writing.metadata),
            account=self.account.entries,
        )
        write_manifest(self._journal.folder, self.manifest)
        check_target(self._target, self._overwrite)
        self._journal.close(remove=True)
        put_in_place(self._journal.folder, self._target, self._overwrite)
        self.is_open = False
        return self.manifest


def _shuffled(batch: pa.RecordBatch, seed: int, number: int) -> Iterator[pa.RecordBatch]:
    """The rows of buffer `number` in pseudo-random order, in pieces."""
    order = RowOrder(num_rows=batch.num_rows, seed=seed, epoch=number).rows(0, batch.num_rows)
    for low in range(0, batch.num_rows, _SHUFFLED_TOGETHER):
        yield batch.take(pa.array(order[low : low + _SHUFFLED_TOGETHER]))
