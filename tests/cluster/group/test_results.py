"""Results that other workers may need, and the memory of sums."""

from __future__ import annotations

import numpy as np
import pytest
from heliostat.cluster.group.results import Buckets, Results
from heliostat.cluster.vectors import empty_vector

LAYOUT = ((np.dtype(np.float32), 3), (np.dtype(np.float64), 2))


@pytest.fixture
def buckets():
    return Buckets(LAYOUT, ("sum", "max"), lambda: empty_vector(LAYOUT))


def a_sum(results, call, buckets, value):
    """What an all-reduce makes of its memory."""
    vector = results.memory(call, buckets, alone=False)
    for bucket in vector:
        bucket[:] = value
    results.keep(call, vector)
    return vector


def test_the_last_sum_is_kept_while_the_next_one_is_made(buckets):
    results = Results()
    for call in range(5):
        a_sum(results, call, buckets, call)
        assert results.take_sum(call, buckets, alone=False)[0].tolist() == [call] * 3
        assert call - 1 not in results, "nobody needs it any more"
        before, after = results.take_sum(call, buckets, alone=False), results.memory(call + 1, buckets, alone=False)
        assert before is not after


def test_a_worker_alone_uses_the_same_memory_again(buckets):
    results = Results()
    first = results.memory(0, buckets, alone=True)
    results.keep(0, first)
    assert results.memory(1, buckets, alone=True) is first


def test_sums_of_another_layout_have_memory_of_their_own(buckets):
    other = Buckets(LAYOUT[:1], ("sum",), lambda: empty_vector(LAYOUT[:1]))
    for alone in (True, False):
        results, used = Results(), {}
        for call in range(6):
            made_by = (buckets, other)[call % 2]
            vector = results.memory(call, made_by, alone=alone)
            results.keep(call, vector)
            results.take_sum(call, made_by, alone=alone)
            assert [(each.dtype, each.size) for each in vector] == list(made_by.layout)
            used.setdefault(call % 2, []).append(vector)
        assert all(vector is of_one[0] for of_one in used.values() for vector in of_one)


def test_what_is_handed_over_has_the_same_bits(buckets):
    donor, receiver = Results(), Results()
    a_sum(donor, 3, buckets, 1 / 3)
    donor.keep(4, b"what the chief told")
    assert (donor.first_lacking(3), receiver.first_lacking(3)) == (5, 3)
    for call in (3, 4):
        receiver.keep(call, donor.payload(call))
    assert receiver.payload(4) == b"what the chief told"
    for mine, theirs in zip(
        receiver.take_sum(3, buckets, alone=False), donor.take_sum(3, buckets, alone=False), strict=True
    ):
        assert (mine.dtype, mine.tobytes()) == (theirs.dtype, theirs.tobytes())
    assert 4 in receiver, "only results before a sum are dropped"


def test_before_the_first_generation_nothing_is_lacking():
    assert Results().first_lacking(-1) == -1
