"""Batches of a whole pass, in row order, for any loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from heliostat.data.order import RowIds, RowOrder
from heliostat.data.plan import BatchPlan
from heliostat.data.prefetch import read_batches
from heliostat.data.reader import Reader


def iterate_batches(
    make_reader: Callable[[], Reader],
    order: RowOrder,
    batch_size: int,
    *,
    prefetch_bytes: int = 0,
    num_threads: int = 1,
) -> Iterator[dict[str, Any]]:
    """Batches of one pass as dicts of new arrays [rows, *shape] and `Ragged`, the last one maybe short; closes the
    readers at the end.

    Raises PlanError at once for a bad batch size, RowError or ShardError on the way.
    """
    requests = batch_requests(order, batch_size)
    return read_batches(make_reader, requests, prefetch_bytes=prefetch_bytes, num_threads=num_threads)


def batch_requests(order: RowOrder, batch_size: int, num_steps: int | None = None) -> Iterator[RowIds]:
    """The row ids of every batch of a pass, or of the first `num_steps`; raises PlanError at once."""
    plan = BatchPlan(num_rows=order.num_rows, global_batch_size=batch_size, num_microbatches=1)
    return (order.rows(*plan.step_rows(step)) for step in range(plan.num_steps if num_steps is None else num_steps))
