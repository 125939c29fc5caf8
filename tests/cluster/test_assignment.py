from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from heliostat.cluster.assignment import assign, assign_by_time, reassign, slowest_s, split
from heliostat.cluster.tree import nodes_of
from hypothesis import given, settings
from hypothesis import strategies as st

counts = st.integers(1, 200)


def sizes(ranges):
    return [hi - lo for lo, hi in ranges]


@settings(deadline=None, derandomize=True)
@given(counts, st.integers(1, 20))
def test_ranges_are_contiguous_and_cover_every_microbatch_once(num_microbatches, num_workers):
    ranges = assign(num_microbatches, num_workers)
    assert len(ranges) == num_workers
    assert [n for lo, hi in ranges for n in range(lo, hi)] == list(range(num_microbatches))
    assert all(left[1] == right[0] for left, right in pairwise(ranges))


@settings(deadline=None, derandomize=True)
@given(counts, st.integers(1, 20))
def test_the_largest_range_is_at_most_a_third_above_the_most_even_one(num_microbatches, num_workers):
    assert 3 * max(sizes(assign(num_microbatches, num_workers))) <= 4 * -(-num_microbatches // num_workers)


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 8), st.integers(1, 300))
def test_a_power_of_two_of_microbatches_gives_every_worker_one_or_two_subtrees(exponent, num_workers):
    num_microbatches = 2**exponent
    for lo, hi in assign(num_microbatches, num_workers):
        assert len(nodes_of(lo, hi, num_microbatches)) <= 2


@pytest.mark.parametrize("exponents", [(a, b) for a in range(7) for b in range(a + 1)])
def test_powers_of_two_give_equal_ranges(exponents):
    microbatches, workers = 2 ** exponents[0], 2 ** exponents[1]
    assert set(sizes(assign(microbatches, workers))) == {microbatches // workers}


def test_known_assignments():
    assert sizes(assign(8, 3)) == [4, 2, 2]
    assert sizes(assign(4, 3)) == [2, 1, 1]
    assert sizes(assign(16, 3)) == [8, 4, 4]
    assert sizes(assign(16, 5)) == [4, 4, 4, 2, 2]
    assert sizes(assign(6, 2)) == [3, 3]
    assert sizes(assign(32, 3)) == [12, 12, 8]
    assert assign(2, 4) == ((0, 1), (1, 2), (2, 2), (2, 2))


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 12))
def test_split_is_even_with_the_larger_parts_first(lo, size, num_parts):
    parts = split(lo, lo + size, num_parts)
    assert [n for a, b in parts for n in range(a, b)] == list(range(lo, lo + size))
    assert sizes(parts) == sorted(sizes(parts), reverse=True)
    assert max(sizes(parts)) - min(sizes(parts)) <= 1
    assert len(parts) == num_parts


@pytest.mark.parametrize("arguments", [(0, 1), (1, 0), (-3, 2)])
def test_counts_below_one_are_refused(arguments):
    with pytest.raises(ValueError, match="at least 1"):
        assign(*arguments)


def test_a_range_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match="lo=3, hi=2"):
        split(3, 2, 1)


@st.composite
def partly_held(draw):
    """Some microbatches, cut anywhere, each piece held by one of some workers or by nobody."""
    num_microbatches, num_workers = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    borders = sorted({0, num_microbatches, *draw(st.lists(st.integers(0, num_microbatches), max_size=8))})
    held = [[] for _ in range(num_workers)]
    for piece in pairwise(borders):
        owner = draw(st.integers(-1, num_workers - 1))
        if owner >= 0:
            held[owner].append(piece)
    return num_microbatches, held


@settings(deadline=None, derandomize=True)
@given(partly_held())
def test_what_nobody_holds_is_handed_out_once_and_what_is_held_stays(case):
    num_microbatches, held = case
    result = reassign(num_microbatches, held)
    assert sorted(n for ranges in result for lo, hi in ranges for n in range(lo, hi)) == list(range(num_microbatches))
    assert all(list(ranges[: len(own)]) == own for ranges, own in zip(result, held, strict=True))


@settings(deadline=None, derandomize=True)
@given(partly_held())
def test_what_is_handed_out_levels_the_load(case):
    num_microbatches, held = case
    result = reassign(num_microbatches, held)
    loads = [sum(sizes(ranges)) for ranges in result]
    given_to = [load for load, own in zip(loads, held, strict=True) if load > sum(sizes(own))]
    assert not given_to or max(given_to) <= min(loads) + 1, "who was given something has at most one more than anybody"


def test_known_handouts():
    assert reassign(4, [(), ()]) == (((0, 2),), ((2, 4),))
    assert reassign(4, [((0, 2),), ()]) == (((0, 2),), ((2, 4),))
    assert reassign(8, [((0, 2),), ((4, 6),)]) == (((0, 2), (2, 4)), ((4, 6), (6, 8)))
    assert reassign(8, [((0, 6),), (), ()]) == (((0, 6),), ((6, 7),), ((7, 8),))
    assert reassign(3, [((0, 3),), ()]) == (((0, 3),), ())
    assert reassign(2, [(), (), ()]) == (((0, 1),), ((1, 2),), ())


@pytest.mark.parametrize("held", [[((0, 2),), ((1, 3),)], [((3, 5),)], [((2, 1),)], [((-1, 1),)]])
def test_what_two_hold_or_nobody_can_hold_is_refused(held):
    with pytest.raises(ValueError, match="4 microbatches"):
        reassign(4, held)


def test_nothing_is_handed_out_to_nobody():
    with pytest.raises(ValueError, match="num_workers must be at least 1"):
        reassign(4, [])


@st.composite
def paced(draw, most=12):
    """Few microbatches, so that all cuts can be looked at."""
    num_workers, unit = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    num_microbatches = draw(st.integers(num_workers * unit, most))
    times_s = draw(st.lists(st.floats(0.01, 10.0), min_size=num_workers, max_size=num_workers))
    return num_microbatches, times_s, unit


def cuts(num_units, num_parts):
    """Every way to cut so many units into so many parts with at least one each."""
    for inner in combinations(range(1, num_units), num_parts - 1):
        yield tuple(pairwise((0, *inner, num_units)))


def units(ranges, unit):
    return [-(-(hi - lo) // unit) for lo, hi in ranges]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(paced())
def test_a_cut_by_time_is_within_two_percent_of_the_best_and_has_the_fewest_nodes_of_those(case):
    num_microbatches, times_s, unit = case
    num_units = -(-num_microbatches // unit)
    ranges = assign_by_time(num_microbatches, times_s, unit)
    assert [n for lo, hi in ranges for n in range(lo, hi)] == list(range(num_microbatches))
    assert all(lo % unit == 0 and lo < hi for lo, hi in ranges), "whole units, and nobody has none"
    assert len(ranges) == len(times_s)

    found = {}
    for cut in cuts(num_units, len(times_s)):
        scaled = tuple((lo * unit, min(hi * unit, num_microbatches)) for lo, hi in cut)
        found[scaled] = sum(len(nodes_of(lo, hi, num_microbatches)) for lo, hi in scaled)
    best_s = min(slowest_s(units(cut, unit), times_s) for cut in found)
    assert slowest_s(units(ranges, unit), times_s) <= 1.02 * best_s
    near = [nodes for cut, nodes in found.items() if slowest_s(units(cut, unit), times_s) <= 1.02 * best_s * (1 - 1e-9)]
    assert found[ranges] <= min(near, default=found[ranges])


def test_known_cuts_by_time():
    assert sizes(assign_by_time(8, [1.0, 3.0])) == [6, 2]
    assert sizes(assign_by_time(8, [3.0, 1.0])) == [2, 6]
    assert sizes(assign_by_time(8, [1.0, 2.0])) == [6, 2], "as fast as 5 and 3, and one node less"
    assert sizes(assign_by_time(8, [1.0, 1.0, 9.0])) == [4, 3, 1]
    assert sizes(assign_by_time(16, [1.0, 3.0], unit=4)) == [12, 4]
    assert sizes(assign_by_time(10, [5.0, 1.0], unit=4)) == [4, 6], "the last unit is short"
    assert sizes(assign_by_time(2, [1.0, 100.0])) == [1, 1]


@pytest.mark.parametrize("num_workers", [2, 64])
def test_a_cut_of_many_microbatches_is_still_made_of_whole_ranges(num_workers):
    times_s = [1.0 + (7 * rank % 13) / 10 for rank in range(num_workers)]
    ranges = assign_by_time(2048, times_s)
    assert [n for lo, hi in ranges for n in range(lo, hi)] == list(range(2048))
    assert slowest_s(sizes(ranges), times_s) <= 1.02 * (2048 / sum(1 / time_s for time_s in times_s) + max(times_s))


@pytest.mark.parametrize("arguments", [(8, [1.0, 0.0]), (8, [1.0, -1.0]), (3, [1.0] * 4), (8, [1.0] * 3, 4)])
def test_what_cannot_be_dealt_by_time_is_refused(arguments):
    with pytest.raises(ValueError, match="cannot be dealt out"):
        assign_by_time(*arguments)
