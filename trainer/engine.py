"""The step engine: compute → all-reduce → apply, joined in plain Python.

Between steps every worker holds the complete state. `compute` assigns nothing, the all-reduce gives every worker the
same sum, and `apply` is local and deterministic; so a step happened everywhere or nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from heliostat.cluster.assignment import assign, split
from heliostat.cluster.collective import Collective
from heliostat.cluster.host import CallNumbers
from heliostat.cluster.tree import Node, TreeSum, Vector, contributed
from heliostat.data import aligned_empty

from .compute import Compute
from .errors import WorkersDisagreeError
from .feed import Feed, Microbatch, to_tensor
from .jobs import SEGMENT_OPS
from .metrics import Results, Totals, assign_metrics, disagreeing, metric_values
from .seeds import microbatch_seeds
from .trainee import Trainee
from .update import Update


@dataclass(slots=True)
class TimeSplit:
    """Seconds a worker spent in the parts of its steps, since the start of the epoch."""

    input_s: float = 0.0
    compute_s: float = 0.0
    all_reduce_s: float = 0.0
    apply_s: float = 0.0


class MicrobatchRunner:
    """What training and evaluation share: computing microbatches and folding them into tree nodes.

    Args:
        trainee: the model.
        compute: the traced function of the step.
        feed: where rows come from.
        seed: seed of the run.
    """

    def __init__(self, trainee: Trainee, compute: Compute, feed: Feed, seed: int) -> None:
        self.trainee, self.compute, self.feed, self.seed = trainee, compute, feed, seed
        self.num_replicas = trainee.strategy.num_replicas_in_sync
        self.times = TimeSplit()

    def vectors(self, step: int, seed_step: int, numbers: Sequence[int]) -> Iterator[tuple[int, Vector]]:
        """(number, vector) of the present microbatches among `numbers`, in order, each as soon as it is computed."""
        began = time.perf_counter()
        microbatches = self.feed.read(step, numbers)
        self.times.input_s += time.perf_counter() - began
        for at in range(0, len(microbatches), self.num_replicas):
            chunk = microbatches[at : at + self.num_replicas]
            # A replica without a microbatch of its own computes the last one again; the result is not used.
            filled = [*chunk, *[chunk[-1]] * (self.num_replicas - len(chunk))]
            began = time.perf_counter()
            vectors = self.compute([self._inputs(microbatch, seed_step) for microbatch in filled])
            self.times.compute_s += time.perf_counter() - began
            yield from ((m.number, vector) for m, vector in zip(chunk, vectors, strict=False))

    def _inputs(self, microbatch: Microbatch, seed_step: int) -> tuple[Any, np.ndarray, np.ndarray]:
        seeds = microbatch_seeds(self.seed, seed_step, microbatch.number, len(self.trainee.generators))
        return microbatch.batch, microbatch.weights, seeds


class TrainEngine:
    """Trains: one call of `step` is one step of the run, on every worker alike.

    Args:
        runner: computes microbatches.
        collective: connects the workers of the group.
        numbers: numbers their calls.
    """

    def __init__(self, runner: MicrobatchRunner, collective: Collective, numbers: CallNumbers) -> None:
        self._runner, self._collective, self._numbers = runner, collective, numbers
        self.trainee = runner.trainee
        self.contribution = runner.compute.contribution
        self.stats = self.contribution.stats
        self._update = Update(self.trainee, self.contribution)
        self._results = Results(self.trainee.model, self.stats)
        num_microbatches = runner.feed.plan.num_microbatches
        self._ranges = assign(num_microbatches, collective.num_workers)
        self._mine = self._ranges[collective.rank]
        self._tree = TreeSum(num_microbatches, SEGMENT_OPS, *self._mine)
        self._sum: Vector = tuple(aligned_empty((length,), dtype) for dtype, length in self.contribution.layout)
        self.totals = Totals.start(self.stats)
        self.own_rows = 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass."""
        return self._runner.feed.plan.num_steps

    def times_by_name(self) -> dict[str, float]:
        """Where the time of this epoch's steps went, in seconds."""
        return asdict(self._runner.times)

    def start_epoch(self, epoch: int) -> None:
        """Begin a pass: its row order, metrics at zero."""
        self._runner.feed.start_pass(epoch)
        self._runner.times = TimeSplit()
        self._epoch = epoch
        self.totals = Totals.start(self.stats)
        self.own_rows = 0

    def step(self, step: int) -> None:
        """Compute, sum and apply step number `step` of the epoch."""
        plan = self._runner.feed.plan
        present = plan.present(step)
        seed_step = self._epoch * plan.num_steps + step
        self._tree.reset()
        for number, vector in self._runner.vectors(step, seed_step, range(*self._mine)):
            self._tree.add(number, vector)
        began = time.perf_counter()
        summed = self._collective.all_reduce(
            self._numbers(),
            self._tree.nodes(),
            [contributed(lo, hi, present) for lo, hi in self._ranges],
            self.contribution.layout,
            ops=SEGMENT_OPS,
            out=self._sum,
        )
        reduced = time.perf_counter()
        self._apply(summed, plan.step_rows(step))
        self.own_rows += sum(plan.sizes(step)[slice(*self._mine)])
        self._runner.times.all_reduce_s += reduced - began
        self._runner.times.apply_s += time.perf_counter() - reduced

    def _apply(self, summed: Vector, rows: tuple[int, int]) -> None:
        gradients, sums, extrema = summed
        if disagreeing(self.stats, extrema):
            names = [self.trainee.frozen[i].path for i in self.contribution.agreed]
            raise WorkersDisagreeError(
                f"Integer state of the model ({', '.join(names)}) became different on different microbatches of a "
                "step; integers cannot be averaged. Make the layer's update independent of the rows, or use a float."
            )
        self._update(to_tensor(gradients))
        if self.contribution.agreed:
            self._update.assign_agreed(extrema)
        self.totals.add(sums, extrema, rows[1] - rows[0])

    def logs(self) -> dict[str, Any]:
        """Global metrics of the epoch so far."""
        return self._results(self.totals)

    def publish(self) -> None:
        """Bring what callbacks and others may look at up to date: optimizer state, the model's metric objects."""
        self._update.store()
        assign_metrics(metric_values(self.stats, self.totals), self.stats, self.trainee.components)

    def my_row_ids(self, step: int) -> list[int]:
        """Row ids this worker computes in `step`, in order (for proofs)."""
        ids = [self._runner.feed.row_ids(step, number) for number in range(*self._mine)]
        return [int(i) for part in ids for i in part]


class Evaluator:
    """Evaluates: every worker computes a contiguous range of the pass's microbatches; the driver adds them up.

    The microbatches of all steps are the leaves of one tree, so a worker hands in a few nodes, and any other cut among
    workers gives the same bits.
    """

    def __init__(self, runner: MicrobatchRunner) -> None:
        self._runner = runner
        self.stats = runner.compute.contribution.stats
        self._results = Results(runner.trainee.model, self.stats)

    @property
    def num_leaves(self) -> int:
        """Microbatches of the pass, those without rows included."""
        plan = self._runner.feed.plan
        return plan.num_steps * plan.num_microbatches

    def start(self, rank: int, num_workers: int) -> Iterator[np.ndarray]:
        """Begin a pass; yields the steps in which this worker has microbatches, int64 ``[1]`` each."""
        self._runner.feed.start_pass(0)
        self._lo, self._hi = split(0, self.num_leaves, num_workers)[rank]
        self._tree = TreeSum(self.num_leaves, SEGMENT_OPS, self._lo, self._hi)
        self._rows = 0
        num_microbatches = self._runner.feed.plan.num_microbatches
        for step in range(self._lo // num_microbatches, -(-self._hi // num_microbatches)):
            yield np.array([step], np.int64)

    def step(self, step: int) -> None:
        """Compute this worker's microbatches of one step of the pass."""
        plan = self._runner.feed.plan
        first = step * plan.num_microbatches
        numbers = range(max(self._lo - first, 0), min(self._hi - first, plan.num_microbatches))
        for number, vector in self._runner.vectors(step, step, numbers):
            self._tree.add(first + number, tuple(np.array(segment) for segment in vector))
            self._rows += plan.sizes(step)[number]

    def finish(self) -> tuple[dict[Node, Vector], int]:
        """This worker's partial sums over the pass, and the number of rows in them."""
        return self._tree.nodes(), self._rows

    def logs(self, sums: np.ndarray, extrema: np.ndarray, rows: int) -> dict[str, Any]:
        """Global metrics from the sum over all workers."""
        totals = Totals.start(self.stats)
        totals.add(sums, extrema, rows)
        return self._results(totals)
