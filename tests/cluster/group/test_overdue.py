"""Who is named and who is ended, for states and heartbeats as they come: no clock, no worker."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from heliostat.cluster.group.controller_state import TaskState
from heliostat.cluster.group.liveness import SETUP_SILENCE_S, Activity, Heartbeat, Life
from heliostat.cluster.group.messages import JoinRequest
from heliostat.cluster.group.overdue import Overdue
from heliostat.cluster.spec import GroupSpec

DEADLINE_S = 4.0
BEGAN_S = 100.0
REPORTED = MappingProxyType({0: JoinRequest(waiting_at="step")})


def heard(activity=Activity.COMPUTE, step_s=0.1):
    life = Life()
    life.beat(Heartbeat(activity=activity, step_s=step_s), BEGAN_S)
    return life


def look(overdue, state, lives, now_s, launched=()):
    return overdue.to_name(state, lives, launched, now_s), overdue.to_end(state, lives, launched, now_s)


@pytest.fixture
def overdue():
    return Overdue(GroupSpec(num_workers=3, deadline_s=DEADLINE_S))


def test_a_member_that_is_silent_is_ended_one_at_a_time(overdue):
    state = TaskState(status="running", generation=0, members=(0, 1, 2))
    lives = {worker: heard() for worker in range(3)}
    assert look(overdue, state, lives, BEGAN_S + 3.9) == ([], {})
    lives[0].hear(BEGAN_S + 4.0)
    named, ended = look(overdue, state, lives, BEGAN_S + 4.1)
    assert (named, list(ended)) == ([], [1])
    assert "did not answer" in ended[1]


def test_a_member_that_falls_silent_before_its_first_heartbeat_is_ended(overdue):
    state = TaskState(status="running", generation=0, members=(0, 1))
    lives = {0: Life(), 1: heard()}
    lives[0].begin(BEGAN_S)
    lives[1].hear(BEGAN_S + SETUP_SILENCE_S + 0.1)
    assert look(overdue, state, lives, BEGAN_S + SETUP_SILENCE_S - 0.1)[1].get(0) is None
    _, ended = look(overdue, state, lives, BEGAN_S + SETUP_SILENCE_S + 0.1)
    assert "did not answer" in ended[0]


def test_who_waits_for_the_others_is_not_overdue(overdue):
    state = TaskState(status="regrouping", generation=0, members=(0,), requests=REPORTED)
    overdue.waiting_since_s = BEGAN_S
    assert look(overdue, state, {0: heard()}, BEGAN_S + 1e6) == ([], {})


@pytest.mark.parametrize(("activity", "limit_s"), [(Activity.COMPUTE, 40.0), (Activity.READ, 600.0)])
def test_who_is_waited_for_is_named_once_and_ended_later(overdue, activity, limit_s):
    state = TaskState(status="regrouping", generation=0, members=(0, 1), requests=REPORTED)
    lives = {0: heard(), 1: heard(activity)}
    overdue.waiting_since_s = BEGAN_S

    def at(after_s):
        lives[1].hear(BEGAN_S + after_s)  # it answers
        return look(overdue, state, lives, BEGAN_S + after_s)

    assert at(3.9) == ([], {})
    assert at(4.0) == ([1], {})
    assert at(limit_s) == ([], {})
    named, ended = at(limit_s + 0.1)
    assert (named, list(ended)) == ([], [1])
    assert f"stood still at '{activity.value}'" in ended[1]
    overdue.formed()
    assert at(limit_s + 0.2) == ([], {}), "nobody is waited for"


def test_who_is_asked_for_its_state_after_a_long_wait_has_all_its_time(overdue):
    """The others waited for a replacement, for longer than the limit; then its donor is asked."""
    state = TaskState(status="regrouping", generation=0, members=(0, 1), requests={1: JoinRequest(waiting_at="step")})
    lives = {0: heard(Activity.REGROUP), 1: heard(Activity.REGROUP)}
    overdue.waiting_since_s = BEGAN_S
    asked_s = BEGAN_S + 1000.0
    for life in lives.values():
        life.hear(asked_s)
    overdue.answered(lives[0], asked_s)
    assert look(overdue, state, lives, asked_s + 0.25) == ([], {})
    lives[0].hear(asked_s + 40.1)
    assert list(look(overdue, state, lives, asked_s + 40.1)[1]) == [0], "it is late as others are"


def test_a_donor_without_a_place_has_all_its_time_as_well(overdue):
    state = TaskState(starting=frozenset({0}), requests={1: JoinRequest(waiting_at="join")})
    lives = {0: heard(Activity.JOIN, step_s=0.0)}
    asked_s = BEGAN_S + 1000.0
    overdue.answered(lives[0], asked_s)
    lives[0].beat(Heartbeat(activity=Activity.JOIN, activity_s=1000.5), asked_s + 0.5)
    assert look(overdue, state, lives, asked_s + 0.5) == ([], {})


BY_THEMSELVES = (Activity.READ, Activity.COMPUTE, Activity.VALIDATE, Activity.EVALUATE, Activity.PREDICT)


@pytest.mark.parametrize("activity", BY_THEMSELVES)
@pytest.mark.parametrize("members", [(0,), (0, 1)])
def test_who_stands_still_by_itself_is_named_once_and_ended_after_ten_minutes(overdue, activity, members):
    """Storage stalls for all, so nobody waits in a call for anybody."""
    state = TaskState(status="running", generation=0, members=members)
    lives = {worker: heard(activity) for worker in members}

    def at(after_s):
        for life in lives.values():
            life.beat(Heartbeat(activity=activity, activity_s=after_s, step_s=0.1), BEGAN_S + after_s)
        return look(overdue, state, lives, BEGAN_S + after_s)

    assert at(3.9) == ([], {})
    assert at(4.0) == (list(members), {})
    assert at(600.0) == ([], {})
    named, ended = at(600.1)
    assert (named, list(ended)) == ([], [0]), "one at a time"
    assert f"stood still at '{activity.value}' for 600 s" in ended[0]


@pytest.mark.parametrize("activity", sorted(set(Activity) - {*BY_THEMSELVES}, key=lambda each: each.name))
def test_who_waits_in_a_running_group_or_may_take_long_is_not_overdue(overdue, activity):
    state = TaskState(status="running", generation=0, members=(0,))
    lives = {0: heard(activity)}
    lives[0].hear(BEGAN_S + 1e6)
    assert look(overdue, state, lives, BEGAN_S + 1e6) == ([], {})


def test_steps_without_much_computing_are_no_standing_still(overdue):
    """Each heartbeat happens to find the same activity, of another step."""
    state = TaskState(status="running", generation=0, members=(0,))
    lives = {0: heard()}
    for second in range(1, 1000):
        lives[0].beat(Heartbeat(activity=Activity.COMPUTE, activity_s=0.3, step_s=0.1), BEGAN_S + second)
        assert look(overdue, state, lives, BEGAN_S + second) == ([], {})


def test_what_the_driver_was_away_for_counts_against_nobody(overdue):
    state = TaskState(status="regrouping", generation=0, members=(0, 1), requests=REPORTED)
    lives = {0: heard(), 1: heard()}
    overdue.waiting_since_s = BEGAN_S
    overdue.stalled(1000.0)
    lives[1].forgive(BEGAN_S + 1001.0)
    assert look(overdue, state, lives, BEGAN_S + 1001.0) == ([], {})


def test_who_is_let_go_and_does_not_end_is_ended(overdue):
    state = TaskState(status="ending", generation=0, members=(1,))
    lives = {1: heard(Activity.END)}
    overdue.waiting_since_s = BEGAN_S
    lives[1].hear(BEGAN_S + 41.0)
    assert list(look(overdue, state, lives, BEGAN_S + 41.0)[1]) == [1]


def test_who_has_no_place_yet_is_looked_at_whatever_the_others_do(overdue):
    state = TaskState(status="running", generation=0, members=(0,), starting=frozenset({1}))
    lives = {0: heard(), 1: heard(Activity.SET_UP), 2: heard(Activity.LOAD), 3: Life()}
    now_s = BEGAN_S + SETUP_SILENCE_S + 0.1
    lives[0].hear(now_s)
    named, ended = look(overdue, state, lives, now_s, launched={2, 3})
    assert (named, list(ended)) == ([1, 2], [1])
    assert look(overdue, state, lives, now_s, launched={2, 3})[0] == [], "each is named once"


def test_who_was_placed_and_hangs_before_its_first_word_is_ended(overdue):
    state = TaskState(status="running", generation=0, members=(0,))
    lives = {0: heard(Activity.ALL_REDUCE), 3: Life(launched_s=BEGAN_S)}
    for after_s, ended in ((300.0, []), (300.1, [3])):
        lives[0].hear(BEGAN_S + after_s)
        assert list(look(overdue, state, lives, BEGAN_S + after_s, launched={3})[1]) == ended
