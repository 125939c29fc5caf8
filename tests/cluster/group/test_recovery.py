"""Workers of this process die, hang, come and go at named points; the result keeps the bits of an undisturbed run."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from heliostat.cluster.errors import PlacementError, TaskFailed
from heliostat.cluster.group import liveness, member, overdue
from heliostat.cluster.group.controller_state import PaceChanged
from heliostat.cluster.group.driver_loop import TaskLoop
from heliostat.cluster.group.liveness import Activity, Heartbeat
from heliostat.cluster.group.messages import Failure, InitialStateChanged, JoinRequest, WorkerAlive
from heliostat.cluster.group.task import Task
from heliostat.cluster.group.worker_process import WorkerKilled
from heliostat.cluster.pace import Dealing
from heliostat.cluster.pools import local

from .conftest import Start
from .script import Script, current_worker
from .toy import OPS, Applied, Job, applied, beginning, contribution, moved
from .toy_group import JOB, LEAVES, Toys, check, lost, undisturbed

BIG = Job(length=9000, num_steps=6)  # its sums are cut into slices, one per worker
POINTS = ("compute", "reduce", "sending", "receiving", "summed", "applied")

# A worker that comes while others talk to the driver is let in at the next step. So a test that waits for one holds the
# others at a step that comes straight after another one (4, 5, 7, 8).


# -- nothing happens ------------------------------------------------------------------------------------------------


def test_one_worker_sums_along_the_tree(tree_sum):
    state = beginning(JOB)
    total = tree_sum({v: contribution(state, v) for v in range(6)}, OPS, 6)
    assert undisturbed(JOB)[0].digest() == applied(moved(state, total)).digest()


@pytest.mark.parametrize("job", [JOB, BIG], ids=["small", "big"])
@pytest.mark.parametrize("num_workers", [2, 3, 7])
def test_any_number_of_workers_computes_the_same(start, job, num_workers):
    toys = start(num_workers)
    check(toys, toys.run(job), job)
    assert len(toys.driver.generations) == 1
    assert all(len(history) == job.num_steps for history in toys.driver.histories.values())


def test_one_group_runs_task_after_task(start):
    toys = start(2)
    check(toys, toys.run(JOB))
    check(toys, toys.run(JOB))
    half = toys.run(Job(num_steps=4))
    check(toys, toys.run(Job(keep=True)))
    assert half.digest() == undisturbed(JOB)[3].digest()


def test_a_task_after_one_with_losses_begins_at_once(start, script):
    toys = start(4)
    script.kill(1, "reduce", 2)
    script.kill(2, "reduce", 5)
    check(toys, toys.run(JOB))
    assert len(toys.driver.generations) > 2
    check(toys, toys.run(JOB, num_needed=2))
    assert [formed.generation for formed in toys.driver.generations] == [0], "the old task's generations were over"


# -- one death ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker", [0, 2], ids=["chief", "other"])
@pytest.mark.parametrize("point", POINTS)
def test_survivors_go_on_after_a_death(start, script, point, worker):
    script.kill(worker, point, 4)
    toys = start(3)
    check(toys, toys.run(JOB))
    assert lost(toys) == [worker]
    assert toys.driver.members == tuple(each for each in (0, 1, 2) if each != worker)


@pytest.mark.parametrize("worker", [0, 2], ids=["chief", "other"])
@pytest.mark.parametrize("point", POINTS)
def test_a_replacement_joins_after_a_death(start, script, point, worker):
    script.kill(worker, point, 3)
    script.hold(None, "compute", 5, lambda: script.welcomed(3))
    toys = start(3, max_launches=4)
    check(toys, toys.run(JOB))
    assert lost(toys) == [worker]
    assert 3 in toys.driver.members
    assert len(toys.driver.members) == 3
    assert toys.driver.histories[3][0].step >= 4, "the replacement computed what was done before"


@pytest.mark.parametrize("worker", [0, 1], ids=["chief", "other"])
@pytest.mark.parametrize("point", ["compute", "sending", "receiving", "summed"])
def test_sums_that_are_cut_into_slices_survive_a_death(start, script, point, worker):
    script.kill(worker, point, 4)
    toys = start(3)
    check(toys, toys.run(BIG), BIG)
    assert lost(toys) == [worker]


@pytest.mark.parametrize("worker", [0, 2], ids=["chief", "other"])
def test_a_death_at_the_end_leaves_the_result_to_another(start, script, worker):
    script.kill(worker, "end")
    toys = start(3)
    check(toys, toys.run(JOB))
    assert lost(toys) == [worker]


def test_who_delivers_dies_twice_and_the_last_one_delivers(start, script):
    script.kill(0, "deliver").kill(1, "deliver")
    toys = start(3)
    check(toys, toys.run(JOB))
    assert lost(toys) == [0, 1]


def test_a_death_in_the_first_step_of_all(start, script):
    script.kill(1, "join")
    toys = start(3)
    check(toys, toys.run(JOB))
    assert lost(toys) == [1]


# -- several deaths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victims", [(1, 3), (0, 1), (0, 2, 3)])
@pytest.mark.parametrize("point", ["compute", "sending", "applied"])
def test_deaths_in_the_same_step(start, script, point, victims):
    for victim in victims:
        script.kill(victim, point, 4, after="compute")
    toys = start(4)
    check(toys, toys.run(JOB))
    assert sorted(lost(toys)) == list(victims)


@pytest.mark.parametrize("second", [0, 1], ids=["chief", "other"])
@pytest.mark.parametrize("replaced", [False, True], ids=["survivors", "replaced"])
def test_a_death_while_the_group_regroups(start, script, second, replaced):
    script.kill(2, "compute", 4).kill(second, "regroup")
    if replaced:
        script.hold(None, "compute", 5, lambda: script.welcomed(3) and script.welcomed(4))
    toys = start(3, max_launches=5 if replaced else 3)
    check(toys, toys.run(JOB))
    assert sorted(lost(toys)) == [second, 2]


@pytest.mark.parametrize("donor_dies", ["", "before", "after"])
def test_who_has_the_sum_hands_it_to_who_lacks_it(start, script, donor_dies):
    """The chief brings its part of step 4 to worker 1 and dies before worker 2 has it."""
    script.hold(0, "compute", 4, lambda: script.saw(1, "sending", 4) == script.saw(2, "sending", 4) == 2)
    script.kill(0, "sending", 4, once=lambda: script.saw(1, "summed", 4) > 0)
    if donor_dies:
        script.kill(1, "regroup" if donor_dies == "before" else "sending", after="regroup")
    toys = start(3)
    check(toys, toys.run(JOB))
    assert sorted(lost(toys)) == ([0, 1] if donor_dies else [0])
    if donor_dies != "after":  # then worker 2 may have got it or not
        again = 2 if donor_dies else 1
        assert script.saw(2, "compute", 4) == again, "it computes step 4 again only if nobody has it"


def test_a_sum_and_a_payload_are_handed_over_together(start, script):
    """Worker 1 brings its part of step 2 to the chief only; the chief goes on alone through the call after it."""
    script.hold(1, "compute", 2, lambda: script.saw(0, "sending", 2) == script.saw(2, "sending", 2) == 2)
    script.kill(1, "sending", 2, once=lambda: script.saw(0, "ask", 3) > 0)
    toys = start(3)
    check(toys, toys.run(JOB))
    assert lost(toys) == [1]
    assert script.saw(2, "compute", 2) == 1
    assert script.saw(0, "produce", 3) == 1


@pytest.mark.parametrize("point", ["make", "setup", "join"])
def test_the_replacement_dies_as_well_and_the_next_one_joins(start, script, point):
    script.kill(2, "compute", 2).kill(3, point)
    script.hold(None, "compute", 5, lambda: script.welcomed(4))
    if point == "join":
        script.hold(None, "compute", 4, lambda: script.welcomed(3))
    toys = start(3, max_launches=5)
    check(toys, toys.run(JOB))
    assert lost(toys) == ([2, 3] if point == "join" else [2])
    assert toys.driver.members == (0, 1, 4)


def test_the_donor_dies_and_the_next_one_donates(start, script):
    # Who lacks the sum of the step before donates nothing: worker 0 must have it.
    script.kill(2, "compute", 2, once=lambda: script.saw(0, "compute", 2) > 0).kill(0, "donate")
    script.hold(None, "compute", 4, lambda: script.welcomed(3))
    toys = start(3, max_launches=4)
    check(toys, toys.run(JOB))
    assert lost(toys) == [2, 0]
    assert toys.driver.members == (1, 3)
    assert script.saw(1, "donate", None) == 1


def test_a_donor_that_had_to_wait_for_the_replacement_is_given_its_time_from_then_on(start, script):
    waited_s = []

    def has_waited_for_long() -> bool:
        has_waited = script.saw("lost", 1) > 0 and script.saw("report", 0, None) > 1
        if has_waited:
            toys.loop._overdue.waiting_since_s -= 1e6
        return has_waited

    script.kill(1, "compute", 3).hold(2, "setup", None, has_waited_for_long)
    script.on(0, "donate", None, lambda: waited_s.append(time.monotonic() - toys.loop._overdue.waiting_since_s))
    toys = start(2, max_launches=3, min_workers=2)
    check(toys, toys.run(JOB))
    assert lost(toys) == [1]
    assert toys.driver.members == (0, 2)
    assert waited_s[0] < 1e5, "before it has said that it copies its state, it would be taken for late"


# -- all workers die ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_all_workers_die_and_others_begin_from_the_last_state_that_was_kept(start, script, num_workers, checkpoint):
    def all_there() -> bool:  # or who is late is told of the other's death first, and goes on alone for a moment
        there = all(script.saw(worker, "compute", 5) for worker in range(num_workers))
        return there and (not checkpoint or script.saw("kept", 4) > 0)

    for worker in range(num_workers):
        script.kill(worker, "compute", 5, once=all_there)
    toys = start(num_workers, max_launches=num_workers + 1)

    def keep(event: Any) -> None:
        if checkpoint and isinstance(event, Applied) and event.worker == 0 and event.state.step in (2, 4):
            toys.pool.inbox.put(InitialStateChanged(initial_state=event.state, position=(0, event.state.step)))

    toys.on_event = keep
    check(toys, toys.run(JOB))
    assert sorted(lost(toys)) == list(range(num_workers))
    assert toys.driver.histories[num_workers][0].step == (5 if checkpoint else 1)
    assert [formed.restarted for formed in toys.driver.generations] == [False, True]


def test_restarts_without_progress_back_off_and_the_first_does_not(start, script, monkeypatch):
    """Worker 0, alone, dies; 1 is started at once; 1 dies where 0 did; 2 is started after a while."""
    monkeypatch.setattr(liveness, "MAX_BACK_OFF_S", 0.5)
    died_s = {}

    def die():
        died_s[current_worker()] = time.monotonic()
        raise WorkerKilled("again")

    for worker in (0, 1, 2):
        script.on(worker, "compute", 5, die)
    toys = start(1, max_launches=4)
    check(toys, toys.run(JOB))
    assert lost(toys) == [0, 1, 2]
    assert all(toys.pool.launched_s[worker + 1] - died_s[worker] >= 0.5 for worker in (1, 2))


def test_a_task_begins_from_an_initial_state(start):
    toys = start(2)
    check(toys, toys.run(JOB, initial_state=undisturbed(JOB)[2]))
    assert [history[0].step for history in toys.driver.histories.values()] == [4, 4]


# -- what the chief tells, and what the driver answers --------------------------------------------------------------


def test_the_chief_dies_before_it_tells_and_the_next_one_does(start, script):
    script.kill(0, "produce", 3)
    toys = start(3)
    check(toys, toys.run(JOB))
    assert lost(toys) == [0]
    assert script.saw(1, "produce", 3) == 1
    assert script.saw(2, "produce", None) == 0


def test_what_the_chief_told_to_one_before_it_died_holds_for_all(start, script):
    script.kill(0, "sending", 3, after="produce", once=lambda: script.saw(1, "ask", 3) > 0)
    toys = start(3)
    final = toys.run(Job(signed=True))
    assert lost(toys) == [0]
    assert [payload[:2] for payload in final.payloads] == [b"0:", b"1:", b"1:"]
    assert final.applied == tuple(range(9))
    for step in range(9):
        at_step = [state for history in toys.driver.histories.values() for state in history if state.step == step + 1]
        assert len({state.digest() for state in at_step}) == 1
        assert len(at_step) == (3 if step < 3 else 2)


def test_two_deaths_while_others_wait_for_an_answer(start, script):
    """An answer that the second death makes possible must not be taken for the answer to a report."""
    script.kill(2, "ask", 3, once=lambda: script.saw("asked", 0) and script.saw("asked", 1))
    script.kill(3, "ask", 3, once=lambda: script.saw("report", 0, "wait") and script.saw("report", 1, "wait"))
    toys = start(4)
    check(toys, toys.run(JOB))
    assert lost(toys) == [2, 3]


# -- workers come and go --------------------------------------------------------------------------------------------


def test_a_group_shrinks_and_grows_while_it_runs(start, script):
    def resize(event: Any) -> None:
        if isinstance(event, Applied) and (event.worker, event.state.step) in ((0, 4), (0, 6)):
            toys.group.resize(1 if event.state.step == 4 else 3)

    # Worker 0 waits before it brings its part of the step: no worker that is to leave can have a sum that it lacks.
    script.hold(0, "compute", 4, lambda: script.saw("abort", None, LEAVES) > 0)
    script.hold(0, "compute", 7, lambda: script.welcomed(3) and script.welcomed(4))
    toys = start(3, max_launches=5)
    toys.on_event = resize
    check(toys, toys.run(JOB))
    assert not lost(toys)
    assert [formed.members for formed in toys.driver.generations] == [(0, 1, 2), (0,), (0, 3, 4)]
    assert sorted(toys.group.infos) == [0, 3, 4], "who has left is gone and holds nothing"


def test_a_worker_that_is_not_wanted_any_more_while_it_sets_itself_up(start, script):
    def give_up() -> None:
        toys.group.resize(2)
        script.wait(lambda: script.saw("kill", 3) > 0)

    script.kill(2, "compute", 2).on(3, "setup", None, give_up)
    script.hold(0, "compute", 5, lambda: script.saw("kill", 3) > 0)
    toys = start(3, max_launches=4)
    check(toys, toys.run(JOB))
    assert toys.driver.members == (0, 1)


def test_a_worker_that_comes_between_two_tasks_gets_the_state_of_the_others(start, script):
    script.hold(2, "make", None, lambda: script.saw("over") > 0)
    toys = start(2, max_launches=3, max_workers=3)
    toys.run(Job(num_steps=4))
    script.note("over")
    check(toys, toys.run(Job(keep=True), num_needed=3))
    assert len(toys.driver.generations) == 1
    assert [history[0].step for history in toys.driver.histories.values()] == [5, 5, 5]


def test_a_group_is_closed_while_a_worker_starts(start, script):
    script.kill(1, "compute", 2).hold(2, "make", None, lambda: script.saw("closed") > 0)
    script.hold(0, "compute", 5, lambda: script.saw(2, "make", None) > 0)
    toys = start(2, max_launches=3)
    check(toys, toys.run(JOB))
    toys.group.close()
    script.note("closed")


# -- pauses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_pause_between_steps_delivers_a_state_to_go_on_from(start, script, num_workers):
    def pause(event: Any) -> None:
        if isinstance(event, Applied) and event.worker == 0 and event.state.step == 4:
            toys.loop.pause("asked to")

    script.hold(0, "compute", 4, lambda: script.saw("abort", None, "asked to") > 0)
    toys = start(num_workers)
    toys.on_event = pause
    ((at_end, state),) = toys.results(JOB).values()
    assert not at_end
    assert state.step == 4
    toys.on_event = lambda _: None
    check(toys, toys.run(Job(state=state)))
    assert toys.driver.histories[0][0].step == 5


def test_a_pause_while_all_wait_for_the_driver(start, script):
    script.hold(1, "ask", 3, lambda: script.saw("abort", None, "asked to") > 0)
    toys = start(2)
    toys.on_event = lambda event: toys.loop.pause("asked to") if not isinstance(event, Applied) else None
    ((at_end, state),) = toys.results(JOB).values()
    assert not at_end
    assert (state.step, len(state.payloads), len(state.answers)) == (3, 1, 0)
    toys.on_event = lambda _: None
    check(toys, toys.run(Job(state=state)))


def test_a_pause_before_the_chief_has_told_waits_for_the_next_step(start, script):
    def pause() -> None:
        toys.loop.pause("asked to")
        script.wait(lambda: script.saw("abort", 0, "asked to") == 1)

    script.on(0, "produce", 3, pause)
    toys = start(2)
    ((at_end, state),) = toys.results(JOB).values()
    assert not at_end
    assert (state.step, len(state.payloads)) == (3, 1)
    check(toys, toys.run(Job(state=state)))


def test_who_delivers_a_paused_state_dies_and_another_does(start, script):
    def pause(event: Any) -> None:
        if isinstance(event, Applied) and event.worker == 0 and event.state.step == 4:
            toys.loop.pause("asked to")

    script.hold(0, "compute", 4, lambda: script.saw("abort", None, "asked to") > 0).kill(0, "deliver")
    toys = start(3)
    toys.on_event = pause
    ((at_end, state),) = toys.results(JOB).values()
    assert lost(toys) == [0]
    assert not at_end
    toys.on_event = lambda _: None
    check(toys, toys.run(Job(state=state), num_needed=2))


# -- errors of the user's code --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("no such row"), SystemExit(3)], ids=["exception", "exit"])
@pytest.mark.parametrize("worker", [0, 1], ids=["chief", "other"])
def test_an_error_in_one_worker_stops_the_task(start, script, error, worker):
    script.fail(worker, "compute", 4, error)
    toys = start(3)
    with pytest.raises(TaskFailed) as raised:
        toys.run(JOB)
    assert raised.value.cause.worker == worker
    assert raised.value.cause.kind == "raised"
    assert raised.value.cause.error is error
    assert not lost(toys)


def test_an_error_in_the_setup_of_a_worker_stops_the_task(start, script):
    script.fail(1, "setup", None, ValueError("no such file"))
    toys = start(3)
    with pytest.raises(TaskFailed, match="no such file"):
        toys.run(JOB)


def test_a_worker_that_cannot_be_made_stops_the_start(start, script):
    script.fail(1, "make", None, ValueError("no such model"))
    with pytest.raises(ValueError, match="no such model") as raised:
        start(3)
    assert "worker 1" in raised.value.__notes__[0]


@pytest.mark.parametrize("point", ["make", "setup"])
def test_replacements_that_cannot_be_made_are_tried_again_and_again(start, script, point):
    script.kill(1, "compute", 2)
    for worker in range(2, 7):
        script.fail(worker, point, None, ValueError("no such model"))
    script.hold(0, "compute", 5, lambda: script.welcomed(7))
    toys = start(2, max_launches=20)
    check(toys, toys.run(JOB))
    assert toys.driver.members == (0, 7)
    assert [failure.worker for failure in toys.driver.not_started] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("point", ["make", "setup"])
def test_a_worker_that_dies_before_it_has_a_place_is_replaced(start, script, point):
    script.kill(1, point).kill(3, point)
    toys = start(3, max_launches=5)
    check(toys, toys.run(JOB))
    assert sorted(toys.driver.members) == [0, 2, 4]
    assert [failure.worker for failure in toys.driver.not_started] == [1, 3]


def test_with_min_workers_nobody_waits_for_one_that_dies_before_it_has_a_place(start, script):
    script.hold(1, "setup", None, lambda: script.saw("formed", 0) > 0)
    script.kill(2, "make")
    toys = start(3, max_launches=3, min_workers=1)
    check(toys, toys.run(JOB))
    assert not lost(toys)
    assert [failure.worker for failure in toys.driver.not_started] == [2]


def test_workers_that_die_before_they_have_a_place_are_tried_until_the_time_is_over(start, script):
    script.kill(0, "make").kill(1, "make").kill(2, "make").kill(3, "make")
    with pytest.raises(PlacementError, match=r"within 0\.5 s\. The last one that was lost: killed at make"):
        start(1, max_launches=4, start_timeout_s=0.5)


def test_workers_that_die_while_they_set_themselves_up_are_tried_until_the_time_is_over(start, script):
    for worker in range(4):
        script.kill(worker, "setup")
    toys = start(1, max_launches=4, start_timeout_s=0.5)
    with pytest.raises(TaskFailed, match=r"too few workers for 0\.5 s\. killed at setup"):
        toys.run(JOB)
    assert [failure.worker for failure in toys.driver.not_started] == [0, 1, 2, 3]


def test_nobody_is_left_and_nobody_can_be_made(start, script):
    script.kill(0, "compute", 2)
    for worker in (1, 2, 3):
        script.fail(worker, "make", None, ValueError("no such model"))
    toys = start(1, max_launches=20)
    with pytest.raises(TaskFailed, match="no such model"):
        toys.run(JOB)


def test_an_error_of_the_drivers_half_is_raised_as_itself(start):
    def fail(event: Any) -> None:
        if isinstance(event, Applied) and event.state.step == 3:
            raise OSError("no space left on the driver's disk")

    toys = start(2)
    toys.on_event = fail
    with pytest.raises(OSError, match="no space left on the driver's disk"):
        toys.run(JOB)


# -- workers that do not answer -------------------------------------------------------------------------------------


def test_a_row_of_failed_starts_is_over_only_when_a_worker_works_in_its_place(start):
    """One that asks for a place may be reached by nobody; then the next one would be started at once, for ever."""
    toys = start(2)
    loop = TaskLoop(toys.group, Task(method="train", job=JOB))
    lost_before = Failure(worker=7, kind="died", reason="it could not be reached")
    assert [toys.group.start_failed(lost_before).again_s for _ in range(2)] == [0.02, 0.02]
    loop._note_request(0, JoinRequest(waiting_at="join"))
    for activity, generation, num_failed in (
        (Activity.JOIN, 0, 2),
        (Activity.COMPUTE, -1, 2),
        (Activity.COMPUTE, 0, 0),
    ):
        loop._take(WorkerAlive(worker=0, heartbeat=Heartbeat(activity=activity, generation=generation)))
        assert toys.group._num_failed == num_failed


def test_who_cannot_be_reached_shows_before_the_first_deadline(start, monkeypatch):
    """Before steps have been timed the deadline is minutes long; a connection has a limit of its own."""
    monkeypatch.setattr(member, "CONNECT_LIMIT_S", 0.5)
    toys = start(3, deadline_s=None)
    with socket.create_server(("127.0.0.1", 0)) as blocked:
        toys.group.up[1].address = blocked.getsockname()
        check(toys, toys.run(JOB))
    (loss,) = toys.driver.losses
    assert loss.worker in (1, 2)  # of the two whoever is noticed first
    assert "another worker is cut (rank" in loss.reason
    assert "while connecting): no connection with rank" in loss.reason


def test_a_late_worker_is_named_and_stays(start, script, monkeypatch):
    monkeypatch.setattr(local, "HEARTBEAT_S", 0.02)
    script.hold(1, "compute", 4, lambda: script.saw("late", 1, "compute", True) > 0)
    toys = start(3, deadline_s=1.0)
    check(toys, toys.run(JOB))
    assert not lost(toys)
    assert [formed.members for formed in toys.driver.generations] == [(0, 1, 2), (0, 1, 2)]


@pytest.mark.parametrize(("point", "activity"), [("compute", "compute"), ("read", "reading")])
def test_a_worker_that_stands_still_for_too_long_is_replaced(start, script, monkeypatch, point, activity):
    monkeypatch.setattr(liveness, "READING_S", 1.2)
    monkeypatch.setattr(local, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(overdue, "FIRST_DEADLINE_S", 1.0)
    monkeypatch.setattr(liveness, "FIRST_DEADLINE_S", 1.0)
    script.hold(1, point, 4, lambda: script.saw("kill", 1) > 0)
    script.hold(None, "compute", 5, lambda: script.welcomed(3))
    toys = start(3, max_launches=4, deadline_s=1.0)
    check(toys, toys.run(JOB))
    assert lost(toys) == [1]
    assert f"stood still at '{activity}'" in toys.driver.losses[0].reason
    assert toys.driver.members == (0, 2, 3)


def test_a_worker_that_stands_still_while_it_sets_itself_up_is_named_and_replaced(start, script, monkeypatch):
    monkeypatch.setattr(local, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(liveness, "FIRST_DEADLINE_S", 1.5)
    monkeypatch.setattr(liveness, "BUSY_SHARE", 100.0)  # the others compute in the same process
    script.hold(1, "setup", None, lambda: script.saw("kill", 1) > 0)
    toys = start(3, max_launches=4, deadline_s=1.0)
    check(toys, toys.run(JOB))
    assert toys.driver.members == (0, 2, 3)
    assert script.saw("late", 1, "setting up", None) == 1
    (failure,) = toys.driver.not_started
    assert (failure.worker, not lost(toys)) == (1, True)
    assert "stood still at 'setting up'" in failure.reason


@pytest.mark.parametrize(("copy_s", "regroups"), [(0.0, True), (30.0, False)])
def test_peers_wait_longer_for_a_worker_that_has_said_how_long_a_copy_of_the_state_takes(
    start, script, copy_s, regroups
):
    """The chief is late by twice the deadline, as with a checkpoint."""
    script.on(0, "compute", 4, lambda: time.sleep(0.6))
    toys = start(2, deadline_s=0.3)
    job = Job(copy_s=copy_s)
    check(toys, toys.run(job), job)
    assert not lost(toys)
    assert (len(toys.driver.generations) > 1) == regroups


# -- microbatches by pace ---------------------------------------------------------------------------------------------


def dealt_anew(toys: Toys, paces: list[dict[int, float]]) -> None:
    """In the middle of steps, workers turn out to take so long for a microbatch: one after another."""

    def deal(_: object) -> None:
        if paces and toys.loop is not None and toys.loop.state.status == "running":
            toys.loop._decide(PaceChanged(times_s=paces.pop(0)))

    toys.on_event = deal


@pytest.mark.parametrize("job", [JOB, BIG])
def test_microbatches_change_hands_between_two_steps(start: Start, job: Job) -> None:
    toys, paces = start(3), [{0: 1.0, 1: 4.0, 2: 1.0}, {0: 4.0, 1: 1.0, 2: 1.0}, {0: 1.0, 1: 1.0, 2: 1.0}]
    dealt_anew(toys, paces)
    check(toys, toys.run(job, dealing=Dealing(num_microbatches=job.num_microbatches)), job)
    assert not paces, "what was planned did not happen"
    dealt = [formed.ranges for formed in toys.driver.generations]
    assert dealt == [((0, 2), (2, 4), (4, 6)), ((0, 4), (4, 5), (5, 6)), ((0, 1), (1, 2), (2, 6)), dealt[0]]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_death_while_microbatches_change_hands(start: Start, script: Script, victim: int) -> None:
    toys = start(3, max_launches=3)
    dealt_anew(toys, [{0: 1.0, 1: 4.0, 2: 1.0}])
    script.kill(victim, "regroup")
    check(toys, toys.run(JOB, dealing=Dealing(num_microbatches=JOB.num_microbatches)))
    assert lost(toys) == [victim]
    left = tuple(worker for worker in range(3) if worker != victim)
    last = toys.driver.generations[-1]
    assert (last.members, last.ranges) == (left, ((0, 1), (1, 6)) if victim == 0 else ((0, 3), (3, 6)))
