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

from ..format.chunks import ChunkTable, Skipped
from ..format.columns import named_columns
from ..format.manifest import Manifest
from ..format.shards import FileStamp, Values, check_shard_size, check_stamp, stamp_of
from ..order.order import RowIds
from .reader import Out, Reader, output_array

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
        self._chunks = ChunkTable.of(manifest, skipped or {})
        chosen = named_columns(folder, {column.name: column for column in manifest.columns}, columns)
        super().__init__(str(folder), self._chunks.total_rows, chosen)
        self._tensors = [column for column in chosen.values() if not column.is_variable]
        self._stamps = stamps_of(folder, manifest) if stamps is None else stamps
        self._is_open = np.zeros(len(manifest.shards), bool)
        self._paths = [str(folder / shard.file) for shard in manifest.shards]
        self._looked_s = np.zeros(len(manifest.shards))

    def start_pass(self, *, seed: int, epoch: int) -> None:
        """Look whether the files that were read from are still the same; raises ShardError."""
        for number in np.flatnonzero(self._is_open).tolist():
            self._check_unchanged(number)

    def gather_checked(self, ids: RowIds, out: Out | None) -> dict[str, Any]:  # noqa: D102
        arrays = {column.name: output_array(column, ids.size, out) for column in self._tensors}
        found = self._fill(ids, arrays)
        return {name: found[name] for name in self._columns}

    @abstractmethod
    def _fill(self, ids: RowIds, arrays: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, Values]:
        """Fill the arrays of the tensor columns; return all columns, those of variable length in new memory."""

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
