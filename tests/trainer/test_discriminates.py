"""The tests of invariance can fail: without the seed rule, the moving-average rule or the tree they do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from heliostat.cluster.tree import present_nodes
from heliostat.trainer.engine import feed, microbatches, phase

from .conftest import dense_data, text_data
from .models import chapter, normalised

pytestmark = pytest.mark.engine


def weights(result) -> str:
    return result.sha256["weights"]


def test_seeds_by_order_of_computation_are_noticed(train, monkeypatch):
    calls = itertools.count()

    def seeds_by_count(seed, step, microbatch, num_generators):
        return np.array([[next(calls) + generator, 0] for generator in range(num_generators)], np.int64)

    data = dense_data()
    reference = train(normalised, data, workers=0)
    monkeypatch.setattr(microbatches, "microbatch_seeds", seeds_by_count)
    assert weights(train(normalised, data, workers=1, replicas=2)) != weights(reference)


def test_moving_averages_weighted_by_the_worker_are_noticed(train, monkeypatch):
    original = feed.microbatch_weights

    def weighted_by_rank(reduction, rows, batch_rows, *sums):
        found = original(reduction, rows, batch_rows, *sums)
        found[1] = 0.25  # equal parts, whatever their rows
        return found

    data = dense_data()
    reference = train(normalised, data, workers=0)
    monkeypatch.setattr(feed, "microbatch_weights", weighted_by_rank)
    assert weights(train(normalised, data, workers=0)) != weights(reference)


class RunningSum(phase.TreeSum):
    """Adds a worker's microbatches from left to right, as anyone would who knows nothing of the tree."""

    def __init__(self, num_microbatches, ops, lo, hi):
        super().__init__(num_microbatches, ops, lo, hi)
        self._range, self._num, self._sum, self._seen = (lo, hi), num_microbatches, None, []

    def add_node(self, node, vector):
        self._seen.append(node[1])  # on a CPU each is one microbatch
        copies = tuple(np.array(bucket) for bucket in vector)
        self._sum = copies if self._sum is None else tuple(a + b for a, b in zip(self._sum, copies, strict=True))

    def nodes(self):
        present = [number in self._seen for number in range(self._num)]
        names = present_nodes(*self._range, present)
        zeros = tuple(np.zeros_like(bucket) for bucket in self._sum) if self._sum else ()
        return {name: self._sum if number == 0 else zeros for number, name in enumerate(names)}

    def reset(self):
        self._sum, self._seen = None, []


def test_a_running_sum_is_noticed(train, monkeypatch):
    monkeypatch.setattr(phase, "TreeSum", RunningSum)
    data = text_data()
    alone, three = (train(chapter, data, workers=workers, num_microbatches=8) for workers in (0, 3))
    assert weights(alone) != weights(three)
