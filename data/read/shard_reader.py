"""Gathering rows from mapped shards into arrays: the only code that reads Arrow shards while training."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ShardError
from ..format.chunks import Skipped
from ..format.ipc_shards import MappedShard
from ..format.manifest import Column, Manifest
from ..format.memory import aligned_empty
from ..format.ragged import Ragged, splits_of
from ..format.runs import Runs, copy_runs, elements_at_every_byte
from ..format.shards import FileStamp, Values, stamp_of
from ..order.order import RowIds
from .reader import Out, output_array, part_column
from .stored_reader import Stamps, StoredReader

# Rows pass through a temporary array, which should stay in the processor's cache.
_COPY_BYTES = 256 << 10
# With fewer rows than this per shard, indexing shard by shard costs more than row by row (measured).
_ROWS_PER_GROUP = 8
_SPLIT_BYTES = 8

_Places = slice | npt.NDArray[np.int64]


class _Located(NamedTuple):
    """Some rows and where they lie: their record batches, shards, and the places of the rows of each shard."""

    ids: RowIds
    chunks: RowIds
    shards: RowIds
    groups: Sequence[tuple[int, _Places]] | None


class KeptMap(NamedTuple):
    """A mapped shard: what its file was, its bytes, and where every column's values, their end and row splits lie in
    them, int64 [3, record batches]."""

    stamp: FileStamp | None
    data: npt.NDArray[np.uint8]
    places: Mapping[str, npt.NDArray[np.int64]]


class ShardReader(StoredReader):
    """Rows of some columns of a dataset in Arrow shards.

    Shards are mapped when their first row is asked for and stay mapped until `close`, or as long as `maps` lives, which
    the readers of a dataset share: mapping anew in every pass takes a page fault for every 64 KiB. Arrays that were
    handed out stay valid.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        columns: Sequence[str] | None = None,
        *,
        skipped: Skipped | None = None,
        stamps: Stamps | None = None,
        maps: dict[str, KeptMap] | None = None,
    ) -> None:
        super().__init__(folder, manifest, columns, skipped=skipped, stamps=stamps)
        num_chunks = len(self._chunks.first_rows)
        # Byte offsets in the file for every record batch: the values, their end, the row splits.
        self._places = {name: np.zeros((3, num_chunks), np.int64) for name in self._columns}
        self._variable = [column for column in self._columns.values() if column.is_variable]
        self._row_types = {column.name: np.dtype(f"V{column.row_bytes}") for column in self._tensors}
        # Where row 0 would lie if all rows lay as those of a chunk do: a row's place is this and its id.
        self._starts = {name: np.zeros(num_chunks, np.int64) for name in self._row_types}
        self._maps = maps
        self._data: dict[int, npt.NDArray[np.uint8]] = {}
        self._views: dict[int, dict[int, npt.NDArray[np.void]]] = {
            width: {} for width in {_copied_bytes(column) for column in self._columns.values()}
        }

    def close(self) -> None:  # noqa: D102
        self._data.clear()
        self._views.clear()
        super().close()

    def _fill(self, ids: RowIds, arrays: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, Values]:
        return self._filled(self._locate(ids), arrays, self._variable)

    def gather_parts_checked(  # noqa: D102
        self, ids: RowIds, starts: RowIds, length: int, names: Collection[str], out: Out | None
    ) -> dict[str, Any]:
        rows = self._locate(ids)
        arrays = {c.name: output_array(c, ids.size, out) for c in self._tensors if c.name not in names}
        found = dict(self._filled(rows, arrays, [column for column in self._variable if column.name not in names]))
        for name in names:
            found[name] = self._parts(rows, self._columns[name], starts, length, out)
        return {name: found[name] for name in self._columns}

    def _locate(self, ids: RowIds) -> _Located:
        """Map the shards of these rows and find the rows in them."""
        chunks = self._chunks.of_rows(ids)
        shards = self._chunks.shards[chunks]
        self._map(shards)
        shard = _only(shards)
        self._look_at_sizes(shards if shard is None else [shard])
        groups = [] if not ids.size else _group(shards) if shard is None else [(shard, slice(0, ids.size))]
        return _Located(ids, chunks, shards, groups)

    def _filled(
        self, rows: _Located, arrays: Mapping[str, npt.NDArray[Any]], variable: Sequence[Column]
    ) -> Mapping[str, Values]:
        if rows.ids.size:
            for name, array in arrays.items():
                kind = self._row_types[name]
                offsets = self._starts[name][rows.chunks] + rows.ids * kind.itemsize
                _copy(self._views[kind.itemsize], rows.shards, offsets, rows.groups, array.reshape(-1).view(kind))
        return {**arrays, **{column.name: self._ragged(column, rows) for column in variable}} if variable else arrays

    def _parts(self, rows: _Located, column: Column, starts: RowIds, length: int, out: Out | None) -> npt.NDArray[Any]:
        """The elements from `starts[i]` on, `length` of them, of every row i; nothing else is copied."""
        part = part_column(column, length)
        array, kind = output_array(part, rows.ids.size, out), np.dtype(f"V{part.row_bytes}")
        if column.is_variable:
            firsts, lengths = self._runs(column, rows)
            if (starts + length > lengths).any():
                place = int(np.argmax(starts + length > lengths))
                within = rows.ids[place] - self._chunks.first_rows[rows.chunks[place]]
                raise self._bad_splits(column, int(rows.chunks[place]), int(within))
        else:
            firsts = self._starts[column.name][rows.chunks] + rows.ids * column.row_bytes
        if rows.ids.size:
            views = {
                number: elements_at_every_byte(self._data[number], kind.itemsize)
                for number in np.unique(rows.shards).tolist()
            }
            offsets = firsts + starts * (part.row_bytes // length)
            _copy(views, rows.shards, offsets, rows.groups, array.reshape(-1).view(kind))
        return array

    def _ragged(self, column: Column, rows: _Located) -> Ragged:
        first_bytes, lengths = self._runs(column, rows)
        row_splits = splits_of(lengths)
        out = aligned_empty((int(row_splits[-1]), *column.shape), column.dtype)
        copy_runs(self._data, Runs(rows.shards, first_bytes, lengths, column.element_bytes), row_splits, out)
        return Ragged(out, row_splits, column.kind)

    def _runs(self, column: Column, rows: _Located) -> tuple[RowIds, RowIds]:
        """The first byte in its file, and the number of elements, of every row of a column of variable length."""
        chunks, groups = rows.chunks, rows.groups
        within = rows.ids - self._chunks.first_rows[chunks]
        values, ends, splits = self._places[column.name]
        bounds = np.empty((len(chunks), 2), np.int64)
        if len(chunks):
            places = splits[chunks] + within * _SPLIT_BYTES
            _copy(self._views[2 * _SPLIT_BYTES], rows.shards, places, groups, _as_rows(bounds))
        lengths = bounds[:, 1] - bounds[:, 0]
        first_bytes = values[chunks] + bounds[:, 0] * column.element_bytes
        num_elements = (ends - values) // column.element_bytes
        fits = (bounds[:, 0] >= 0) & (lengths >= 0) & (bounds[:, 1] <= num_elements[chunks])
        if not fits.all():
            raise self._bad_splits(column, int(chunks[~fits][0]), int(within[~fits][0]))
        return first_bytes, lengths

    def _map(self, shards: RowIds) -> None:
        if self._is_open[shards].all():
            return
        for number in np.unique(shards[~self._is_open[shards]]).tolist():
            self._check_unchanged(number)
            kept = self._mapped(number)
            chunks = self._chunks.of_shard(number)
            for name in self._columns:
                self._places[name][:, chunks] = kept.places[name][:, self._chunks.numbers[chunks]]
            for name, kind in self._row_types.items():
                first_rows = self._chunks.first_rows[chunks]
                self._starts[name][chunks] = self._places[name][0, chunks] - first_rows * kind.itemsize
            for width, views in self._views.items():
                views[number] = elements_at_every_byte(kept.data, width)
            self._data[number] = kept.data
            self._is_open[number] = True

    def _mapped(self, number: int) -> KeptMap:
        """A shard in memory: the kept one if its file is still the same."""
        shard, maps = self._manifest.shards[number], {} if self._maps is None else self._maps
        kept, stamp = maps.get(shard.file), stamp_of(self._folder / shard.file)
        if kept is None or stamp is None or kept.stamp != stamp:
            manifest = self._manifest
            mapped = MappedShard(self._folder, shard, manifest.columns, manifest.chunk_rows(shard))
            places = {name: np.array(found, np.int64).T for name, found in mapped.column_places().items()}
            kept = maps[shard.file] = KeptMap(stamp, mapped.data, places)
        return kept

    def _bad_splits(self, column: Column, chunk: int, row: int) -> ShardError:
        shard = self._manifest.shards[int(self._chunks.shards[chunk])]
        return ShardError(
            f"Shard {shard.file} of dataset {self._folder} is damaged: row {row} of record batch "
            f"{self._chunks.numbers[chunk]} says that its values of column {column.name!r} lie outside of that batch. "
            "Run heliostat verify, and copy or write the dataset again.",
            path=self._folder / shard.file,
            column=column.name,
        )


def _copied_bytes(column: Column) -> int:
    """Bytes per row that are copied as they stand: the row, or its begin and end among the row splits."""
    return 2 * _SPLIT_BYTES if column.is_variable else column.row_bytes


def _as_rows(array: npt.NDArray[Any]) -> npt.NDArray[np.void]:
    flat = array.reshape(len(array), -1)
    return flat.view(f"V{flat.shape[1] * flat.itemsize}")[:, 0]


def _only(shards: RowIds) -> int | None:
    """The shard of all these rows; None if there are several, or no rows."""
    return int(shards[0]) if shards.size and shards[0] == shards[-1] and (shards == shards[0]).all() else None


def _group(shards: npt.NDArray[np.int64]) -> list[tuple[int, _Places]] | None:
    """(shard, places of its rows), or None if one by one is quicker because the shards have too few rows each."""
    by_shard = np.argsort(shards, kind="stable")
    cuts = np.flatnonzero(np.diff(shards[by_shard])) + 1
    if (cuts.size + 1) * _ROWS_PER_GROUP > shards.size:
        return None
    return [(int(shards[places[0]]), places) for places in np.split(by_shard, cuts)]


def _copy(
    views: Mapping[int, npt.NDArray[np.void]],
    shards: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    groups: Sequence[tuple[int, _Places]] | None,
    target: npt.NDArray[np.void],
) -> None:
    if groups is None:
        for place, (shard, offset) in enumerate(zip(shards.tolist(), offsets.tolist(), strict=True)):
            target[place] = views[shard][offset]
        return
    for shard, group in groups:
        if target.nbytes <= _COPY_BYTES:
            target[group] = views[shard][offsets[group]]
            continue
        for places in _parts(group, max(1, _COPY_BYTES // target.itemsize)):
            target[places] = views[shard][offsets[places]]


def _parts(group: _Places, length: int) -> Iterator[_Places]:
    if isinstance(group, slice):
        for low in range(group.start, group.stop, length):
            yield slice(low, min(low + length, group.stop))
    else:
        for low in range(0, group.size, length):
            yield group[low : low + length]
