"""Which shards the coming rows of a pass lie in, worked out a bounded distance ahead (pure)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..order.order import RowIds

# A shard counts as coming until the chunk that has its last row is passed.
_CHUNK_ROWS = 1024
_MAX_ROWS = 1 << 22
_CHUNKS_PER_CALL = 64


class ComingRows(Protocol):
    """The rows of a pass by position: a `RowOrder`, or what a view makes of one."""

    @property
    def num_rows(self) -> int:
        """Positions of the pass."""

    def rows(self, start: int, stop: int) -> RowIds:
        """Row ids at the positions [start, stop)."""


class ShardTable:
    """The shards of a dataset by the first row id of each; shards without rows are left out."""

    def __init__(self, first_rows: npt.NDArray[np.int64], shards: npt.NDArray[np.int64]) -> None:
        self._first_rows, self._shards = first_rows, shards

    def of_rows(self, row_ids: RowIds) -> npt.NDArray[np.int64]:
        """For every row id its shard."""
        return self._shards[np.searchsorted(self._first_rows, row_ids, side="right") - 1]

    def of_all(self) -> npt.NDArray[np.int64]:
        """All shards that have rows."""
        return self._shards


class Lookahead:
    """The shards that will be needed from a position of a pass on, in the order in which they were first needed.

    The order is followed until further shards amount to more than `ahead_bytes`, some thousand rows more with every
    call.
    """

    def __init__(self, order: ComingRows, table: ShardTable, shard_bytes: Sequence[int], ahead_bytes: int) -> None:
        self._order, self._table, self._shard_bytes, self._ahead_bytes = order, table, shard_bytes, ahead_bytes
        self._chunks: deque[tuple[int, list[int]]] = deque()
        self._first = self._end = 0
        self._counts: dict[int, int] = {}
        self._num_bytes, self._is_changed = 0, False
        self._coming: tuple[int, ...] = ()

    def advance(self, position: int) -> tuple[int, ...]:
        """What comes from `position` on; the same object as before if nothing has changed."""
        if not self._first <= position <= self._end:
            self._chunks.clear()
            self._counts.clear()
            self._num_bytes, self._end = 0, position
            self._coming = ()
        self._first, self._is_changed = position, False
        while self._chunks and self._chunks[0][0] <= position:
            self._drop(self._chunks.popleft()[1])
        for _ in range(_CHUNKS_PER_CALL):
            if not self._may_extend(position):
                break
            self._extend()
        if self._is_changed:
            self._coming = tuple(self._counts)
        return self._coming

    def _may_extend(self, position: int) -> bool:
        return (
            self._end < self._order.num_rows
            and self._num_bytes <= self._ahead_bytes
            and self._end - position < _MAX_ROWS
        )

    def _extend(self) -> None:
        stop = min(self._end + _CHUNK_ROWS, self._order.num_rows)
        found, first = np.unique(self._table.of_rows(self._order.rows(self._end, stop)), return_index=True)
        shards = found[np.argsort(first)].tolist()
        for shard in shards:
            if shard not in self._counts:
                self._num_bytes += self._shard_bytes[shard]
                self._is_changed = True
            self._counts[shard] = self._counts.get(shard, 0) + 1
        self._chunks.append((stop, shards))
        self._end = stop

    def _drop(self, shards: Sequence[int]) -> None:
        for shard in shards:
            self._counts[shard] -= 1
            if not self._counts[shard]:
                del self._counts[shard]
                self._is_changed = True
                self._num_bytes -= self._shard_bytes[shard]
