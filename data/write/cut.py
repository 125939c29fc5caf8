"""Record batches of a dataset's columns, cut anew: how they come out depends on the rows, not on how they came in.

This is the part of writing that decides where a record batch of a shard ends, so equal rows make equal files however
they were handed on. Rows wait as the arrays that they came in; what is left of the last one is copied, so a caller may
use its memory again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..format.columns import Column


def bytes_of_rows(batch: pa.RecordBatch, columns: Sequence[Column]) -> npt.NDArray[np.int64]:
    """The bytes of each row of a record batch, int64 [rows]."""
    total = np.full(batch.num_rows, sum(column.row_bytes for column in columns), np.int64)
    for column, array in zip(columns, batch.columns, strict=True):
        if column.is_variable:
            lengths = pc.list_value_length(array) if column.kind == "list" else pc.binary_length(array)
            total += lengths.to_numpy() * column.element_bytes
    return total


@dataclass(slots=True)
class _Waiting:
    """Rows that wait, as they came in; those before `low` are out already."""

    batch: pa.RecordBatch
    row_bytes: npt.NDArray[np.int64]
    low: int = 0

    @property
    def num_rows(self) -> int:
        return len(self.row_bytes) - self.low


class RowQueue:
    """Rows in, and out again in record batches of given limits."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = tuple(columns)
        self._waiting: deque[_Waiting] = deque()
        self.num_rows = self.num_bytes = 0

    def push(self, batch: pa.RecordBatch) -> None:
        """Append rows, whose memory must stay as it is until they are out or `keep` was called."""
        if batch.num_rows:
            row_bytes = bytes_of_rows(batch, self._columns)
            self._waiting.append(_Waiting(batch, row_bytes))
            self.num_rows += batch.num_rows
            self.num_bytes += int(row_bytes.sum())

    def pop(self, max_rows: int, max_bytes: int, *, at_end: bool = False) -> tuple[pa.RecordBatch, int] | None:
        """The next record batch and its bytes: as many rows as both limits allow, at least one.

        None while more rows could go into it, unless no more come (`at_end`), and if there are none.
        """
        if not self.num_rows or not (at_end or self.num_rows >= max_rows or self.num_bytes >= max_bytes):
            return None
        parts, rows, num_bytes = [], 0, 0
        # Head by head: of each as many rows as still fit; a row that is too large for any batch has one of its own.
        while self._waiting and rows < max_rows:
            head = self._waiting[0]
            row_bytes = head.row_bytes[head.low : head.low + max_rows - rows]
            ends = num_bytes + np.cumsum(row_bytes)
            count = int(np.searchsorted(ends, max_bytes, side="right"))
            if not count and rows:
                break
            count = max(1, count)
            parts.append(head.batch.slice(head.low, count))
            rows, num_bytes = rows + count, int(ends[count - 1])
            head.low += count
            if not head.num_rows:
                self._waiting.popleft()
            if count < len(row_bytes):
                break
        self.num_rows, self.num_bytes = self.num_rows - rows, self.num_bytes - num_bytes
        return joined(parts), num_bytes

    def keep(self) -> None:
        """Copy the rows that still lie in memory of the one who pushed them last."""
        if self._waiting:
            last = self._waiting[-1]
            self._waiting[-1] = _Waiting(joined([last.batch.slice(last.low)]), last.row_bytes[last.low :].copy())


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """The rows of several record batches (at least one) in new memory: nothing before them is written with them."""
    columns = zip(*(batch.columns for batch in batches), strict=True)
    arrays = [pa.concat_arrays(parts) for parts in columns]
    return pa.RecordBatch.from_arrays(arrays, schema=batches[0].schema)
