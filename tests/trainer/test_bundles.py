"""Which segments travel together, and that they are cut into slices that hold everything."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from heliostat.trainer.collectives.bundles import bundles_of
from hypothesis import given, settings
from hypothesis import strategies as st

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
SEGMENTS = st.tuples(
    st.sampled_from([(FLOAT32, "sum"), (FLOAT32, "sum_bfloat16"), (FLOAT64, "sum"), (FLOAT64, "max")]),
    st.integers(0, 50),
)


@given(st.lists(SEGMENTS, max_size=8), st.integers(1, 9), st.integers(0, 100))
@settings(deadline=None, derandomize=True)
def test_bundles_hold_neighbours_that_are_alike_and_long_enough(segments, num_workers, min_bytes):
    layout = tuple((dtype, length) for (dtype, _), length in segments)
    ops = [op for (_, op), _ in segments]
    bundles = bundles_of(layout, ops, num_workers, min_bytes)
    taken = [number for bundle in bundles for number in bundle.numbers]
    assert taken == sorted(set(taken))
    alike = groupby(range(len(layout)), key=lambda number: (layout[number][0], ops[number]))
    for (dtype, op), group in alike:
        numbers = list(group)
        num_bytes = sum(layout[number][1] for number in numbers) * dtype.itemsize
        assert (
            set(numbers) <= set(taken)
            if op != "max" and num_bytes >= max(1, min_bytes)
            else set(taken).isdisjoint(numbers)
        )
    for bundle in bundles:
        first, last = bundle.numbers[0], bundle.numbers[-1]
        assert bundle.numbers == tuple(range(first, last + 1))
        assert {(layout[n][0], ops[n]) for n in bundle.numbers} == {(bundle.dtype, bundle.op)}
        assert bundle.lengths == tuple(layout[n][1] for n in bundle.numbers)
        assert bundle.op != "max"
        assert sum(bundle.lengths) * bundle.dtype.itemsize >= max(1, min_bytes)
        assert bundle.slice_length * num_workers == sum(bundle.lengths) + bundle.padding
        assert 0 <= bundle.padding < num_workers
        assert bundle.in_bfloat16 == (bundle.op == "sum_bfloat16")


def test_short_segments_and_maxima_stay():
    layout = ((FLOAT32, 100), (FLOAT32, 100), (FLOAT64, 3), (FLOAT64, 1000))
    (bundle,) = bundles_of(layout, ("sum", "sum", "sum", "max"), 3, 800)
    assert (bundle.numbers, bundle.slice_length, bundle.padding) == ((0, 1), 67, 1)
    assert bundles_of(layout, ("sum", "sum", "sum", "max"), 3, 801) == []
