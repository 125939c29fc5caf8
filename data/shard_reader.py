"""Gathering rows from mapped shards into arrays: the only code that reads stored data while training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from heliostat.data.errors import RowError, UnknownColumnError
from heliostat.data.manifest import Column, Manifest
from heliostat.data.order import RowIds
from heliostat.data.reader import Reader, aligned_empty
from heliostat.data.shards import MappedShard

# Rows pass through a temporary array, which should stay in the processor's cache.
_COPY_BYTES = 1 << 20
# With fewer rows than this per shard, indexing shard by shard costs more than row by row (measured).
_ROWS_PER_GROUP = 8

_Places = slice | npt.NDArray[np.int64]


class ShardReader(Reader):
    """Rows of some columns of a stored dataset.

    Shards are mapped when their first row is asked for and stay mapped until `close`; arrays that were handed out stay
    valid.
    """

    def __init__(self, folder: Path, manifest: Manifest, columns: Sequence[str] | None = None) -> None:
        self._folder, self._manifest = folder, manifest
        self._columns = select_columns(folder, manifest, columns)
        self._num_rows = manifest.num_rows
        first_rows, shard_numbers = _record_batches(manifest)
        self._batch_first_row, self._batch_shard = first_rows, shard_numbers
        self._is_mapped = np.zeros(len(manifest.shards), bool)
        self._views: dict[str, dict[int, npt.NDArray[np.void]]] = {name: {} for name in self._columns}
        self._batch_offset = {name: np.zeros(len(first_rows), np.int64) for name in self._columns}
        self._closed = False

    @property
    def columns(self) -> Mapping[str, Column]:  # noqa: D102
        return self._columns

    def gather(  # noqa: D102
        self, row_ids: npt.NDArray[np.int64], out: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        ids = self._checked_ids(row_ids)
        if out is None:
            arrays = {name: aligned_empty((ids.size, *c.shape), c.dtype) for name, c in self._columns.items()}
        else:
            arrays = {name: self._checked_buffer(column, out, ids.size) for name, column in self._columns.items()}
        if not ids.size:
            return arrays
        batches = np.searchsorted(self._batch_first_row, ids, side="right") - 1
        shards = self._batch_shard[batches]
        self._map(shards)
        groups = _group(shards)
        within = ids - self._batch_first_row[batches]
        for name, column in self._columns.items():
            offsets = self._batch_offset[name][batches] + within * column.row_bytes
            _copy(self._views[name], shards, offsets, groups, _as_rows(arrays[name]))
        return arrays

    def close(self) -> None:  # noqa: D102
        self._views.clear()
        self._closed = True

    def _map(self, shards: npt.NDArray[np.int64]) -> None:
        if self._is_mapped[shards].all():
            return
        manifest = self._manifest
        for number in np.unique(shards[~self._is_mapped[shards]]).tolist():
            mapped = MappedShard(self._folder, manifest.shards[number], manifest.columns, manifest.rows_per_batch)
            starts = mapped.column_starts()
            low = int(np.searchsorted(self._batch_shard, number))
            for name, column in self._columns.items():
                self._batch_offset[name][low : low + len(starts[name])] = starts[name]
                self._views[name][number] = mapped.rows_at_every_byte(column)
            self._is_mapped[number] = True

    def _checked_ids(self, row_ids: npt.NDArray[np.int64]) -> RowIds:
        if self._closed:
            raise ValueError(f"The reader of dataset {self._folder} is closed; make another with dataset.reader().")
        ids = np.asarray(row_ids)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise RowError(
                f"Row ids must be a vector of integers; got {ids.dtype} of shape {ids.shape}.", path=self._folder
            )
        if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= self._num_rows):
            raise RowError(
                f"Row ids {ids.min()} to {ids.max()} were asked of dataset {self._folder}, which has rows 0 to "
                f"{self._num_rows - 1}. They were probably computed for another dataset.",
                path=self._folder,
            )
        return ids.astype(np.int64, copy=False)

    def _checked_buffer(self, column: Column, out: Mapping[str, npt.NDArray[Any]], num_rows: int) -> npt.NDArray[Any]:
        array, shape = out.get(column.name), (num_rows, *column.shape)
        if array is None:
            raise RowError(f"No output array was given for column {column.name!r}.", column=column.name)
        if (
            array.shape != shape
            or array.dtype != column.dtype
            or not (array.flags.c_contiguous and array.flags.writeable)
        ):
            raise RowError(
                f"The output array of column {column.name!r} must be a writeable C-contiguous {column.dtype} {shape}; "
                f"got {array.dtype} {array.shape} "
                f"(contiguous: {array.flags.c_contiguous}, writeable: {array.flags.writeable}).",
                column=column.name,
            )
        return array


def select_columns(folder: Path, manifest: Manifest, names: Sequence[str] | None) -> dict[str, Column]:
    """The named columns of a dataset, all for None; raises UnknownColumnError for others and for none at all."""
    known = {column.name: column for column in manifest.columns}
    if names is None:
        return known
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted or ["(none)"]:
        if name not in known:
            raise UnknownColumnError(
                f"Dataset {folder} has no column {name!r}; it has {', '.join(map(repr, known))}.",
                path=folder,
                column=str(name),
            )
    return {name: known[name] for name in wanted}


def _as_rows(array: npt.NDArray[Any]) -> npt.NDArray[np.void]:
    flat = array.reshape(len(array), -1)
    return flat.view(f"V{flat.shape[1] * flat.itemsize}")[:, 0]


def _record_batches(manifest: Manifest) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For every record batch of the dataset its first row and the number of its shard."""
    first_rows, shard_numbers, first_row = [], [], 0
    for number, shard in enumerate(manifest.shards):
        starts = np.arange(first_row, first_row + shard.num_rows, manifest.rows_per_batch, dtype=np.int64)
        first_rows.append(starts)
        shard_numbers.append(np.full(starts.size, number, np.int64))
        first_row += shard.num_rows
    return np.concatenate(first_rows), np.concatenate(shard_numbers)


def _group(shards: npt.NDArray[np.int64]) -> list[tuple[int, _Places]] | None:
    """(shard, places of its rows), or None if one by one is quicker because the shards have too few rows each."""
    if shards[0] == shards[-1] and (shards == shards[0]).all():
        return [(int(shards[0]), slice(0, shards.size))]
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
        for places in _parts(group, max(1, _COPY_BYTES // target.itemsize)):
            target[places] = views[shard][offsets[places]]


def _parts(group: _Places, length: int) -> Iterator[_Places]:
    if isinstance(group, slice):
        for low in range(group.start, group.stop, length):
            yield slice(low, min(low + length, group.stop))
    else:
        for low in range(0, group.size, length):
            yield group[low : low + length]
