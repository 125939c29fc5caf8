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
