"""Steps of several all-reduces: survivors go on inside of a step; who comes, leaves or pauses waits for its end."""

from __future__ import annotations

from functools import partial

import pytest
from heliostat.cluster.group import liveness, overdue
from heliostat.cluster.group.controller_state import PaceChanged
from heliostat.cluster.group.messages import InitialStateChanged
from heliostat.cluster.pace import Dealing
from heliostat.cluster.pools import local

from .conftest import Start
from .script import Script
from .toy import Applied, Ask, Job
from .toy_group import LEAVES, Toys, lost
from .toy_group import check as check_job

JOB = Job(num_phases=2)
BIG = Job(num_phases=3, length=9000, num_steps=6)
LATER = ("compute 1", "reduce 1", "sending 1", "receiving 1", "summed 1")
JOINS = "a worker joins the group"

check = partial(check_job, job=JOB)


def members_of(toys: Toys) -> list[tuple[int, ...]]:
    return [formed.members for formed in toys.driver.generations]


def have_first_sum(script: Script, step: int, *workers: int) -> bool:
    """Whether these have the sum of the first phase: what was on its way to them may be lost with who sent it."""
    return all(script.saw(worker, "summed", step) for worker in workers)


def went_on_inside(script: Script, step: int, *survivors: int) -> bool:
    """Whether these have computed the first phase of a step once, though the group changed in a later one."""
    return all(script.saw(worker, "compute", step) == 1 for worker in survivors)


@pytest.mark.parametrize("job", [JOB, BIG], ids=["small", "big"])
@pytest.mark.parametrize("num_workers", [2, 7])
def test_any_number_of_workers_computes_the_same(start: Start, job: Job, num_workers: int) -> None:
    toys = start(num_workers)
    check_job(toys, toys.run(job), job)
    assert members_of(toys) == [tuple(range(num_workers))]


# -- deaths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker", [0, 2], ids=["chief", "other"])
@pytest.mark.parametrize("point", LATER)
def test_survivors_go_on_inside_of_the_step(start: Start, script: Script, point: str, worker: int) -> None:
    survivors = {0, 1, 2} - {worker}
    script.kill(worker, point, 4, once=partial(have_first_sum, script, 4, *survivors))
    toys = start(3)
    check(toys, toys.run(JOB))
    assert lost(toys) == [worker]
    assert went_on_inside(script, 4, *survivors)


@pytest.mark.parametrize("point", ["compute 2", "sending 1", "receiving 2"])
def test_sums_that_are_cut_into_slices_survive_a_death(start: Start, script: Script, point: str) -> None:
    script.kill(1, point, 4, once=partial(have_first_sum, script, 4, 0, 2))
    toys = start(3)
    check_job(toys, toys.run(BIG), BIG)
    assert lost(toys) == [1]
    assert went_on_inside(script, 4, 0, 2)


@pytest.mark.parametrize("donor_dies", [False, True])
def test_who_has_the_sum_of_a_phase_hands_it_to_who_lacks_it(start: Start, script: Script, donor_dies: bool) -> None:
    """The chief brings its part of the first phase to worker 1 and dies before worker 2 has it."""
    script.hold(0, "compute", 4, lambda: script.saw(1, "sending", 4) == script.saw(2, "sending", 4) == 2)
    script.kill(0, "sending", 4, once=lambda: script.saw(1, "compute 1", 4) > 0)
    if donor_dies:
        script.kill(1, "regroup", 4)
    toys = start(3)
    check(toys, toys.run(JOB))
    assert sorted(lost(toys)) == ([0, 1] if donor_dies else [0])
    assert went_on_inside(script, 4, 1)
    assert script.saw(2, "compute", 4) == (2 if donor_dies else 1), "it computes again only what nobody has"


def test_deaths_in_both_phases_of_a_step_and_while_the_group_regroups(start: Start, script: Script) -> None:
    script.kill(1, "sending", 4).kill(3, "compute 1", 4).kill(0, "regroup", 4, after="compute 1")
    toys = start(5)
    check(toys, toys.run(JOB))
    assert sorted(lost(toys)) == [0, 1, 3]


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_all_die_inside_of_a_step_and_others_begin_from_the_last_state_that_was_kept(
    start: Start, script: Script, num_workers: int, checkpoint: bool
) -> None:
    def all_there() -> bool:
        there = all(script.saw(worker, "compute 1", 5) for worker in range(num_workers))
        return there and (not checkpoint or script.saw("kept", 4) > 0)

    for worker in range(num_workers):
        script.kill(worker, "compute 1", 5, once=all_there)
    toys = start(num_workers, max_launches=num_workers + 1)

    def keep(event: Applied | Ask) -> None:
        if checkpoint and isinstance(event, Applied) and event.worker == 0 and event.state.step == 4:
            toys.pool.inbox.put(InitialStateChanged(initial_state=event.state, position=(0, 4)))

    toys.on_event = keep
    check(toys, toys.run(JOB))
    assert sorted(lost(toys)) == list(range(num_workers))
    assert toys.driver.histories[num_workers][0].step == (5 if checkpoint else 1)
    assert [formed.restarted for formed in toys.driver.generations] == [False, True]


def test_a_worker_that_stands_still_in_a_later_phase_is_replaced(
    start: Start, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, seconds in (
        (liveness, "READING_S", 0.5),
        (local, "HEARTBEAT_S", 0.02),
        (overdue, "FIRST_DEADLINE_S", 0.5),
        (liveness, "FIRST_DEADLINE_S", 0.5),
        (liveness, "LATE_AFTER_DEADLINES", 1),
    ):
        monkeypatch.setattr(module, name, seconds)
    script.hold(1, "compute 1", 4, lambda: script.saw("kill", 1) > 0)
    script.hold(None, "compute 1", 5, lambda: script.saw("abort", None, JOINS) > 0)
    toys = start(3, max_launches=4, deadline_s=0.5)
    check(toys, toys.run(JOB))
    assert lost(toys) == [1]
    assert "stood still at 'compute'" in toys.driver.losses[0].reason
    assert went_on_inside(script, 4, 0, 2)
    assert toys.driver.members == (0, 2, 3)


# -- workers come and go, and a pause ---------------------------------------------------------------------------------


def test_a_replacement_joins_before_the_next_step(start: Start, script: Script) -> None:
    script.kill(2, "compute 1", 3).hold(3, "setup", None, lambda: script.saw(None, "compute 1", 4) > 0)
    script.hold(None, "compute 1", 4, lambda: script.saw("abort", None, JOINS) > 0)
    toys = start(3, max_launches=4)
    check(toys, toys.run(JOB))
    assert members_of(toys) == [(0, 1, 2), (0, 1), (0, 1), (0, 1, 3)]
    assert script.saw(0, "compute 1", 4) + script.saw(1, "compute 1", 4) == 4, "nobody could join there"
    assert toys.driver.histories[3][0].step == 6, "it has begun with step 5"


def test_too_few_finish_the_step_and_wait_before_the_next(start: Start, script: Script) -> None:
    script.kill(1, "compute 1", 4)
    toys = start(2, max_launches=3, min_workers=2)
    check(toys, toys.run(JOB))
    assert members_of(toys) == [(0, 1), (0,), (0, 2)]
    assert went_on_inside(script, 4, 0)
    assert toys.driver.histories[2][0].step >= 6, "it has begun with step 5 at the earliest"


def test_who_leaves_stays_until_the_step_is_over(start: Start, script: Script) -> None:
    def shrink() -> None:
        toys.group.resize(1)
        script.wait(lambda: script.saw("abort", None, LEAVES) > 0)

    script.on(0, "compute 1", 4, shrink)
    toys = start(3)
    check(toys, toys.run(JOB))
    assert not lost(toys)
    assert members_of(toys) == [(0, 1, 2), (0, 1, 2), (0,)]
    assert script.saw("report", 0, "phase") == 1


def test_a_pause_waits_for_the_end_of_the_step(start: Start, script: Script) -> None:
    def pause() -> None:
        toys.loop.pause("asked to")
        script.wait(lambda: script.saw("abort", 0, "asked to") == 1)

    script.on(0, "compute 1", 4, pause)
    toys = start(2)
    ((at_end, state),) = toys.results(JOB).values()
    assert (at_end, state.step) == (False, 5)
    check(toys, toys.run(Job(num_phases=2, state=state)))


def test_who_delivers_a_paused_state_dies_and_who_is_inside_of_the_step_finishes_it(
    start: Start, script: Script
) -> None:
    """Worker 0 has the last sum of step 4, and worker 1 lacks it."""

    def pause(event: Applied | Ask) -> None:
        if isinstance(event, Applied) and (event.worker, event.state.step) == (0, 5):
            toys.loop.pause("asked to")

    script.hold(1, "receiving 1", 4, lambda: script.saw("abort", 1, "asked to") > 0)
    script.kill(0, "deliver")
    toys = start(2)
    toys.on_event = pause
    ((at_end, state),) = toys.results(JOB).values()
    assert lost(toys) == [0]
    assert (at_end, state.step) == (False, 5)
    toys.on_event = lambda _: None
    check(toys, toys.run(Job(num_phases=2, state=state), num_needed=1))


def test_microbatches_change_hands_inside_of_a_step(start: Start, script: Script) -> None:
    dealt = "microbatches are dealt anew"

    def deal(event: Applied | Ask) -> None:
        if isinstance(event, Applied) and (event.worker, event.state.step) == (0, 4):
            script.wait(lambda: script.saw(0, "compute 1", 4) > 0)
            toys.loop._decide(PaceChanged(times_s={0: 1.0, 1: 4.0, 2: 1.0}))

    script.hold(0, "compute 1", 4, lambda: script.saw("abort", None, dealt) > 0)
    toys = start(3)
    toys.on_event = deal
    check(toys, toys.run(JOB, dealing=Dealing(num_microbatches=JOB.num_microbatches)))
    assert [formed.ranges[0] for formed in toys.driver.generations] == [(0, 2), (0, 4)]
    assert went_on_inside(script, 4, 0)
