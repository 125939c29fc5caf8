"""How long workers may be silent or stand still: pure rules over heartbeats, no clock."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from heliostat.cluster.group import liveness
from heliostat.cluster.group.liveness import (
    LOADING_SILENCE_S,
    LONG_S,
    READING_S,
    SETUP_SILENCE_S,
    Activity,
    Heartbeat,
    Life,
    back_off_s,
    lateness_limit_s,
    must_be_named,
    silence_limit_s,
)
from heliostat.cluster.group.progress import processor_s
from heliostat.cluster.spec import FIRST_DEADLINE_S

DEADLINE_S, START_S = 5.0, 300.0


def reason_to_end(life, deadline_s, now_s):
    return liveness.reason_to_end(life, deadline_s, START_S, now_s)


def life_at(activity, *, beats=1, busy=0.0, began_s=100.0):
    """A worker that does this since `began_s` and says so every second, `busy` of which its process computes."""
    life = Life()
    for beat in range(beats):
        life.beat(Heartbeat(activity=activity, activity_s=float(beat), processor_s=busy * beat), began_s + beat)
    return life


def test_who_is_not_heard_of_waits_for_room_until_the_time_to_start_is_over():
    life = Life(launched_s=100.0)
    assert reason_to_end(life, DEADLINE_S, 100.0 + START_S) == ""
    assert "nothing was heard of it for 300 s" in reason_to_end(life, DEADLINE_S, 100.1 + START_S)
    assert not must_be_named(life, DEADLINE_S, 1e9)
    life.forgive(500.0)
    assert reason_to_end(life, DEADLINE_S, 500.0 + START_S) == "", "nobody listened"
    life.beat(Heartbeat(activity=Activity.LOAD), 900.0)
    assert reason_to_end(life, DEADLINE_S, 901.0) == "", "it is there"


@pytest.mark.parametrize(
    ("activity", "limit_s"),
    [
        (Activity.LOAD, LOADING_SILENCE_S),
        (Activity.SET_UP, SETUP_SILENCE_S),
        (Activity.COMPUTE, DEADLINE_S),
        (Activity.JOIN, DEADLINE_S),
    ],
)
def test_a_silent_worker_is_ended_after_what_its_activity_may_take(activity, limit_s):
    life = life_at(activity)
    assert silence_limit_s(life, DEADLINE_S) == limit_s
    assert reason_to_end(life, DEADLINE_S, 100.0 + limit_s - 0.1) == ""
    assert "did not answer" in reason_to_end(life, DEADLINE_S, 100.0 + limit_s + 0.1)
    assert silence_limit_s(life, 1000.0) == 1000.0, "the user's deadline may be longer"


def test_who_has_a_task_and_has_not_said_what_it_does_sets_itself_up():
    assert "did not answer" in reason_to_end(Life(heard_s=100.0), DEADLINE_S, 100.1 + SETUP_SILENCE_S)


def test_a_long_copy_of_the_state_is_no_silence():
    life = life_at(Activity.COMPUTE)
    life.copy_s = 8.0
    assert silence_limit_s(life, DEADLINE_S) == DEADLINE_S + 24.0


@pytest.mark.parametrize("activity", [Activity.LOAD, Activity.SET_UP])
def test_who_stands_still_is_named_and_then_ended_and_who_computes_is_not(activity):
    beats = int(FIRST_DEADLINE_S) + 2
    still, busy = life_at(activity, beats=beats, busy=0.01), life_at(activity, beats=beats, busy=0.5)
    now_s = 100.0 + beats - 1
    assert must_be_named(still, DEADLINE_S, now_s)
    assert "stood still at" in reason_to_end(still, DEADLINE_S, now_s)
    assert reason_to_end(busy, DEADLINE_S, now_s) == "", "compiling may take as long as it likes"
    assert not must_be_named(life_at(activity, beats=int(LONG_S), busy=0.5), DEADLINE_S, 100.0 + LONG_S - 1)
    assert must_be_named(busy, DEADLINE_S, now_s), "what computes may be another thread of the user's"
    assert not must_be_named(busy, 1000.0, now_s), "the user's deadline may be longer"


def test_what_a_child_process_has_computed_counts_once_it_has_ended():
    before_s = processor_s()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert processor_s() - before_s > 0.2


def test_another_activity_is_progress():
    life = life_at(Activity.LOAD, beats=200)
    life.beat(Heartbeat(activity=Activity.SET_UP, activity_s=0.5), 300.0)
    assert life.still_s(301.0) == 1.5


def test_setting_up_is_named_at_the_deadline_and_loading_later():
    assert must_be_named(life_at(Activity.SET_UP), DEADLINE_S, 106.0)
    assert not must_be_named(life_at(Activity.LOAD), DEADLINE_S, 106.0)
    assert must_be_named(life_at(Activity.LOAD), DEADLINE_S, 101.0 + LOADING_SILENCE_S / 2)


def test_what_was_not_said_while_nobody_listened_does_not_count():
    life = life_at(Activity.SET_UP)
    life.forgive(500.0)
    assert (life.silent_s(501.0), life.still_s(501.0)) == (1.0, 1.0)


def test_a_late_member_is_waited_for_by_what_it_does():
    def limit_s(activity, step_s=0.1):
        return lateness_limit_s(Heartbeat(activity=activity, step_s=step_s), DEADLINE_S)

    assert limit_s(Activity.COMPUTE) == 10 * DEADLINE_S
    assert limit_s(Activity.COMPUTE, step_s=0.0) == FIRST_DEADLINE_S
    assert limit_s(Activity.READ) == READING_S, "shared storage may stall"
    assert all(limit_s(each) == math.inf for each in (Activity.CALLBACKS, Activity.SAVE, Activity.COPY))


def test_tries_back_off():
    assert [back_off_s(num) for num in range(8)] == [0.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert back_off_s(10**6) == 60.0


def test_a_heartbeat_of_before_it_was_forgiven_does_not_bring_the_past_back():
    """It was put into the driver's queue while the worker still loaded; then the worker was given a task."""
    life = Life()
    life.begin(500.0)
    life.beat(Heartbeat(activity=Activity.LOAD, activity_s=400.0), 500.1)
    assert life.still_s(500.1) == pytest.approx(0.1)
