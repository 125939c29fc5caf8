"""Gathering rows from mapped shards into arrays: the only code that reads Arrow shards while training.

A shard is mapped, and a column of fixed width is then one array of bytes in which every row of the file, whatever
record batch it lies in, is found by an offset: `first byte of its record batch's values + row · width`. An array "with
an element at every byte" (`elements_at_every_byte`) makes any set of rows of a shard one indexing by numpy, which
copies each row once, from the page cache to where the trainer wants it. So what costs is worked out per batch and not
per row:

1. `_locate`: row ids to record batches and shards (one `searchsorted`), and which rows lie in which shard;
2. `_filled`: per column the offsets (two additions, see `_starts`), and one indexing per shard;
3. columns of variable length: the begin and end of every row are gathered in the same way from the row splits, then the
   runs of bytes between them are copied (`format.runs`).

A mapped file that is cut short ends the process when it is read beyond its end, so the size of a file is looked at
before rows are copied; a file that changed is noticed by its stamp when a pass begins. What lies in row splits is
checked before it is used: a damaged shard is an error, never a read outside of it.

Not done: pyarrow's `take` (it makes Arrow arrays of its own, which would be copied once more), threads for the columns
of a batch (most copies are shorter than the start of a thread), hashes while training (that is `heliostat verify`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ShardError
from ..format.chunks import ChunkTable, Skipped
from ..format.columns import Column, named_columns
from ..format.ipc_shards import MappedShard
from ..format.manifest import Manifest
from ..format.memory import Runs, aligned_empty, copy_runs, elements_at_every_byte, splits_of
from ..format.ragged import Ragged, Values
from ..format.shards import FileStamp, check_shard_size, check_stamp, stamp_of
from ..order.order import RowIds
from .copies import Places, as_rows, by_shard, copy_rows, only_shard
from .reader import Out, Reader, output_array, part_column

_SPLIT_BYTES = 8
_LOOKS_AT_ONCE = 16
_LOOK_AGAIN_S = 0.02


Stamps = Mapping[str, FileStamp | None]
"""What the files were when the dataset was opened: file name -> stamp."""


def stamps_of(folder: Path, manifest: Manifest) -> Stamps:
    """The stamps of all shards as they are now."""
    return {shard.file: stamp_of(folder / shard.file) for shard in manifest.shards}


class _Located(NamedTuple):
    """Some rows and where they lie: their record batches, shards, and the places of the rows of each shard."""

    ids: RowIds
    chunks: RowIds
    shards: RowIds
    groups: Sequence[tuple[int, Places]] | None


class KeptMap(NamedTuple):
    """A mapped shard: what its file was, its bytes, and where every column's values, their end and row splits lie in
    them, int64 [3, record batches]."""

    stamp: FileStamp | None
    data: npt.NDArray[np.uint8]
    places: Mapping[str, npt.NDArray[np.int64]]


class ShardReader(Reader):
    """Rows of some columns of a dataset in Arrow shards.

    Shards are mapped when their first row is asked for and stay mapped until `close`, or as long as `maps` lives, which
    the readers of a dataset share: mapping anew in every pass takes a page fault for every 64 KiB. Arrays that were
    handed out stay valid.

    Args:
        folder: where the shards lie.
        manifest: what they are.
        columns: those to read; None for all.
        skipped: chunks that are left out.
        stamps: of the files when the dataset was opened; None: as they are now.
        maps: shards that are mapped already, by file.
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
        self._folder, self._manifest, self._maps = folder, manifest, maps
        self._chunks = ChunkTable.of(manifest, skipped or {})
        chosen = named_columns(folder, {column.name: column for column in manifest.columns}, columns)
        super().__init__(str(folder), self._chunks.total_rows, chosen)
        self._tensors = [column for column in chosen.values() if not column.is_variable]
        self._variable = [column for column in chosen.values() if column.is_variable]
        self._stamps = stamps_of(folder, manifest) if stamps is None else stamps
        self._is_open = np.zeros(len(manifest.shards), bool)
        self._paths = [str(folder / shard.file) for shard in manifest.shards]
        self._looked_s = np.zeros(len(manifest.shards))
        num_chunks = len(self._chunks.first_rows)
        # Byte offsets in the file for every record batch: the values, their end, the row splits.
        self._places = {name: np.zeros((3, num_chunks), np.int64) for name in chosen}
        self._row_types = {column.name: np.dtype(f"V{column.row_bytes}") for column in self._tensors}
        # Where row 0 would lie if all rows lay as those of a chunk do: a row's place is this and its id.
        self._starts = {name: np.zeros(num_chunks, np.int64) for name in self._row_types}
        self._data: dict[int, npt.NDArray[np.uint8]] = {}
        self._views: dict[int, dict[int, npt.NDArray[np.void]]] = {
            width: {} for width in {_copied_bytes(column) for column in chosen.values()}
        }

    def start_pass(self, *, seed: int, epoch: int) -> None:
        """Look whether the files that were read from are still the same; raises ShardError."""
        for number in np.flatnonzero(self._is_open).tolist():
            self._check_unchanged(number)

    def close(self) -> None:  # noqa: D102
        self._data.clear()
        self._views.clear()
        super().close()

    def gather_checked(self, ids: RowIds, out: Out | None) -> dict[str, Any]:  # noqa: D102
        arrays = {column.name: output_array(column, ids.size, out) for column in self._tensors}
        found = self._filled(self._locate(ids), arrays, self._variable)
        return {name: found[name] for name in self._columns}

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
        shard = only_shard(shards)
        self._look_at_sizes(shards if shard is None else [shard])
        groups = [] if not ids.size else by_shard(shards) if shard is None else [(shard, slice(0, ids.size))]
        return _Located(ids, chunks, shards, groups)

    def _filled(
        self, rows: _Located, arrays: Mapping[str, npt.NDArray[Any]], variable: Sequence[Column]
    ) -> Mapping[str, Values]:
        if rows.ids.size:
            for name, array in arrays.items():
                kind = self._row_types[name]
                offsets = self._starts[name][rows.chunks] + rows.ids * kind.itemsize
                copy_rows(self._views[kind.itemsize], rows.shards, offsets, rows.groups, array.reshape(-1).view(kind))
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
            copy_rows(views, rows.shards, offsets, rows.groups, array.reshape(-1).view(kind))
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
            copy_rows(self._views[2 * _SPLIT_BYTES], rows.shards, places, groups, as_rows(bounds))
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

    def _check_unchanged(self, shard: int) -> None:
        described = self._manifest.shards[shard]
        check_stamp(self._folder, described, self._stamps.get(described.file))

    def _look_at_sizes(self, shards: Sequence[int] | RowIds) -> None:
        """Raise ShardError for a mapped file that was cut short: reading beyond its end would end the process.

        A look takes 1.5 µs. Where a batch has rows of many files, one is looked at again only after 20 ms. A file that
        is cut within them, or between the look and the end of the copy, is not noticed in time.
        """
        if len(shards) > _LOOKS_AT_ONCE:
            now_s = time.monotonic()
            shards = np.unique(shards)
            if len(shards) > _LOOKS_AT_ONCE:
                shards = shards[self._looked_s[shards] < now_s - _LOOK_AGAIN_S]
                self._looked_s[shards] = now_s
            shards = shards.tolist()
        for number in shards:
            shard = self._manifest.shards[number]
            try:
                is_short = os.stat(self._paths[number]).st_size < shard.num_bytes
            except OSError:
                continue  # deleted: what is mapped stays as it was
            if is_short:
                check_shard_size(self._folder, shard)


def _copied_bytes(column: Column) -> int:
    """Bytes per row that are copied as they stand: the row, or its begin and end among the row splits."""
    return 2 * _SPLIT_BYTES if column.is_variable else column.row_bytes
