"""Steps of several all-reduces: survivors go on inside of a step; who comes, leaves or pauses waits for its end."""

from __future__ import annotations

from functools import partial

import pytest

from .conftest import Start
from .script import Script
from .toy import Job
from .toy_group import Toys, lost
from .toy_group import check as check_job

JOB = Job(num_phases=2)
BIG = Job(num_phases=3, length=9000, num_steps=6)
LATER = ("compute 1", "reduce 1", "sending 1", "receiving 1", "summed 1")

check = partial(check_job, job=JOB)


def members_of(toys: Toys) -> list[tuple[int, ...]]:
    return [formed.members for formed in toys.driver.generations]


def went_on_inside(script: Script, step: int, *survivors: int) -> bool:
    """Whether these have computed the first phase of a step once, though the group changed in a later one."""
    return all(script.saw(worker, "compute", step) == 1 for worker in survivors)


@pytest.mark.parametrize("job", [JOB, BIG], ids=["small", "big"])
@pytest.mark.parametrize("num_workers", [2, 7])
def test_any_number_of_workers_computes_the_same(start: Start, job: Job, num_workers: int) -> None:
    toys = start(num_workers)
    check_job(toys, toys.run(job), job)
    assert members_of(toys) == [tuple(range(num_workers))]


@pytest.mark.parametrize("worker", [0, 2], ids=["chief", "other"])
@pytest.mark.parametrize("point", LATER)
def test_survivors_go_on_inside_of_the_step(start: Start, script: Script, point: str, worker: int) -> None:
    script.kill(worker, point, 4)
    toys = start(3)
    check(toys, toys.run(JOB))
    assert lost(toys) == [worker]
    assert went_on_inside(script, 4, *({0, 1, 2} - {worker}))


@pytest.mark.parametrize("point", ["compute 2", "sending 1", "receiving 2"])
def test_sums_that_are_cut_into_slices_survive_a_death(start: Start, script: Script, point: str) -> None:
    script.kill(1, point, 4)
    toys = start(3)
    check_job(toys, toys.run(BIG), BIG)
    assert lost(toys) == [1]
    assert went_on_inside(script, 4, 0, 2)
