"""A phase of a step: gradients of some variables are computed, summed over all workers, and become new values.

Every step has one phase today. It assigns in place, inside the compiled update: with a second phase the values between
the two would be kept apart, and assigned at the end of the step.
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

from ..config import GradientDtype
from ..errors import WorkersDisagreeError
from .metrics import int_state_differs
from .microbatches import Microbatches
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
    return [Phase(microbatches, gradient_dtype)]


class Phase:
    """A gradient function, the memory of its sums, and the update that takes the sum.

    Args:
        microbatches: computes its gradients.
        gradient_dtype: how gradients are rounded before they are summed; None leaves them as they are.
    """

    def __init__(self, microbatches: Microbatches, gradient_dtype: GradientDtype | None) -> None:
        self.microbatches = microbatches
        built, self.layout = microbatches.built, microbatches.gradients.layout.rounded(gradient_dtype)
        num_microbatches = microbatches.feed.plan.num_microbatches
        gpus = built.runtime.gpus
        self.buckets = Buckets(self.layout.buckets, self.layout.ops, lambda: memory_of_sums(self.layout, gpus))
        self.partial_sums = PartialSums(num_microbatches, self.buckets)
        self.replica_sum: ReplicaSum | None = None
        if gpus and gradient_dtype is None:  # else what they compute is rounded first, on the host
            self.replica_sum = ReplicaSum(gpus, num_microbatches, self.buckets.ops, microbatches.gradients.views)
        self._update = Update(built, self.layout)

    def is_finite(self, total: Vector) -> bool:
        """Whether gradients and new moving averages are finite."""
        return all(map(all_finite, total[:-2]))

    def apply(self, total: Vector) -> tuple[np.ndarray, np.ndarray]:
        """Let the optimizer take the sum over all microbatches, in place, and assign what layers have changed.

        Returns:
            the metrics' part of the sum: float64 ``[num_sums]``, and float64 ``[num_maxima]``.

        Raises:
            WorkersDisagreeError: integer state became different on different microbatches; nothing was assigned.
        """
        *float_buckets, sums, maxima = total
        if int_state_differs(self.layout.metrics, maxima):
            names = [self.microbatches.built.non_trainable[i].path for i in self.layout.int_state]
            raise WorkersDisagreeError(
                f"Integer state of the model ({', '.join(names)}) became different on different microbatches of a "
                "step; integers cannot be averaged. Make the layer's update independent of the rows, or use a float."
            )
        self._update(*map(self.microbatches.gradients.views.tensor_of, float_buckets))
        if self.layout.int_state:
            self._update.assign_int_state(maxima)
        return sums, maxima

    def sync_optimizer(self) -> None:
        """Bring the optimizer's variables up to date, where the update keeps its state in one vector."""
        self._update.sync_optimizer()

    def warm_up(self) -> None:
        """Let TensorFlow compile what the phase needs, so that a group does not wait for that; nothing changes."""
        self.microbatches.warm_up()
        if self.replica_sum is not None:
            self._warm_up_replicas(self.replica_sum)
        built = self.microbatches.built
        kept = state_bytes(built)
        nothing = [aligned_empty((length,), dtype) for dtype, length in self.layout.float_buckets]
        for bucket in nothing:
            bucket[:] = 0
        self._update(*map(to_tensor, nothing))
        self._update.sync_optimizer()
        assign_state(built, kept)

    def _warm_up_replicas(self, replica_sum: ReplicaSum) -> None:
        """Let the replicas add up once, in a full step and in the last one, which may be short."""
        plan = self.microbatches.feed.plan
        indices: Sequence[int] = range(min(self.microbatches.num_replicas, plan.num_microbatches))
        for step in plan.one_of_each_length:
            deque(self.microbatches.computed(self.microbatches.read(step, indices), step, replica_sum), maxlen=0)
