"""Evaluation: a worker's shards of a pass without training, as nodes of one tree over the whole pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from heliostat.cluster.tree import Node
from heliostat.cluster.vectors import TreeSum, Vector

from ..pass_messages import BUCKET_OPS, NonfiniteRows
from .feed import Microbatch
from .metrics import Logs, MetricSums, Results
from .microbatches import Microbatches
from .tensors import all_finite


class Evaluator:
    """Evaluates: every worker computes a contiguous range of the pass's microbatches; the driver adds them up.

    The microbatches of all steps of the pass are numbered through, the leaves of one tree, so a worker hands in a few
    nodes, and any other cut among workers gives the same bits.

    Attributes:
        nonfinite: the rows whose metrics were not finite, since `start`.
    """

    def __init__(self, microbatches: Microbatches) -> None:
        self._microbatches = microbatches
        self._metrics = microbatches.gradients.layout.metrics
        self._results = Results(microbatches.built.model, self._metrics)
        self.nonfinite = NonfiniteRows()

    def warm_up(self) -> None:
        """Let TensorFlow compile what a pass needs."""
        self._microbatches.warm_up()

    @property
    def dataset(self) -> str:
        """The name of the dataset, for messages."""
        return self._microbatches.feed.dataset.name

    @property
    def num_microbatches(self) -> int:
        """Microbatches of the pass, those without rows included."""
        plan = self._microbatches.feed.plan
        return plan.num_steps * plan.num_microbatches

    def start(self, lo: int, hi: int) -> Iterator[np.ndarray]:
        """Begin with the microbatches [lo, hi); yields the steps in which they are, int64 ``[1]`` each."""
        self._microbatches.feed.start_pass(0)
        self._lo, self._hi = lo, hi
        self._tree = TreeSum(self.num_microbatches, BUCKET_OPS, lo, hi)
        self._rows, self.nonfinite = 0, NonfiniteRows()
        num_microbatches = self._microbatches.feed.plan.num_microbatches
        for step in range(lo // num_microbatches, -(-hi // num_microbatches)):
            yield np.array([step], np.int64)

    def read(self, step: int) -> list[Microbatch]:
        """The rows of this worker's microbatches of one step of the pass."""
        plan = self._microbatches.feed.plan
        first = step * plan.num_microbatches
        return self._microbatches.read(
            step, range(max(self._lo - first, 0), min(self._hi - first, plan.num_microbatches))
        )

    def step(self, step: int, rows: Sequence[Microbatch]) -> int:
        """Compute this worker's microbatches of one step of the pass; `rows` were read for it. Returns their number."""
        plan = self._microbatches.feed.plan
        first, sizes, before = step * plan.num_microbatches, plan.sizes(step), self._rows
        for (_, index), vector in self._microbatches.computed(rows, step):
            buckets = tuple(np.array(bucket) for bucket in vector)
            if not all_finite(buckets[1]):
                ids = self._microbatches.feed.nonfinite_rows(step, index)
                self.nonfinite = self.nonfinite.plus(ids, len(ids))
            self._tree.add(first + index, buckets)
            self._rows += sizes[index]
        return self._rows - before

    def finish(self) -> tuple[dict[Node, Vector], int]:
        """The partial sums over these microbatches, and the number of rows in them."""
        return self._tree.nodes(), self._rows

    def logs(self, sums: np.ndarray, maxima: np.ndarray, rows: int) -> Logs:
        """Global metrics from the sum over all workers; the arguments are those of `MetricSums.add`."""
        metric_sums = MetricSums.start(self._metrics)
        metric_sums.add(sums, maxima, rows)
        return self._results(metric_sums)
