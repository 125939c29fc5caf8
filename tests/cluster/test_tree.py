from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from heliostat.cluster.tree import additions_of, node_range, nodes_of, present_nodes, root_level
from heliostat.cluster.vectors import TreeSum, combine, reduce_nodes
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16

OPS = ("sum", "sum", "max")


def vectors(rng, count, length):
    """Awkward numbers: signed zeros, tiny and huge magnitudes, infinities by overflow."""
    made = []
    for _ in range(count):
        floats = rng.standard_normal(length) * 10.0 ** rng.integers(-38, 38, length)
        floats[rng.random(length) < 0.3] = -0.0
        floats[rng.random(length) < 0.1] = 0.0
        with np.errstate(all="ignore"):
            made.append((floats.astype(np.float32), rng.standard_normal(3), np.sign(rng.standard_normal(4)) * 0.0))
    return made


@st.composite
def layouts(draw):
    """A number of microbatches, which are present, and the borders of the workers' ranges."""
    num_microbatches = draw(st.integers(1, 17))
    present = draw(st.lists(st.booleans(), min_size=num_microbatches, max_size=num_microbatches).filter(any))
    num_workers = draw(st.integers(1, 5))
    inner = draw(st.lists(st.integers(0, num_microbatches), min_size=num_workers - 1, max_size=num_workers - 1))
    borders = [0, *sorted(inner), num_microbatches]
    return num_microbatches, present, list(pairwise(borders)), draw(st.integers(0, 2**32))


@settings(deadline=None, derandomize=True, max_examples=300)
@given(layouts())
def test_the_sum_has_the_same_bits_for_every_cut_into_ranges(tree_sum, same_bits, layout):
    num_microbatches, present, ranges, seed = layout
    rng = np.random.default_rng(seed)
    leaves = {n: v for n, v in enumerate(vectors(rng, num_microbatches, 19)) if present[n]}
    nodes = {}
    for lo, hi in ranges:
        partial = TreeSum(num_microbatches, OPS, lo, hi)
        for n in range(lo, hi):
            if present[n]:
                writable = bool(rng.integers(2))
                vector = tuple(bucket.copy() for bucket in leaves[n])
                for bucket in vector:
                    bucket.flags.writeable = writable
                partial.add(n, vector)
        own = partial.nodes()
        assert set(own) == set(present_nodes(lo, hi, present))
        nodes.update(own)
    shuffled = dict(sorted(nodes.items(), key=lambda _: rng.random()))
    assert same_bits(reduce_nodes(shuffled, OPS, num_microbatches), tree_sum(leaves, OPS, num_microbatches))


def test_the_comparison_would_notice_another_order_of_addition(tree_sum, same_bits):
    leaves = dict(enumerate(vectors(np.random.default_rng(0), 8, 400)))
    fold = leaves[0][0]
    with np.errstate(all="ignore"):
        for n in range(1, 8):
            fold = fold + leaves[n][0]
    assert not same_bits([fold], tree_sum(leaves, OPS, 8)[:1])


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 70), st.data())
def test_the_nodes_of_a_range_are_its_maximal_ones_in_order(num_microbatches, data):
    lo = data.draw(st.integers(0, num_microbatches))
    hi = data.draw(st.integers(lo, num_microbatches))
    nodes = nodes_of(lo, hi, num_microbatches)
    assert [n for node in nodes for n in range(*node_range(node, num_microbatches))] == list(range(lo, hi))
    for level, index in nodes:
        if level < root_level(num_microbatches):
            start, stop = node_range((level + 1, index // 2), num_microbatches)
            assert start < lo or stop > hi


def test_nodes_without_a_present_microbatch_are_absent():
    assert present_nodes(0, 6, [False, False, True, False, True, True, False, True]) == ((2, 0), (1, 2))
    assert present_nodes(0, 2, [False, False, True, False]) == ()


def test_a_lone_negative_zero_reaches_the_root_unchanged():
    minus_zero = np.array([-0.0], np.float32)
    partial = TreeSum(5, ("sum",), 0, 5)
    partial.add(3, (minus_zero,))
    (total,) = reduce_nodes(partial.nodes(), ("sum",), 5)
    assert np.signbit(total[0])


def test_read_only_vectors_are_never_written_to(same_bits):
    leaves = vectors(np.random.default_rng(1), 6, 8)
    originals = [tuple(bucket.copy() for bucket in vector) for vector in leaves]
    for vector in leaves:
        for bucket in vector:
            bucket.flags.writeable = False
    partial = TreeSum(6, OPS, 0, 6)
    for n, vector in enumerate(leaves):
        partial.add(n, vector)
    partial.nodes()
    assert all(same_bits(a, b) for a, b in zip(leaves, originals, strict=True))


def test_scratch_memory_is_used_again_after_a_reset(tree_sum, same_bits):
    partial = TreeSum(8, OPS, 0, 8)
    addresses = []
    for step in range(3):
        leaves = vectors(np.random.default_rng(step), 8, 50)
        for n, vector in enumerate(leaves):
            for bucket in vector:
                bucket.flags.writeable = False
            partial.add(n, vector)
        nodes = partial.nodes()
        assert same_bits(nodes[(3, 0)], tree_sum(dict(enumerate(leaves)), OPS, 8))
        addresses.append({vector[0].ctypes.data for vector in nodes.values()})
        partial.reset()
    assert addresses[2] <= addresses[0] | addresses[1]


def test_a_node_summed_elsewhere_can_be_added_whole(tree_sum, same_bits):
    leaves = dict(enumerate(vectors(np.random.default_rng(2), 6, 9)))
    expected = tree_sum(leaves, OPS, 6)
    partial = TreeSum(6, OPS, 0, 6)
    partial.add_node((1, 0), tree_sum({n: leaves[n] for n in (0, 1)}, OPS, 6))
    for n in range(2, 6):
        partial.add(n, leaves[n])  # writable: from here on they belong to the sum
    assert same_bits(partial.nodes()[(3, 0)], expected)


def test_long_vectors_are_summed_in_blocks_with_the_same_bits(tree_sum, same_bits):
    leaves = dict(enumerate(vectors(np.random.default_rng(3), 7, 200_001)))
    nodes = {(0, n): vector for n, vector in leaves.items()}
    out = tuple(np.empty_like(bucket) for bucket in leaves[0])
    assert reduce_nodes(nodes, OPS, 7, out) is out
    assert same_bits(out, tree_sum(leaves, OPS, 7))


def test_bfloat16_and_integers_can_be_summed():
    nodes = {(0, n): (np.full(3, n + 1, bfloat16), np.full(2, n, np.int64)) for n in range(4)}
    total, largest = reduce_nodes(nodes, ("sum", "max"), 4)
    assert total.dtype == bfloat16
    assert total.astype(float).tolist() == [10.0] * 3
    assert largest.tolist() == [3, 3]


def test_a_bfloat16_sum_is_the_float32_sum_rounded_to_nearest_even(same_bits):
    """Every bfloat16 number plus a tie, an overflow, a denormal, an infinity, a NaN; the oracle rounds by integers."""
    every = np.arange(1 << 16, dtype=np.uint16).view(bfloat16)
    for other in (1.0, 2.0**-8, -(2.0**-8), 3.38e38, 1e-40, -0.0, np.inf, -np.inf, np.nan):
        right = np.full_like(every, other)
        total = np.empty_like(every)
        with np.errstate(all="ignore"):
            combine("sum", every, right, total)
            exact = every.astype(np.float32) + right.astype(np.float32)
        bits = exact.view(np.uint32).astype(np.uint64)
        rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).view(bfloat16)
        isnan = np.isnan(exact)
        assert np.isnan(total[isnan].astype(np.float32)).all()
        assert same_bits([total[~isnan]], [rounded[~isnan]])


def test_overlapping_or_missing_nodes_are_refused():
    one = (np.ones(1, np.float32),)
    with pytest.raises(ValueError, match="together with a part of itself"):
        reduce_nodes({(2, 0): one, (0, 1): one}, ("sum",), 4)
    with pytest.raises(ValueError, match="nothing to sum"):
        reduce_nodes({}, ("sum",), 4)
    with pytest.raises(ValueError, match="not in the tree of 4"):
        reduce_nodes({(0, 4): one}, ("sum",), 4)
    with pytest.raises(ValueError, match="twice"):
        additions_of(((0, 1), (0, 1)))


def test_vectors_that_do_not_match_are_refused():
    one, two = (np.ones(1, np.float32),), (np.ones(2, np.float32),)
    with pytest.raises(ValueError, match="does not fit"):
        reduce_nodes({(0, 0): one, (0, 1): two}, ("sum",), 2)
    with pytest.raises(ValueError, match="'sum' or 'max'"):
        reduce_nodes({(0, 0): one}, ("mean",), 1)
    with pytest.raises(ValueError, match="contiguous"):
        reduce_nodes({(0, 0): (np.ones(6, np.float32)[::2],)}, ("sum",), 1)


def test_microbatches_must_come_in_order_and_inside_the_range():
    one = (np.ones(1, np.float32),)
    partial = TreeSum(8, ("sum",), 2, 6)
    partial.add(3, one)
    for wrong in (3, 2, 6):
        with pytest.raises(ValueError, match="cannot be added"):
            partial.add(wrong, one)
    partial.nodes()
    with pytest.raises(ValueError, match="was read"):
        partial.add(4, one)
