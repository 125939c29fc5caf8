"""A phase of a step: gradients of some variables are computed, summed over all workers, and become new values.

Most steps have one phase, which assigns in place, inside the compiled update (`update.py`). In a step of several each
phase but the last one writes into shadows, and the last one assigns all that the step has changed (`new_values.py`). A
phase of which no row reaches anything has no sum: every worker computes its new values for itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from heliostat.cluster.assignment import Range
from heliostat.cluster.group.results import Buckets
from heliostat.cluster.tree import Node
from heliostat.cluster.vectors import TreeSum, Vector
from heliostat.data.format.memory import aligned_empty

from ..errors import WorkersDisagreeError
from ..trainer_config import GradientDtype
from .metrics import MetricLayout, int_state_differs
from .microbatches import Microbatches
from .new_values import NewValues
from .private_api import inner_optimizer
from .replica_sum import ReplicaSum
from .state import assign_state, state_bytes
from .tensors import all_finite, memory_of_sums, to_tensor
from .update import Update


class PartialSums:
    """What a worker has computed of a step: one sum per maximal node of every range of microbatches that it holds.

    Args:
        num_microbatches: of a step.
        buckets: how the vectors of microbatches lie.
    """

    def __init__(self, num_microbatches: int, buckets: Buckets) -> None:
        self._num_microbatches, self._buckets = num_microbatches, buckets
        self._trees: dict[Range, TreeSum] = {}
        self._held: list[Range] = []

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The ranges that it holds."""
        return tuple(self._held)

    def begin(self) -> None:
        """Hold nothing. Memory of the range held first, the usual one, is kept from step to step."""
        self._trees = {each: tree for each, tree in self._trees.items() if each in self._held[:1]}
        for tree in self._trees.values():
            tree.reset()
        self._held = []

    def open(self, lo: int, hi: int) -> TreeSum:
        """Where the microbatches [lo, hi) are added up; `close` says that they are complete."""
        if (lo, hi) not in self._trees:
            self._trees[lo, hi] = TreeSum(self._num_microbatches, self._buckets.ops, lo, hi)
        return self._trees[lo, hi]

    def close(self, lo: int, hi: int) -> None:
        """All of [lo, hi) is there."""
        self._held.append((lo, hi))

    def nodes(self) -> dict[Node, Vector]:
        """The partial sums over all that is held."""
        return {node: vector for each in self._held for node, vector in self._trees[each].nodes().items()}


def phases_of(microbatches: Microbatches, gradient_dtype: GradientDtype | None) -> list[Phase]:
    """The phases of a step, in order.

    Args:
        microbatches: computes the first of them.
        gradient_dtype: how gradients are rounded before they are summed; None leaves them as they are.
    """
    return [
        Phase(microbatches.of_phase(number), gradient_dtype, number)
        for number in range(len(microbatches.gradients.phases))
    ]


class Phase:
    """A gradient function, the memory of its sums, and the update that takes the sum.

    Args:
        microbatches: computes its gradients.
        gradient_dtype: how gradients are rounded before they are summed; None leaves them as they are.
        number: of the phase in its step.

    Attributes:
        layout: of the vectors that are summed.
        metrics: what the step counts, alike for all of its phases.
        needs_sum: whether rows reach anything of it; otherwise there is nothing to compute and nothing to sum.
    """

    def __init__(self, microbatches: Microbatches, gradient_dtype: GradientDtype | None, number: int = 0) -> None:
        self.microbatches = microbatches
        built, self.layout = microbatches.built, microbatches.function.layout.rounded(gradient_dtype)
        cut = microbatches.gradients.cut
        self.metrics: MetricLayout = self.layout.metrics if cut is None else cut.metrics
        self.needs_sum = cut is None or cut.have_sum[number]
        num_microbatches = microbatches.feed.plan.num_microbatches
        gpus = built.runtime.gpus
        self.buckets = Buckets(self.layout.buckets, self.layout.ops, lambda: memory_of_sums(self.layout, gpus))
        self.partial_sums = PartialSums(num_microbatches, self.buckets)
        self.replica_sum: ReplicaSum | None = None
        if gpus and gradient_dtype is None:  # else what they compute is rounded first, on the host
            self.replica_sum = ReplicaSum(gpus, num_microbatches, self.buckets.ops, microbatches.function.views)
        self._update = Update(built, self.layout) if cut is None else NewValues(cut, number, self.layout.float_buckets)
        applied = built.optimizers if cut is None else cut.phases[number].optimizers or built.optimizers
        self._scales_losses = bool(applied) and all(inner_optimizer(each) is not None for each in applied)

    def may_be_applied(self, total: Vector) -> bool:
        """Whether gradients, new moving averages and sums over the batch are finite, or its optimizers look to that:
        those that scale losses leave out by themselves what is not finite.
        """
        return self._scales_losses or all(map(all_finite, (*total[:-2], total[-2][self.metrics.num_sums :])))

    def apply(self, total: Vector | None) -> tuple[np.ndarray, np.ndarray]:
        """Let optimizers take the sum over all microbatches, and assign what layers have changed.

        Args:
            total: the sum; None for a phase that needs none.

        Returns:
            the metrics' part of the sum, as `metrics` says: float64 ``[num_sums]``, and float64 ``[num_maxima]``.

        Raises:
            WorkersDisagreeError: integer state became different on different microbatches; nothing was assigned.
        """
        *float_buckets, sums, maxima = self._nothing() if total is None else total
        if int_state_differs(self.layout.metrics, maxima):
            raise WorkersDisagreeError(
                f"Integer state of the model ({', '.join(self.layout.agreed_names)}) became different on different "
                "microbatches of a step; integers cannot be averaged. Make the layer's update independent of the rows, "
                'use a float, or give the variable aggregation="sum" if it counts.'
            )
        self._update.take(list(map(self.microbatches.function.views.tensor_of, float_buckets)), sums, maxima)
        return sums[: self.metrics.num_sums], maxima[: self.metrics.num_maxima]

    def _nothing(self) -> Vector:
        """A vector to which no microbatch has brought anything."""
        vector = tuple(aligned_empty((length,), dtype) for dtype, length in self.layout.buckets)
        for bucket in vector:
            bucket[:] = 0
        vector[-1][: self.metrics.num_maxima] = -np.inf
        return vector

    def sync_optimizer(self) -> None:
        """Bring the optimizer's variables up to date, where the update keeps its state in one vector."""
        self._update.sync_optimizer()

    def warm_up(self) -> None:
        """Let TensorFlow compile what the phase needs, so that a group does not wait for that; nothing changes."""
        if self.needs_sum:
            self.microbatches.warm_up()
        if self.replica_sum is not None:
            self._warm_up_replicas(self.replica_sum)
        built = self.microbatches.built
        kept = state_bytes(built)
        *float_buckets, sums, maxima = self._nothing()
        self._update.take(list(map(to_tensor, float_buckets)), sums, maxima)
        self._update.sync_optimizer()
        assign_state(built, kept)

    def _warm_up_replicas(self, replica_sum: ReplicaSum) -> None:
        """Let the replicas add up once, in a full step and in the last one, which may be short."""
        plan = self.microbatches.feed.plan
        indices: Sequence[int] = range(min(self.microbatches.num_replicas, plan.num_microbatches))
        for step in plan.one_of_each_length:
            deque(self.microbatches.computed(self.microbatches.read(step, indices), step, replica_sum), maxlen=0)
