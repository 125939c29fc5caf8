"""Batch plan: which positions of a pass belong to which step and microbatch (pure arithmetic).

A microbatch is a fixed part of its step, whoever computes it: no number of workers occurs here. So a loss or a join in
the middle of a pass changes who reads which rows, and no row is read twice or left out. A short last batch is cut into
as many parts as the others rather than into parts as large: all replicas still have something to do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from ..errors import PlanError
from .order import MAX_ROWS, RowIds, RowOrder, checked_integer


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """The cut of one pass into steps of `global_batch_size` rows, and of every step into `num_microbatches` parts.

    Step s takes the positions [s·B, min((s+1)·B, num_rows)), so the last batch may be short. A batch of n rows is cut
    at n·i // V: sizes differ by at most one, and a batch shorter than V leaves some microbatches without rows.
    `steps_per_epoch` makes epochs of so many steps: a pass is several of them, the last perhaps shorter, as Keras cuts
    data whose length it knows. Step 0 is that of the epoch, which begins at `first_step` of the pass. Raises PlanError
    for numbers below one.
    """

    num_rows: int
    global_batch_size: int
    num_microbatches: int
    steps_per_epoch: int | None = None
    first_step: int = 0

    def __post_init__(self) -> None:
        for name in ("num_rows", "global_batch_size", "num_microbatches"):
            object.__setattr__(self, name, checked_integer(name, getattr(self, name), 1, MAX_ROWS))
        if self.steps_per_epoch is not None:
            limit = checked_integer("steps_per_epoch", self.steps_per_epoch, 1, MAX_ROWS)
            object.__setattr__(self, "steps_per_epoch", min(limit, self.steps_per_pass))

    @property
    def steps_per_pass(self) -> int:
        """Steps of a pass over all rows."""
        return -(-self.num_rows // self.global_batch_size)

    @property
    def num_steps(self) -> int:
        """Steps of an epoch; the last one of a pass may have fewer (`steps_here`)."""
        return self.steps_per_pass if self.steps_per_epoch is None else self.steps_per_epoch

    @property
    def epochs_per_pass(self) -> int:
        """Epochs that a pass is cut into."""
        return -(-self.steps_per_pass // self.num_steps)

    @property
    def steps_here(self) -> int:
        """Steps of this epoch."""
        return min(self.num_steps, self.steps_per_pass - self.first_step)

    def epoch(self, number: int) -> BatchPlan:
        """The plan of an epoch of a pass, counted from 0."""
        return replace(self, first_step=number * self.num_steps)

    def step_rows(self, step: int) -> tuple[int, int]:
        """Positions [start, stop) of the step's global batch; raises PlanError for a step outside the pass."""
        if not 0 <= step < self.steps_per_pass - self.first_step:
            raise PlanError(f"Step {step} is not in a pass of {self.steps_per_pass} steps (they count from 0).")
        start = (self.first_step + step) * self.global_batch_size
        return start, min(start + self.global_batch_size, self.num_rows)

    def microbatch_rows(self, step: int, microbatch: int) -> tuple[int, int]:
        """Positions [start, stop) of one microbatch, maybe none; raises PlanError for a number outside the plan."""
        start, stop = self.step_rows(step)
        if not 0 <= microbatch < self.num_microbatches:
            raise PlanError(f"Microbatch {microbatch} is not one of the {self.num_microbatches} (they count from 0).")
        num_rows = stop - start
        low = num_rows * microbatch // self.num_microbatches
        return start + low, start + num_rows * (microbatch + 1) // self.num_microbatches

    def sizes(self, step: int) -> tuple[int, ...]:
        """Rows of each of the step's V microbatches; their sum is the size of the global batch."""
        start, stop = self.step_rows(step)
        return _sizes(stop - start, self.num_microbatches)

    def present(self, step: int) -> tuple[bool, ...]:
        """For each of the step's V microbatches whether it has rows."""
        return tuple(size > 0 for size in self.sizes(step))

    @property
    def one_of_each_length(self) -> tuple[int, ...]:
        """For every number of rows that steps of the pass have one of them: only the last can differ from the first."""
        last = self.steps_per_pass - self.first_step - 1
        return (0, last) if self.sizes(0) != self.sizes(last) else (0,)

    def one_of_each_size(self) -> dict[int, tuple[int, int]]:
        """For every size that microbatches with rows have anywhere in the pass the (step, microbatch) of one."""
        found: dict[int, tuple[int, int]] = {}
        for step in self.one_of_each_length:
            for microbatch, size in enumerate(self.sizes(step)):
                if size:
                    found.setdefault(size, (step, microbatch))
        return found


def _sizes(num_rows: int, num_parts: int) -> tuple[int, ...]:
    cuts = [num_rows * part // num_parts for part in range(num_parts + 1)]
    return tuple(high - low for low, high in pairwise(cuts))


def row_ids(order: RowOrder, plan: BatchPlan, step: int, microbatch: int) -> RowIds:
    """Row ids of one microbatch in row order, int64 [rows]; raises PlanError if order and plan differ in rows."""
    if order.num_rows != plan.num_rows:
        raise PlanError(
            f"The row order covers {order.num_rows} rows and the batch plan {plan.num_rows}; they must be equal."
        )
    return order.rows(*plan.microbatch_rows(step, microbatch))
