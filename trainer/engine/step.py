"""The step: compute the microbatches that are mine, add up over all workers, apply.

Read `Step.run` first: it is the whole of Heliostat on one screen. A step is a list of phases, and atomic. Computing
assigns nothing, the all-reduce gives every worker the same bits, and applying is local and deterministic; so a step
happened everywhere or nowhere, and between two steps every worker holds the complete state; between two phases also
what those before have come to. That is why a death needs no snapshot, no rollback and no replay: the survivors ask
again which microbatches of the phase are theirs, compute those that they do not hold, and make the same call again.

The group shows in the arithmetic at two points: `call.ranges()` says which microbatches this worker brings, and
`call.all_reduce` adds up, or comes back because the group has changed. It knows nothing of gradients. Before a step
come checkpoints and the chief's callbacks, in `worker/session.py`, which calls `Step.run`.

What was not done: handing the gradient to the network as an object that it calls back, which hides the order of a
step; rolling back to a copy of the weights (a copy per step, and all survivors would compute twice). The two points
are those of torchft's `optim.py`; the microbatches are VirtualFlow's virtual nodes (Or et al., 2022).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
from heliostat.cluster import instruments
from heliostat.cluster.group.calls import SumCall
from heliostat.cluster.group.liveness import Activity
from heliostat.cluster.group.member import Member
from heliostat.cluster.group.worker_process import host_name
from heliostat.cluster.vectors import Vector
from heliostat.data.order.plan import BatchPlan

from ..beginning import Numbering
from ..config import OnNonfinite
from ..errors import NonfiniteGradientError
from ..events import GradientNotFinite
from .metrics import EpochMetrics, MetricSums
from .microbatches import nonfinite_microbatch
from .phase import Phase
from .times import TimeSplit
from .waiting import waiting


class Step:
    """Trains: one call of `run` is one step of the run, on every worker alike.

    Args:
        phases: what a step does, one after another.
        member: this worker's place in the group, and its way to the driver.
        on_nonfinite: what to do about a gradient that is not finite, where its optimizer leaves that to others.
        times: where this worker's time goes.
        numbering: of epochs and steps, for row orders and random seeds.

    Attributes:
        metrics: the epoch's global metrics so far.
        rows_by_worker: rows of the epoch so far, by the worker that computed them.
        own_rows: rows that this worker has computed in all of its steps.
    """

    def __init__(
        self,
        phases: Sequence[Phase],
        member: Member,
        on_nonfinite: OnNonfinite,
        times: TimeSplit,
        numbering: Numbering = Numbering(),  # noqa: B008  # a value that nobody can change
    ) -> None:
        self.phases, self._member, self._on_nonfinite = tuple(phases), member, on_nonfinite
        self.times, self.numbering = times, numbering
        for phase in phases:
            phase.microbatches.times = times
        self.microbatches = phases[0].microbatches
        self.built = self.microbatches.built
        self.metrics = EpochMetrics(self.built.model, phases[0].metrics, self.built.components)
        self.rows_by_worker: Counter[int] = Counter()
        self.own_rows = self._epoch = 0
        self._call: SumCall | None = None
        self._num_sums = sum(phase.needs_sum for phase in phases)

    def run(self, step: int) -> None:
        """Do step number `step` of the epoch; with `on_nonfinite="skip"` one that is not finite changes nothing.

        Raises:
            Dismissed: the task ends here, for this worker.
            NonfiniteGradientError: a gradient is not finite; nothing of the step was applied.
            WorkersDisagreeError: integer state became different on different microbatches.
        """
        began_s = time.perf_counter()
        computed_before_s, num_before = self.times.pace_s, self.times.computed
        counted = MetricSums.start(self.metrics.layout)  # nothing counts before all phases are done
        nothing_summed = True
        for phase in self.phases:  # most steps have one
            total = self.summed(phase, step, first=nothing_summed) if phase.needs_sum else None
            nothing_summed = nothing_summed and total is None
            with self.times.part("apply"):
                if total is not None and not phase.may_be_applied(total):
                    self._refuse(phase, step)  # on all workers alike: the same bits
                    break
                counted.add(*phase.apply(total), rows=0)
        else:
            self._count(step, counted.sums, counted.maxima)
        instruments.fault_point("applied", self._member.step)
        num_computed = self.times.computed - num_before  # so many times one microbatch on each replica
        pace_s = self._num_sums * (self.times.pace_s - computed_before_s) / num_computed if num_computed else None
        self._member.time_step(time.perf_counter() - began_s, pace_s)

    def summed(self, phase: Phase, step: int, *, first: bool = True) -> Vector:
        """The sum over all microbatches of a step, whoever computes them; outlives the loss of workers.

        Args:
            phase: what is computed and summed.
            step: of the epoch.
            first: whether nothing of the step was summed before: only then workers may join, leave and pause.

        Raises:
            Dismissed: the task ends here, for this worker.
        """
        partial = phase.partial_sums  # keeps its memory from step to step
        partial.begin()
        self._call = call = SumCall(self._member, self.plan.present(step), phase.buckets, first=first)
        with waiting(self.times, self._member, "all_reduce", asleep="wait"):
            while (total := call.result()) is None:  # a worker that was behind was handed it meanwhile
                for lo, hi in call.ranges():
                    if (lo, hi) not in partial.ranges:  # what I hold stays mine when the group changes
                        self._compute(phase, step, lo, hi)
                call.all_reduce(partial.nodes(), partial.ranges)  # returns when summed, or when the group has changed
        return total

    def _compute(self, phase: Phase, step: int, lo: int, hi: int) -> None:
        """Compute the microbatches [lo, hi) and add them up."""
        tree = phase.partial_sums.open(lo, hi)
        self._member.note_activity(Activity.READ)
        rows = phase.microbatches.read(step, range(lo, hi))
        self._member.note_activity(Activity.COMPUTE)
        for node, vector in phase.microbatches.computed(rows, self._seed_step(step), phase.replica_sum):
            level, place = node
            with self.times.part("local sum", place << level):  # its first microbatch
                tree.add_node(node, phase.layout.leaf(vector))
        phase.partial_sums.close(lo, hi)

    def _seed_step(self, step: int) -> int:
        """The step of the run that random seeds come from."""
        return self.numbering.seed_step(self._epoch, step, self.plan.num_steps)

    def _count(self, step: int, sums: np.ndarray, maxima: np.ndarray) -> None:
        """Count the rows of a step that was applied, and its metrics."""
        start, stop = self.plan.step_rows(step)
        self.metrics.add(sums, maxima, stop - start)
        sizes = self.plan.sizes(step)
        for worker, ranges in () if self._call is None else self._call.assigned:
            rows = sum(sum(sizes[lo:hi]) for lo, hi in ranges)
            self.rows_by_worker[worker] += rows
            self.own_rows += rows if worker == self._member.worker else 0

    def _refuse(self, phase: Phase, step: int) -> None:
        """The sum of a step is not finite, on every worker alike: find out where from; nothing is applied."""
        skipped = self._on_nonfinite == "skip"
        found = nonfinite_microbatch(phase.microbatches, self._seed_step(step), step, phase.partial_sums.ranges)
        index, variables = found or (None, ())
        if found is not None or self._member.is_chief:
            self._member.send(
                GradientNotFinite(
                    worker=self._member.worker,
                    host=host_name(),
                    epoch=self._epoch,
                    step=step,
                    microbatch=index,
                    variables=variables,
                    skipped=skipped,
                )
            )
        if not skipped:
            raise NonfiniteGradientError(
                epoch=self._epoch,
                step=step,
                num_steps=self.steps_per_epoch,
                microbatch=index,
                variables=variables,
                value="" if index is None else phase.microbatches.feed.nonfinite_value(step, index),
            )

    # -- an epoch of steps ----------------------------------------------------------------------------------------

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; that at the end of a pass may have fewer (`plan.steps_here`)."""
        return self.plan.num_steps

    @property
    def plan(self) -> BatchPlan:
        """The cut of this epoch into steps and microbatches."""
        return self.microbatches.feed.plan

    @property
    def own_microbatches(self) -> int:
        """How many microbatches of the last step were this worker's."""
        assigned = () if self._call is None else self._call.assigned
        return sum(hi - lo for worker, ranges in assigned if worker == self._member.worker for lo, hi in ranges)

    def warm_up(self) -> None:
        """Let TensorFlow compile what a step needs, so that a group does not wait for that; nothing changes."""
        for phase in self.phases:
            phase.warm_up()

    def start_epoch(self, epoch: int) -> None:
        """Begin an epoch: its row order, metrics at zero."""
        self.microbatches.feed.start_pass(self.numbering.pass_of(epoch), self.numbering.part_of(epoch))
        self.times.mark()
        self._epoch = epoch
        self.metrics.start()
        self.rows_by_worker = Counter()

    def resume_epoch(self, sums: np.ndarray, maxima: np.ndarray, rows: int, rows_by_worker: dict[int, int]) -> None:
        """Go on with an epoch of which other workers have done the first steps.

        Args:
            sums: float64 ``[num_sums]``, what metrics have added up over the rows so far.
            maxima: float64 ``[num_maxima]``, of what they keep the largest.
            rows: rows so far.
            rows_by_worker: the same by the worker that computed them.
        """
        self.metrics.resume(sums, maxima, rows)
        self.rows_by_worker = Counter(rows_by_worker)

    def sync_variables(self) -> None:
        """Bring what callbacks and others may look at up to date: optimizer state, the model's metric objects."""
        for phase in self.phases:
            phase.sync_optimizer()
        self.metrics.show()

    def row_ids(self, step: int) -> tuple[tuple[int, ...], ...]:
        """Row ids of `step` as the workers computed it, in order of rank (for proofs)."""
        feed = self.microbatches.feed
        return tuple(
            tuple(int(i) for lo, hi in ranges for index in range(lo, hi) for i in feed.row_ids(step, index))
            for _, ranges in (() if self._call is None else self._call.assigned)
        )
