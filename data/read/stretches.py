"""Stretches of a pass: batches that follow each other, read by one call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..order.order import RowIds, RowOrder
from ..order.plan import BatchPlan
from .reader import Reader


@dataclass(frozen=True, slots=True)
class Stretch:
    """The rows at the positions [start, stop) of a pass: a batch, or several batches that follow each other."""

    order: RowOrder
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def announce(self, reader: Reader) -> None:
        """Say that these rows and those after them come next."""
        reader.expect(self.order, self.start)

    def row_ids(self) -> RowIds:
        """Their ids, in order."""
        return self.order.rows(self.start, self.stop)


def stretches(order: RowOrder, batch_size: int, max_rows: int = 1) -> Iterator[Stretch]:
    """A pass in stretches of whole batches, as many as have `max_rows` rows, one at least; raises PlanError at once."""
    plan = BatchPlan(num_rows=order.num_rows, global_batch_size=batch_size, num_microbatches=1)
    rows_each = max(1, max_rows // plan.global_batch_size) * plan.global_batch_size
    return (Stretch(order, low, min(low + rows_each, plan.num_rows)) for low in range(0, plan.num_rows, rows_each))
