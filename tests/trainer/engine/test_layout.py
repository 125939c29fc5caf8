"""How vectors are cut, and the factors and seeds of microbatches: pure functions that the invariance stands on."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from heliostat.trainer.engine.layout import MAX_MEAN_ELEMENTS, choose_buckets, microbatch_seeds, microbatch_weights
from hypothesis import given, settings
from hypothesis import strategies as st

SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=16)
GOLDEN = [[2471389667538150015, 0], [2276949459088694552, 0]]


@given(st.lists(st.sampled_from([0, 1, 300, MAX_MEAN_ELEMENTS, MAX_MEAN_ELEMENTS + 1, 10 * MAX_MEAN_ELEMENTS])))
@settings(deadline=None, derandomize=True)
def test_large_variables_have_buckets_of_their_own_where_they_prevail(sizes):
    counts = choose_buckets(sizes)
    assert sum(counts) == len(sizes)
    if sum(sizes) <= MAX_MEAN_ELEMENTS * len(sizes):
        assert len(counts) == min(1, len(sizes))
        return
    at, before = 0, False
    for count in counts:
        large = [size > MAX_MEAN_ELEMENTS for size in sizes[at : at + count]]
        assert large == [True] or (not any(large) and not before)
        at, before = at + count, not any(large)


@settings(deadline=None, derandomize=True)
@given(SIZES)
def test_means_over_microbatches_weigh_each_row_once(sizes):
    total = sum(sizes)
    weights = np.array([microbatch_weights("sum_over_batch_size", n, total) for n in sizes])
    assert np.array_equal(weights[:, 0], np.array(sizes) / total)
    assert np.array_equal(weights[:, 0], weights[:, 1])
    assert np.isclose(weights[:, 0].sum(), 1, rtol=1e-14)
    assert np.array_equal(weights[:, 2], np.ones(len(sizes)))
    assert weights[:, 3].sum() == total


@settings(deadline=None, derandomize=True)
@given(SIZES)
def test_sums_are_added_as_they_are_and_logged_once_per_batch(sizes):
    total = sum(sizes)
    weights = np.array([microbatch_weights("sum", n, total) for n in sizes])
    assert np.array_equal(weights[:, 0], np.ones(len(sizes)))
    assert np.isclose(weights[:, 1].sum(), 1)
    # Keras counts a loss once per row: every microbatch's sum must count as often as the whole batch's.
    assert np.allclose(weights[:, 2] * weights[:, 3], total)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 100)), min_size=1, max_size=16))
def test_weighted_means_weigh_by_the_rows_weights(parts):
    total, batch_weight = sum(n for n, _ in parts), sum(w for _, w in parts)
    weights = np.array([microbatch_weights("mean_with_sample_weight", n, total, w, batch_weight) for n, w in parts])
    assert np.isclose(weights[:, 0].sum(), 1)
    assert np.isclose(weights[:, 1].sum(), 1)
    assert np.allclose(weights[:, 2] * weights[:, 3], weights[:, 0] * total)
    if batch_weight:
        assert np.allclose(weights[:, 0] * batch_weight, [w for _, w in parts])


def test_a_weighted_mean_without_weights_is_the_mean_over_rows():
    plain = microbatch_weights("sum_over_batch_size", 3, 12)
    assert np.array_equal(microbatch_weights("mean_with_sample_weight", 3, 12), plain)


def test_factors_are_float64_and_exact():
    weights = microbatch_weights("sum_over_batch_size", 4, 16)
    assert weights.dtype == np.float64
    assert weights.tolist() == [0.25, 0.25, 1.0, 4.0]
    assert microbatch_weights("sum", 4, 16).tolist() == [1.0, 0.25, 4.0, 4.0]
    assert microbatch_weights("mean_with_sample_weight", 4, 16, 1.0, 8.0).tolist() == [0.125, 0.25, 0.5, 4.0]


def test_seeds_are_what_they_always_were():
    # Golden values: another hash would change the result of every run with random layers.
    assert microbatch_seeds(7, 3, 2, 2).tolist() == GOLDEN
    assert microbatch_seeds(7, 3, 2, 0).shape == (0, 2)


@pytest.mark.parametrize("argument", range(3))
def test_seeds_differ_in_every_place_of_a_run(argument):
    places = [tuple(n if at == argument else 5 for at in range(3)) for n in range(2000)]
    seeds = np.concatenate([microbatch_seeds(*place, 2) for place in places])
    assert len(np.unique(seeds[:, 0])) == 4000
    assert not seeds[:, 1].any()
    assert seeds.dtype == np.int64
    assert seeds.min() >= 0


def test_more_generators_leave_the_seeds_of_the_first_as_they_are():
    assert np.array_equal(microbatch_seeds(1, 2, 3, 5)[:2], microbatch_seeds(1, 2, 3, 2))


def test_importing_it_loads_no_tensorflow():
    program = (
        "import sys, heliostat.trainer.engine.layout; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"
