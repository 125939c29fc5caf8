"""Batches of a whole pass, in row order, for any loop.

What does not depend on the number of rows costs more than copying a few small ones, so several small batches are
gathered at once and cut (measured: ten times the rows per second for batches of 32 rows of 40 bytes). That is all that
is done for speed: batches are read when they are asked for, because reading ahead from mapped shards did not pay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import DatasetError
from ..format.columns import Column
from ..format.memory import ALIGNMENT_BYTES, aligned, aligned_empty
from ..format.ragged import Ragged, Values
from ..order.order import RowIds, RowOrder
from ..order.plan import BatchPlan
from .reader import Reader, num_bytes

# Rows whose ids are worked out at once: as many as the row order computes at once.
_MOST_ROWS = 8192
# Small batches are copied together, as many as have this many bytes, and share their memory. Of more bytes, malloc
# gives every array back to the system and takes it anew, page by page (measured: a third of the rows per second).
_TOGETHER_BYTES = 512 << 10


def iterate_batches(reader: Reader, order: RowOrder, batch_size: int) -> Iterator[dict[str, Any]]:
    """Batches of one pass as dicts of new arrays [rows, *shape] and `Ragged`, the last one maybe short; closes the
    reader at the end.

    Raises PlanError at once for a bad batch size, RowError or ShardError on the way.
    """
    plan = BatchPlan(num_rows=order.num_rows, global_batch_size=batch_size, num_microbatches=1)
    return _batches(reader, order, plan.global_batch_size)


def _batches(reader: Reader, order: RowOrder, batch_size: int) -> Iterator[dict[str, Any]]:
    with reader:
        start, row_bytes = 0, sum(column.row_bytes for column in reader.columns.values())
        while start < order.num_rows:
            together = batches_together(reader, batch_size, row_bytes, _TOGETHER_BYTES)
            ids = order.rows(start, min(start + together * batch_size, order.num_rows))
            reader.prefetch(order, start)
            rows, error = gather_block(reader, ids, batch_size)
            num_rows = len(next(iter(rows.values())))
            for low in range(0, num_rows, batch_size):
                yield cut(rows, low, min(low + batch_size, num_rows))
            if error is not None:
                raise error
            start += num_rows
            row_bytes = max(row_bytes, num_bytes(rows) // num_rows)


def batches_together(reader: Reader, batch_size: int, row_bytes: int, most_bytes: int) -> int:
    """How many batches are gathered at once, if a row has so many bytes: one if functions of a user are called."""
    if reader.computes:
        return 1
    return max(1, min(_MOST_ROWS, most_bytes // max(1, row_bytes)) // batch_size)


def cut(rows: Mapping[str, Values], low: int, high: int) -> dict[str, Values]:
    """The rows [low, high) of every column of what a reader gathered, aligned to 64 bytes; in the same memory where
    that is."""
    return {name: _part(values, low, high) for name, values in rows.items()}


def _part(values: Values, low: int, high: int) -> Values:
    if low == 0 and high == len(values):
        return values
    if not isinstance(values, Ragged):
        # What is gathered begins aligned. Looking where a part lies takes longer than cutting it.
        return values[low:high] if low * values.strides[0] % ALIGNMENT_BYTES == 0 else aligned(values[low:high])
    part = values.slice(low, high)
    return Ragged(aligned(part.values), part.row_splits, part.kind)


def gather_block(reader: Reader, ids: RowIds, batch_size: int) -> tuple[dict[str, Any], Exception | None]:
    """The rows of several batches, in memory that follows each other; where one cannot be read those of the batches
    before it, and the error.

    Functions are called for one batch at a time. Raises what `gather` raises for the first batch.
    """
    if len(ids) <= batch_size:
        return reader.gather(ids), None
    if not reader.computes:
        try:
            return reader.gather(ids), None
        except DatasetError:
            pass  # batch by batch it shows how many can be read
    columns = reader.columns
    arrays = {n: aligned_empty((len(ids), *c.shape), c.dtype) for n, c in columns.items() if not c.is_variable}
    parts: dict[str, list[Ragged]] = {name: [] for name, column in columns.items() if column.is_variable}
    done, failed = 0, None
    for low in range(0, len(ids), batch_size):
        high = min(low + batch_size, len(ids))
        try:
            rows = reader.gather(ids[low:high], {name: array[low:high] for name, array in arrays.items()})
        except Exception as error:
            if not low:
                raise
            failed = error
            break
        for name, found in parts.items():
            found.append(rows[name])
        done = high
    return {name: _joined(column, arrays, parts, done) for name, column in columns.items()}, failed


def _joined(
    column: Column, arrays: Mapping[str, np.ndarray], parts: Mapping[str, list[Ragged]], num_rows: int
) -> Values:
    return Ragged.concatenate(parts[column.name]) if column.is_variable else arrays[column.name][:num_rows]
