"""The step engine: compute → all-reduce → apply, joined in plain Python.

Between steps every worker holds the complete state. `compute` assigns nothing, the all-reduce gives every worker the
same sum, and `apply` is local and deterministic; so a step happened everywhere or nowhere.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from heliostat.cluster import instruments
from heliostat.cluster.assignment import Range
from heliostat.cluster.group.member import Member
from heliostat.cluster.tree import Node, SegmentOp, TreeSum, Vector
from heliostat.data import aligned_empty

from ..errors import NonfiniteGradientError, UnsupportedModelError, WorkersDisagreeError
from ..jobs import BUCKET_OPS, Nonfinite, OnNonfinite, WireDtype
from .compute import Compute, ReplicaInput
from .feed import Feed, Microbatch
from .layout import microbatch_seeds
from .metrics import Results, Totals, assign_metrics, disagreeing, metric_values
from .nonfinite import all_finite, nonfinite_microbatch, nonfinite_text
from .replica_sum import ReplicaSum
from .state import assign_state, state_bytes
from .tensors import memory_of_sums, to_tensor
from .trainee import Trainee
from .update import Update


@dataclass(slots=True)
class TimeSplit:
    """Seconds a worker spent in the parts of its steps, since the start of the epoch.

    Attributes:
        input_s: getting rows.
        compute_s: gradients; on GPUs also their sum over those of a worker, and its copy to the host.
        local_sum_s: adding up its own microbatches.
        wait_s: in the all-reduce, asleep until another worker or the network had something.
        all_reduce_s: in the all-reduce, moving and adding.
        apply_s: the update, and counting metrics.
        control_s: between steps, following the chief's callbacks and copying state for checkpoints.
        rest_s: between steps, everything else: Keras's loop, callbacks, progress.
    """

    input_s: float = 0.0
    compute_s: float = 0.0
    local_sum_s: float = 0.0
    wait_s: float = 0.0
    all_reduce_s: float = 0.0
    apply_s: float = 0.0
    control_s: float = 0.0
    rest_s: float = 0.0

    @property
    def local_s(self) -> float:
        """What is spent on a worker's own microbatches."""
        return self.input_s + self.compute_s + self.local_sum_s


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
        for chunk in self._chunks(step, numbers):
            with self._timed(chunk[0].number):
                vectors = self.compute(self._inputs(chunk, seed_step))
            yield from ((m.number, vector) for m, vector in zip(chunk, vectors, strict=False))

    def sums(
        self, step: int, seed_step: int, numbers: Sequence[int], replica_sum: ReplicaSum | None
    ) -> Iterator[tuple[Node, Vector]]:
        """(node, partial sum) over the present microbatches among `numbers`, in order.

        With `replica_sum` those that were computed at the same time come added up, else each comes by itself.
        """
        if replica_sum is None:
            yield from (((0, number), vector) for number, vector in self.vectors(step, seed_step, numbers))
            return
        for chunk in self._chunks(step, numbers):
            with self._timed(chunk[0].number):
                # Not kept by name: what the devices computed must not lie there while they compute the next chunk.
                partials = replica_sum(
                    [m.number for m in chunk], self.compute.on_devices(self._inputs(chunk, seed_step))
                )
            yield from partials

    def _chunks(self, step: int, numbers: Sequence[int]) -> Iterator[list[Microbatch]]:
        """The present microbatches among `numbers`, as many at a time as there are replicas."""
        began = time.perf_counter()
        microbatches = self.feed.read(step, numbers)
        self.times.input_s += time.perf_counter() - began
        instruments.note("input", began)
        for at in range(0, len(microbatches), self.num_replicas):
            yield microbatches[at : at + self.num_replicas]

    @contextlib.contextmanager
    def _timed(self, number: int) -> Iterator[None]:
        """The block computes microbatches, of which this is the first."""
        began = time.perf_counter()
        yield
        self.times.compute_s += time.perf_counter() - began
        instruments.note("compute", began, number)

    def warm_up(self) -> None:
        """Compute one microbatch of every size that occurs, so that nothing is compiled in the middle of a pass.

        Raises:
            UnsupportedModelError: XLA cannot compile the step.
        """
        try:
            for step, number in self.feed.plan.one_of_each_size().values():
                deque(self.vectors(step, step, [number]), maxlen=0)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if not self.trainee.jit_compile:
                raise
            reason = " ".join(error.message.split())
            raise UnsupportedModelError(
                f"The model is compiled with jit_compile=True, and XLA cannot compile its step: {reason[:600]} Use "
                "model.compile(..., jit_compile=False)."
            ) from error

    def _inputs(self, chunk: Sequence[Microbatch], seed_step: int) -> list[ReplicaInput]:
        # A replica without a microbatch of its own computes the last one again; the result is not used.
        filled = [*chunk, *[chunk[-1]] * (self.num_replicas - len(chunk))]
        num_generators = len(self.trainee.generators)
        return [(m.batch, m.weights, microbatch_seeds(self.seed, seed_step, m.number, num_generators)) for m in filled]


class StepWork:
    """The microbatches of one step that this worker has computed: one partial sum per node of every range it holds.

    Args:
        runner: computes microbatches.
        ops: how each bucket of their vectors is summed.
    """

    def __init__(self, runner: MicrobatchRunner, ops: Sequence[SegmentOp]) -> None:
        self._runner, self._ops = runner, ops
        self._num_microbatches = runner.feed.plan.num_microbatches
        self._replica_sum: ReplicaSum | None = None
        gpus = runner.trainee.runtime.gpus
        if gpus and "sum_bfloat16" not in ops:  # there every addition is rounded
            self._replica_sum = ReplicaSum(gpus, self._num_microbatches, ops, runner.compute.views)
        self._trees: dict[Range, TreeSum] = {}
        self._held: list[Range] = []
        self._step = self._seed_step = 0

    def warm_up(self) -> None:
        """Let the replicas add up once, in a full step and in the last one, which may be short."""
        if self._replica_sum is not None:
            for step in (0, self._runner.feed.plan.num_steps - 1):
                numbers = range(min(self._runner.num_replicas, self._num_microbatches))
                deque(self._runner.sums(step, step, numbers, self._replica_sum), maxlen=0)

    @property
    def held(self) -> tuple[Range, ...]:
        """The ranges it has computed."""
        return tuple(self._held)

    def begin(self, step: int, seed_step: int) -> None:
        """Begin a step: hold nothing. Memory of the range held most often, the usual one, is kept."""
        self._trees = {each: tree for each, tree in self._trees.items() if each in self._held[:1]}
        for tree in self._trees.values():
            tree.reset()
        self._held, self._step, self._seed_step = [], step, seed_step

    def compute(self, ranges: Sequence[Range]) -> None:
        """Compute the ranges among these that it does not hold."""
        for each in ranges:
            if each not in self._held:
                tree = self._trees.get(each) or TreeSum(self._num_microbatches, self._ops, *each)
                self._trees[each] = tree
                for node, vector in self._runner.sums(self._step, self._seed_step, range(*each), self._replica_sum):
                    began = time.perf_counter()
                    tree.add_node(node, vector)
                    self._runner.times.local_sum_s += time.perf_counter() - began
                    instruments.note("local sum", began, node[1] << node[0])
                self._held.append(each)

    def nodes(self) -> dict[Node, Vector]:
        """Its partial sums over all it holds."""
        return {node: vector for each in self._held for node, vector in self._trees[each].nodes().items()}


class TrainEngine:
    """Trains: one call of `step` is one step of the run, on every worker alike.

    Args:
        runner: computes microbatches.
        member: this worker's membership in the group.
        on_nonfinite: what to do about a gradient that is not finite; None leaves it to the optimizer.
        wire_dtype: how gradients are rounded before they are summed; None leaves them as they are.
    """

    def __init__(
        self,
        runner: MicrobatchRunner,
        member: Member,
        on_nonfinite: OnNonfinite | None,
        wire_dtype: WireDtype | None = None,
    ) -> None:
        self.runner, self._member = runner, member
        self._on_nonfinite = on_nonfinite
        self.trainee = runner.trainee
        self.layout = runner.compute.layout
        self.stats = self.layout.stats
        self._update = Update(self.trainee, self.layout)
        self._results = Results(self.trainee.model, self.stats)
        self._epoch = 0
        self._ops = self.layout.ops(wire_dtype)
        self._work = StepWork(runner, self._ops)
        self.totals = Totals.start(self.stats)
        self._logs: dict[str, Any] | None = None
        self._published = False
        self.rows_by_worker: Counter[int] = Counter()

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass."""
        return self.runner.feed.plan.num_steps

    def times_by_name(self) -> dict[str, float]:
        """Where the time of this epoch's steps went, in seconds."""
        return asdict(self.runner.times)

    def warm_up(self) -> None:
        """Let TensorFlow compile what a step needs, so that a group does not wait for that; nothing changes."""
        self.runner.warm_up()
        self._work.warm_up()
        kept = state_bytes(self.trainee)
        nothing = [aligned_empty((length,), dtype) for dtype, length in self.layout.main]
        for bucket in nothing:
            bucket[:] = 0
        self._update(*map(to_tensor, nothing))
        self._update.store()
        assign_state(self.trainee, kept)

    def start_epoch(self, epoch: int) -> None:
        """Begin a pass: its row order, metrics at zero."""
        self.runner.feed.start_pass(epoch)
        self.runner.times = TimeSplit()
        self._epoch = epoch
        self._count_from(Totals.start(self.stats))
        self.rows_by_worker = Counter()

    def resume_epoch(self, sums: np.ndarray, extrema: np.ndarray, rows: int, rows_by_worker: dict[int, int]) -> None:
        """Go on with an epoch of which other workers have done the first steps."""
        self._count_from(Totals(np.array(sums), np.array(extrema), rows))
        self.rows_by_worker = Counter(rows_by_worker)

    def _count_from(self, totals: Totals) -> None:
        """Take totals that are new, or were added to: what was made of the last ones is out of date."""
        self.totals, self._logs, self._published = totals, None, False

    def step(self, step: int) -> None:
        """Compute, sum and apply step number `step` of the epoch."""
        plan, times = self.runner.feed.plan, self.runner.times
        began, local_s, waited_s = time.perf_counter(), times.local_s, self._member.waited_s
        self._work.begin(step, self._epoch * plan.num_steps + step)
        summed = self._member.all_reduce(
            self._work,
            plan.present(step),
            self.layout.buckets,
            self._ops,
            lambda: memory_of_sums(self.layout, self.trainee.runtime.gpus),
        )
        reduced = time.perf_counter()
        if self._on_nonfinite is None or all(map(all_finite, summed[:-2])):
            self._apply(summed, plan.step_rows(step))
            self._count_rows(plan.sizes(step))
        else:
            self._refuse(step)
        instruments.fault_point("applied", self._member.step)
        waited_s = self._member.waited_s - waited_s
        times.wait_s += waited_s
        times.all_reduce_s += reduced - began - (times.local_s - local_s) - waited_s
        times.apply_s += time.perf_counter() - reduced
        instruments.note("apply", reduced)
        self._member.time_step(time.perf_counter() - began)

    def _count_rows(self, sizes: Sequence[int]) -> None:
        for worker, ranges in zip(self._member.last_members, self._member.last_ranges, strict=True):
            self.rows_by_worker[worker] += sum(sum(sizes[lo:hi]) for lo, hi in ranges)

    def _refuse(self, step: int) -> None:
        """The sum of a step is not finite, on every worker alike: find out where from; nothing is applied."""
        found = nonfinite_microbatch(self.runner, self.layout, self._epoch, step, self._work.held)
        skipped = self._on_nonfinite == "skip"
        number, variables = found or (None, ())
        if found is not None or self._member.is_chief:
            event = Nonfinite(epoch=self._epoch, step=step, microbatch=number, variables=variables, skipped=skipped)
            self._member.mailbox.tell(event)
        if not skipped:
            text = nonfinite_text(self._epoch, step, self.steps_per_epoch, number, variables)
            raise NonfiniteGradientError(text, microbatch=number)

    def _apply(self, summed: Vector, rows: tuple[int, int]) -> None:
        *main, sums, extrema = summed
        if disagreeing(self.stats, extrema):
            names = [self.trainee.frozen[i].path for i in self.layout.agreed]
            raise WorkersDisagreeError(
                f"Integer state of the model ({', '.join(names)}) became different on different microbatches of a "
                "step; integers cannot be averaged. Make the layer's update independent of the rows, or use a float."
            )
        self._update(*map(self.runner.compute.views.tensor_of, main))
        if self.layout.agreed:
            self._update.assign_agreed(extrema)
        self.totals.add(sums, extrema, rows[1] - rows[0])
        self._count_from(self.totals)

    def logs(self) -> dict[str, Any]:
        """Global metrics of the epoch so far."""
        if self._logs is None:
            self._logs = self._results(self.totals)
        return dict(self._logs)

    def logs_of(self, totals: Totals) -> dict[str, Any]:
        """Metrics over the rows that are in `totals`."""
        return self._results(totals)

    def publish(self) -> None:
        """Bring what callbacks and others may look at up to date: optimizer state, the model's metric objects."""
        self._update.store()
        if not self._published:
            assign_metrics(metric_values(self.stats, self.totals), self.stats, self.trainee.components)
            self._published = True

    def row_ids(self, step: int) -> tuple[tuple[int, ...], ...]:
        """Row ids of `step` as the workers computed it, in order of rank (for proofs)."""
        feed = self.runner.feed
        return tuple(
            tuple(int(i) for lo, hi in ranges for number in range(lo, hi) for i in feed.row_ids(step, number))
            for ranges in self._member.last_ranges
        )


class Evaluator:
    """Evaluates: every worker computes a contiguous range of the pass's microbatches; the driver adds them up.

    The microbatches of all steps are the leaves of one tree, so a worker hands in a few nodes, and any other cut among
    workers gives the same bits.
    """

    def __init__(self, runner: MicrobatchRunner) -> None:
        self._runner = runner
        self.stats = runner.compute.layout.stats
        self._results = Results(runner.trainee.model, self.stats)

    def warm_up(self) -> None:
        """Let TensorFlow compile what a pass needs."""
        self._runner.warm_up()

    @property
    def num_leaves(self) -> int:
        """Microbatches of the pass, those without rows included."""
        plan = self._runner.feed.plan
        return plan.num_steps * plan.num_microbatches

    def start(self, lo: int, hi: int) -> Iterator[np.ndarray]:
        """Begin with the leaves [lo, hi); yields the steps in which they are, int64 ``[1]`` each."""
        self._runner.feed.start_pass(0)
        self._lo, self._hi = lo, hi
        self._tree = TreeSum(self.num_leaves, BUCKET_OPS, lo, hi)
        self._rows = 0
        num_microbatches = self._runner.feed.plan.num_microbatches
        for step in range(lo // num_microbatches, -(-hi // num_microbatches)):
            yield np.array([step], np.int64)

    def step(self, step: int) -> None:
        """Compute this worker's microbatches of one step of the pass."""
        plan = self._runner.feed.plan
        first = step * plan.num_microbatches
        numbers = range(max(self._lo - first, 0), min(self._hi - first, plan.num_microbatches))
        for number, vector in self._runner.vectors(step, step, numbers):
            self._tree.add(first + number, tuple(np.array(bucket) for bucket in vector))
            self._rows += plan.sizes(step)[number]

    def finish(self) -> tuple[dict[Node, Vector], int]:
        """The partial sums over these leaves, and the number of rows in them."""
        return self._tree.nodes(), self._rows

    def logs(self, sums: np.ndarray, extrema: np.ndarray, rows: int) -> dict[str, Any]:
        """Global metrics from the sum over all workers."""
        totals = Totals.start(self.stats)
        totals.add(sums, extrema, rows)
        return self._results(totals)
