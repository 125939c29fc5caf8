"""Rows on their way into a dataset: blocks of columns, and a queue that cuts them anew by rows and bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..format.columns import Column
from ..format.ragged import Ragged
from ..format.shards import Values

Block = Mapping[str, Values]
"""Some rows of all columns, values by column name."""


def slice_block(block: Block, low: int, high: int) -> Block:
    """Rows `low` to `high` (not included), sharing memory."""
    return {name: part.slice(low, high) if isinstance(part, Ragged) else part[low:high] for name, part in block.items()}


def take_block(block: Block, places: npt.NDArray[np.int64]) -> Block:
    """The rows at these places, in that order, in new memory."""
    return {name: part.take(places) if isinstance(part, Ragged) else part[places] for name, part in block.items()}


def join_blocks(blocks: Sequence[Block], columns: Sequence[Column]) -> Block:
    """All rows as one block of C-contiguous native values, without a copy where they are that already."""
    return {column.name: _joined([block[column.name] for block in blocks], column) for column in columns}


def _joined(parts: Sequence[Values], column: Column) -> Values:
    ragged = [part for part in parts if isinstance(part, Ragged)]
    if ragged:
        joined = ragged[0] if len(ragged) == 1 else Ragged.concatenate(ragged)
        splits = np.ascontiguousarray(joined.row_splits, np.int64)
        values = joined.values[splits[0] : splits[-1]]
        return Ragged(np.ascontiguousarray(values, column.dtype), splits - splits[0], column.kind)
    arrays = [part for part in parts if not isinstance(part, Ragged)]
    if len(arrays) == 1:
        return np.ascontiguousarray(arrays[0], column.dtype)
    return np.concatenate(arrays, dtype=column.dtype)


def bytes_of_rows(block: Block, columns: Sequence[Column], low: int, high: int) -> npt.NDArray[np.int64]:
    """The bytes of each of the rows `low` to `high`, int64 [high - low]."""
    fixed = sum(column.row_bytes for column in columns)
    total = np.full(high - low, fixed, np.int64)
    for column in columns:
        part = block[column.name]
        if isinstance(part, Ragged):
            total += np.diff(part.row_splits[low : high + 1]) * column.element_bytes
    return total


@dataclass(slots=True)
class _Waiting:
    block: Block
    row_bytes: npt.NDArray[np.int64]
    low: int = 0

    @property
    def num_rows(self) -> int:
        return len(self.row_bytes) - self.low


class BlockQueue:
    """Rows in, and out again in blocks that depend on the rows alone, not on how they came in."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = tuple(columns)
        self._waiting: deque[_Waiting] = deque()
        self.num_rows = self.num_bytes = 0

    def push(self, block: Block, num_rows: int) -> None:
        """Append the rows of a block, whose memory must stay as it is until they are out or `keep` was called."""
        if num_rows:
            row_bytes = bytes_of_rows(block, self._columns, 0, num_rows)
            self._waiting.append(_Waiting(block, row_bytes))
            self.num_rows += num_rows
            self.num_bytes += int(row_bytes.sum())

    def pop(self, max_rows: int, max_bytes: int, *, at_end: bool = False) -> tuple[Block, int, int] | None:
        """The next block, its rows and bytes: as many rows as both limits allow, at least one.

        None while more rows could go into it, unless no more come (`at_end`), and if there are none.
        """
        if not self.num_rows or not (at_end or self.num_rows >= max_rows or self.num_bytes >= max_bytes):
            return None
        parts, rows, num_bytes = [], 0, 0
        while self._waiting and rows < max_rows:
            head = self._waiting[0]
            row_bytes = head.row_bytes[head.low : head.low + max_rows - rows]
            ends = num_bytes + np.cumsum(row_bytes)
            count = int(np.searchsorted(ends, max_bytes, side="right"))
            if not count and rows:
                break
            count = max(1, count)
            parts.append(slice_block(head.block, head.low, head.low + count))
            rows, num_bytes = rows + count, int(ends[count - 1])
            head.low += count
            if not head.num_rows:
                self._waiting.popleft()
            if count < len(row_bytes):
                break
        self.num_rows, self.num_bytes = self.num_rows - rows, self.num_bytes - num_bytes
        return join_blocks(parts, self._columns), rows, num_bytes

    def keep(self) -> None:
        """Copy the rows that still lie in memory of the one who pushed them last."""
        if self._waiting:
            last = self._waiting[-1]
            places = np.arange(last.low, len(last.row_bytes))
            self._waiting[-1] = _Waiting(take_block(last.block, places), last.row_bytes[last.low :].copy())
