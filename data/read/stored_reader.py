"""What the readers of stored datasets share: which rows and columns may be asked for, and into what."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import RowError
from ..format.chunks import ChunkTable, Skipped
from ..format.columns import named_columns
from ..format.manifest import Column, Manifest
from ..format.memory import aligned_empty
from ..format.shards import FileStamp, Values, check_shard_size, check_stamp, stamp_of
from ..order.order import RowIds
from .reader import Reader, output_array

_LOOKS_AT_ONCE = 16
_LOOK_AGAIN_S = 0.02

Stamps = Mapping[str, FileStamp | None]
"""What the files were when the dataset was opened: file name -> stamp."""


def stamps_of(folder: Path, manifest: Manifest) -> Stamps:
    """The stamps of all shards as they are now."""
    return {shard.file: stamp_of(folder / shard.file) for shard in manifest.shards}


class StoredReader(Reader):
    """Rows of some columns of a stored dataset."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        columns: Sequence[str] | None = None,
        *,
        skipped: Skipped | None = None,
        stamps: Stamps | None = None,
    ) -> None:
        self._folder, self._manifest = folder, manifest
        self._columns = named_columns(folder, {column.name: column for column in manifest.columns}, columns)
        self._tensors = [(n, c.shape, c.dtype) for n, c in self._columns.items() if not c.is_variable]
        self._chunks = ChunkTable.of(manifest, skipped or {})
        self._num_rows = self._chunks.total_rows
        self._stamps = stamps_of(folder, manifest) if stamps is None else stamps
        self._is_open = np.zeros(len(manifest.shards), bool)
        self._closed = False
        self._paths = [str(folder / shard.file) for shard in manifest.shards]
        self._looked_s = np.zeros(len(manifest.shards))

    @property
    def columns(self) -> Mapping[str, Column]:  # noqa: D102
        return self._columns

    def start_pass(self, *, seed: int, epoch: int) -> None:
        """Look whether the files that were read from are still the same; raises ShardError."""
        for number in np.flatnonzero(self._is_open).tolist():
            self._check_unchanged(number)

    def gather(  # noqa: D102
        self, row_ids: npt.NDArray[np.int64], out: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> dict[str, Any]:
        ids = self._checked_ids(row_ids)
        found = self._fill(ids, self._new_arrays(ids.size) if out is None else self._checked_buffers(out, ids.size))
        return {name: found[name] for name in self._columns}

    def _new_arrays(self, num_rows: int) -> dict[str, npt.NDArray[Any]]:
        """Uninitialised arrays of the tensor columns."""
        return {name: aligned_empty((num_rows, *shape), dtype) for name, shape, dtype in self._tensors}

    def _checked_buffers(self, out: Mapping[str, npt.NDArray[Any]], num_rows: int) -> dict[str, npt.NDArray[Any]]:
        return {name: output_array(self._columns[name], num_rows, out) for name, _, _ in self._tensors}

    @abstractmethod
    def _fill(self, ids: RowIds, arrays: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, Values]:
        """Fill the arrays of the tensor columns; return all columns, those of variable length in new memory."""

    def close(self) -> None:  # noqa: D102
        self._closed = True

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

    def _check_not_closed(self) -> None:
        if self._closed:
            raise ValueError(f"The reader of dataset {self._folder} is closed; make another with dataset.reader().")

    def _checked_ids(self, row_ids: npt.NDArray[np.int64]) -> RowIds:
        self._check_not_closed()
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
