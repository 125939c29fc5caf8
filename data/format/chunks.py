"""The chunks of a dataset: the record batches or row groups that its rows lie in, in row order.

A row id says nothing about files; this table leads from one to the other. It knows only numbers of the manifest, so it
is made before any file is opened. Where damaged chunks are left out (`on_corrupt="skip"`), the rows behind them move
up: row ids always run from 0 without gaps, and what is left has an order of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from .manifest import Manifest

Skipped = Mapping[str, tuple[int, ...]]
"""Chunks that are left out because they are damaged: file name -> their numbers in that file."""


@dataclass(frozen=True, eq=False)
class ChunkTable:
    """For every chunk, int64 [chunks]: its first row and number of rows, its shard, and its number in that shard."""

    first_rows: npt.NDArray[np.int64]
    num_rows: npt.NDArray[np.int64]
    shards: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]

    @classmethod
    def of(cls, manifest: Manifest, skipped: Skipped) -> Self:
        """The chunks of a dataset without those that are skipped and those that hold no row."""
        counts = [np.array(manifest.chunk_rows(shard), np.int64) for shard in manifest.shards]
        shards = np.repeat(np.arange(len(counts)), [rows.size for rows in counts])
        numbers = np.concatenate([np.arange(rows.size) for rows in counts])
        rows = np.concatenate(counts)
        kept = rows > 0
        places = {shard.file: number for number, shard in enumerate(manifest.shards)}
        for file, chunk_numbers in skipped.items():
            kept &= ~((shards == places[file]) & np.isin(numbers, chunk_numbers))
        rows, shards, numbers = rows[kept], shards[kept], numbers[kept]
        return cls(np.cumsum(rows) - rows, rows, shards, numbers)

    @property
    def total_rows(self) -> int:
        """Rows of all chunks."""
        return int(self.num_rows.sum())

    def of_rows(self, row_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """For every row id the place of its chunk in the table."""
        if self._rows_each:
            return row_ids // self._rows_each  # a tenth of the time
        return np.searchsorted(self.first_rows, row_ids, side="right") - 1

    @cached_property
    def _rows_each(self) -> int:
        """Rows of every chunk but the last, which has no more; 0 if they differ."""
        if not self.num_rows.size:
            return 0
        most = int(self.num_rows[0])
        return most if (self.num_rows[:-1] == most).all() and self.num_rows[-1] <= most else 0

    def of_shard(self, shard: int) -> slice:
        """The places of a shard's chunks."""
        low, high = np.searchsorted(self.shards, [shard, shard + 1]).tolist()
        return slice(low, high)
