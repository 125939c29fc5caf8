"""When microbatches are dealt anew: simulated groups whose workers are slow, noisy, and recover."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from heliostat.cluster.pace import (
    MAX_PATIENCE,
    NUM_PACED,
    PATIENCE,
    WINDOW_STEPS,
    Change,
    Dealing,
    Measured,
    Pace,
    Pacer,
    Watch,
    better_ranges,
)
from hypothesis import given, settings
from hypothesis import strategies as st

REST_S = 0.02  # of a step besides computing


class Group:
    """Workers that compute, a step at a time; the clock is theirs.

    Args:
        speeds: seconds for one microbatch on each replica, by worker.
        jitter: every step is up to so much faster or slower.
        cost_s: what a step takes longer by, for every node of the tree, in spite of all predictions.
    """

    def __init__(self, num_microbatches, speeds, *, num_replicas=1, jitter=0.0, seed=0, surprise=None):
        self.dealing = Dealing(num_microbatches=num_microbatches, num_replicas=num_replicas)
        self.speeds, self.jitter, self.random = dict(enumerate(speeds)), jitter, random.Random(seed)
        self.surprise = surprise or (lambda ranges: 0.0)
        self.watch = Watch(dealing=self.dealing)
        self.now_s, self.step = 0.0, 0
        self.changes, self.measured = [], []
        self.form()

    @property
    def sizes(self):
        return [hi - lo for lo, hi in self.ranges]

    def form(self):
        self.members = tuple(sorted(self.speeds))
        self.ranges = self.dealing.ranges(self.members)
        self.watch, self.said = self.watch.formed(self.members, self.ranges)
        self.pacers = {worker: Pacer() for worker in self.members}

    def run(self, steps):
        for _ in range(steps):
            self.step += 1
            noise = [self.random.uniform(1 - self.jitter, 1 + self.jitter) for _ in self.members]
            paces_s = [self.speeds[worker] * each for worker, each in zip(self.members, noise, strict=True)]
            step_s = REST_S + self.surprise(self.ranges) + self.dealing.slowest_s(self.ranges, paces_s)
            self.now_s += step_s
            for worker, pace_s in zip(self.members, paces_s, strict=True):
                self.pacers[worker].note(pace_s, step_s)
            self.look()
        return self

    def look(self):
        paces = {each: (self.step, pacer.pace) for each, pacer in self.pacers.items() if pacer.pace is not None}
        self.watch, found = self.watch.look(self.now_s, paces)
        if isinstance(found, Change):
            assert found.expected_s < 0.9 * found.step_s
            self.changes.append(found)
            self.dealing = replace(self.dealing, times_s=found.times_s)
            self.form()
            assert self.said == self.watch.made == found
        elif isinstance(found, Measured):
            self.measured.append(found)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    num_workers=st.integers(2, 8),
    per_worker=st.integers(2, 32),
    odd=st.integers(0, 3),
    num_replicas=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_noise_of_20_percent_moves_nothing_among_equal_workers(num_workers, per_worker, odd, num_replicas, seed):
    num_microbatches = num_workers * per_worker * num_replicas + odd
    group = Group(num_microbatches, [0.1] * num_workers, num_replicas=num_replicas, jitter=0.2, seed=seed).run(300)
    assert not group.changes


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    num_workers=st.integers(2, 6),
    per_worker=st.integers(4, 16),
    slowness=st.floats(1.6, 6.0),
    data=st.data(),
    seed=st.integers(0, 1000),
)
def test_a_steady_slow_worker_is_balanced_with_few_moves_and_nothing_swings(
    num_workers, per_worker, slowness, data, seed
):
    speeds = [0.1] * num_workers
    slow = data.draw(st.integers(0, num_workers - 1))
    speeds[slow] *= slowness
    group = Group(num_workers * per_worker, speeds, jitter=0.1, seed=seed)
    before = group.sizes[slow]
    group.run(200)
    moves = len(group.changes)
    assert 1 <= moves <= 2
    assert group.sizes[slow] < before
    best = replace(group.dealing, times_s=group.speeds).ranges(group.members)
    best_s = group.dealing.slowest_s(best, speeds)
    assert group.dealing.slowest_s(group.ranges, speeds) + REST_S <= (best_s + REST_S) / 0.85
    group.run(200)
    assert len(group.changes) <= moves + 1
    assert {each.change.after for each in group.measured} <= {each.after for each in group.changes}


@pytest.mark.parametrize("num_workers", [2, 3, 5])
def test_it_goes_back_when_the_slow_one_recovers(num_workers):
    group = Group(8 * num_workers, [0.3, *[0.1] * (num_workers - 1)], jitter=0.1)
    usual = group.ranges
    group.run(200)
    assert group.sizes[0] < 5
    group.speeds[0] = 0.1
    group.run(200)
    assert group.ranges == usual
    assert len(group.changes) <= 4
    group.run(300)
    assert group.ranges == usual
    assert len(group.changes) <= 4


def test_a_short_slowness_moves_nothing():
    group = Group(8, [0.1, 0.1]).run(50)
    group.speeds[1] = 0.5
    group.run(NUM_PACED)  # two windows in which the median may be that of the slow time
    group.speeds[1] = 0.1
    group.run(100)
    assert not group.changes


def test_a_gain_must_be_there_for_windows_of_steps_and_of_seconds():
    slow_steps = Group(8, [1.0, 3.0])
    slow_steps.run(WINDOW_STEPS * (PATIENCE + 1) - 1)
    assert not slow_steps.changes
    slow_steps.run(1)
    assert len(slow_steps.changes) == 1

    quick_steps = Group(8, [0.001, 0.003])
    while not quick_steps.changes:
        quick_steps.run(1)
    assert PATIENCE <= quick_steps.now_s < PATIENCE + 2
    assert quick_steps.step > 50


def test_what_came_of_a_change_is_measured():
    group = Group(8, [0.1, 0.3]).run(200)
    (change,), (measured,) = group.changes, group.measured
    assert [hi - lo for lo, hi in change.before] == [4, 4]
    assert group.sizes == [6, 2]
    assert (change.step_s, change.expected_s) == pytest.approx((4 * 0.3 + REST_S, 6 * 0.1 + REST_S))
    assert measured.step_s == pytest.approx(change.expected_s)


def test_a_gain_that_does_not_come_makes_the_next_change_wait_longer():
    def surprise(ranges):  # whatever was to be gained is lost, the other way round
        return 2.0 if ranges[0] == (0, 6) else 0.0

    group = Group(8, [0.1, 0.3], surprise=surprise).run(100)
    (measured,) = group.measured
    assert measured.step_s > measured.change.step_s
    assert group.watch.patience == 2 * PATIENCE
    at = group.step
    group.speeds = {0: 0.3, 1: 0.1}
    while len(group.changes) < 2:
        group.run(1)
    assert group.step - at >= WINDOW_STEPS * 2 * PATIENCE
    assert group.run(200).watch.patience == PATIENCE, "this one has brought what was expected"


def test_patience_has_an_end():
    group = Group(8, [0.1, 0.3], surprise=lambda ranges: 1.0 if ranges[0] == (0, 6) else 0.0)
    group.watch = replace(group.watch, patience=MAX_PATIENCE)
    group.run(WINDOW_STEPS * (MAX_PATIENCE + 4))
    assert len(group.measured) == 1
    assert group.watch.patience == MAX_PATIENCE


def test_the_rest_of_a_step_counts():
    dealing = Dealing(num_microbatches=8)
    paces = [Pace(compute_s=0.001, step_s=0.2), Pace(compute_s=0.003, step_s=0.2)]
    assert better_ranges(dealing, (0, 1), ((0, 4), (4, 8)), paces) is None, "6 ms of 200 are not worth it"


@pytest.mark.parametrize(("num_microbatches", "num_replicas"), [(2, 1), (4, 2), (3, 2)])
def test_where_each_replica_has_one_microbatch_nothing_is_moved(num_microbatches, num_replicas):
    dealing = Dealing(num_microbatches=num_microbatches, num_replicas=num_replicas)
    assert not dealing.leaves_choice(2)
    paces = [Pace(compute_s=0.1, step_s=1.0), Pace(compute_s=0.9, step_s=1.0)]
    assert better_ranges(dealing, (0, 1), dealing.ranges((0, 1)), paces) is None


def test_a_worker_with_several_replicas_has_whole_rounds_of_them():
    dealing = Dealing(num_microbatches=32, num_replicas=4, times_s={0: 0.1, 1: 0.3})
    assert dealing.ranges((0, 1)) == ((0, 24), (24, 32))


def test_who_is_new_counts_as_usual_and_who_is_gone_does_not_count():
    dealing = Dealing(num_microbatches=16, times_s={0: 0.1, 1: 0.4, 2: 0.1})
    assert dealing.ranges((0, 1, 3)) == dealing.ranges((0, 1, 2))
    assert dealing.ranges((0, 3)) == ((0, 8), (8, 16))
    assert [hi - lo for lo, hi in dealing.ranges((0, 1))] == [13, 3]


def decided(speeds):
    """A group for which a change was decided that is not made yet."""
    group = Group(12, speeds)
    while group.watch.pending is None:
        group.step += 1
        for worker in group.members:
            group.pacers[worker].note(group.speeds[worker], 1.7)
        group.now_s += 1.7
        paces = {each: (group.step, pacer.pace) for each, pacer in group.pacers.items() if pacer.pace is not None}
        group.watch, _ = group.watch.look(group.now_s, paces)
    assert group.watch.look(group.now_s + 100, paces) == (group.watch, None), "it is being made"
    return group


def test_a_change_that_a_death_has_overtaken_is_told_as_what_it_is_for_the_others_and_not_measured():
    group = decided([0.1, 0.1, 0.4])
    ranges = replace(group.dealing, times_s=group.watch.pending.times_s).ranges((0, 2))  # worker 1 has died
    formed, said = group.watch.formed((0, 2), ranges)
    assert (said.members, said.before, said.after) == ((0, 2), ((0, 6), (6, 12)), ranges)
    assert ranges != said.before
    assert dict(said.times_s) == {0: 0.1, 2: 0.4}
    rest_s = 1.7 - 4 * 0.4
    assert said.step_s == pytest.approx(rest_s + 6 * 0.4)
    assert said.expected_s == pytest.approx(rest_s + 10 * 0.1)
    assert (formed.made, formed.pending, formed.patience) == (None, None, 2 * PATIENCE)
    assert formed.formed((0, 2), ranges) == (formed, None), "it is told once"


def test_a_change_that_the_slow_ones_death_has_overtaken_is_none():
    group = decided([0.1, 0.1, 0.4])
    formed, said = group.watch.formed((0, 1), ((0, 6), (6, 12)))
    assert (said, formed.made, formed.patience) == (None, None, PATIENCE)


def test_a_change_whose_gain_a_death_keeps_from_being_measured_is_told_so_and_makes_the_next_one_wait_longer():
    group = Group(12, [0.1, 0.1, 0.4])
    while not group.changes:
        group.run(1)
    group.run(WINDOW_STEPS)
    (change,) = group.changes
    del group.speeds[1]
    group.form()
    assert group.said == Measured(change=change, step_s=None)
    assert group.watch.patience == 2 * PATIENCE
    group.form()
    assert group.said is None


def test_a_change_is_measured_in_the_next_generation_too_if_that_is_the_same_group():
    group = Group(12, [0.1, 0.1, 0.4])
    while not group.changes:
        group.run(1)
    group.run(WINDOW_STEPS).form()
    assert group.said is None
    assert len(group.run(10 * WINDOW_STEPS).measured) == 1


def test_who_is_not_heard_of_is_waited_for():
    watch, _ = Watch(dealing=Dealing(num_microbatches=8)).formed((0, 1), ((0, 4), (4, 8)))
    pace = Pace(compute_s=0.1, step_s=1.0)
    assert watch.look(5.0, {0: (100, pace)}) == (watch, None)
    assert Watch(dealing=Dealing(num_microbatches=8)).look(5.0, {})[1] is None


def test_a_pace_is_a_median_of_the_last_steps():
    pacer = Pacer()
    for number in range(WINDOW_STEPS - 1):
        pacer.note(1.0 + number, 2.0)
    assert pacer.pace is None
    pacer.note(100.0, 2.0)
    assert pacer.pace == Pace(compute_s=4.5, step_s=2.0)
    for _ in range(NUM_PACED):
        pacer.note(3.0, 4.0)
    assert pacer.pace == Pace(compute_s=3.0, step_s=4.0)
    pacer.start_anew()
    assert pacer.pace is None
