"""Batches of a whole pass, in row order, for any loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy.typing as npt
from heliostat.data.order import RowOrder
from heliostat.data.plan import BatchPlan
from heliostat.data.reader import Reader


def iterate_batches(reader: Reader, order: RowOrder, batch_size: int) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Batches of one pass as dicts of new arrays [rows, *shape], the last one maybe short; closes the reader at the
    end.

    Raises PlanError at once for a bad batch size, RowError or ShardError on the way.
    """
    plan = BatchPlan(num_rows=order.num_rows, global_batch_size=batch_size, num_microbatches=1)
    return _batches(reader, order, plan)


def _batches(reader: Reader, order: RowOrder, plan: BatchPlan) -> Iterator[dict[str, npt.NDArray[Any]]]:
    with reader:
        for step in range(plan.num_steps):
            yield reader.gather(order.rows(*plan.step_rows(step)))
