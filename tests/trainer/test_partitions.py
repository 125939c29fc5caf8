"""Connections that are cut or slow, and groups that shrink, in this process with real sockets: the same bits."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest
from heliostat.cluster import instruments
from heliostat.cluster.group.worker_process import WorkerKilled
from heliostat.trainer import Trainer
from heliostat.trainer.driver.display import Display
from heliostat.trainer.engine.times import StartTimes

from .conftest import dense_data
from .faults import each_row_once, events_of, outcome
from .helpers import local_trainer
from .models import normalised
from .relay import Relay

pytestmark = pytest.mark.faults

ROWS, CUT_STEP = 71, 7
JOB = {"epochs": 4, "global_batch_size": 16, "verbose": 0, "record_rows": True}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    with Trainer(normalised, workers=0, num_microbatches=4, seed=7, run_dir=folder / "run") as trainer:
        return outcome(trainer.fit(dense_data(ROWS), **JOB))


@pytest.fixture
def trainer_of(tmp_path):
    """trainer_of(number of workers, deadline) -> a Trainer with workers in this process."""

    def make(workers, deadline_s):
        return local_trainer(normalised, tmp_path, workers=workers, deadline_s=deadline_s, balance=False)

    return make


@contextmanager
def relays(trainer, **arguments):
    """A relay in front of every worker, by its number; replacements are reached directly."""
    trainer.workers.start(Display(), StartTimes())
    known = trainer.workers.group.up
    made = {worker: Relay(each.address, **arguments) for worker, each in known.items()}
    for worker, relay in made.items():
        known[worker].address = relay.address
    try:
        yield made
    finally:
        for relay in made.values():
            relay.close()


@contextmanager
def listening(listener):
    stop = instruments.listen(listener)
    try:
        yield
    finally:
        stop()


def is_worker(number):
    return threading.current_thread().name == f"heliostat-worker-{number}"


# Who is of a higher rank dials: behind the chief's relay are its connections with both others, behind that of worker 1
# the one with worker 2. Of two that cannot hear each other the one that more cannot hear must leave, else the later.
# Who that is behind the chief's relay depends on how many had noticed when the first one gave up (the rule itself is
# tested in test_controller.py).
@pytest.mark.parametrize(("behind", "may_leave"), [(0, {0, 1, 2}), (1, {2})])
def test_of_living_workers_that_cannot_hear_each_other_one_leaves(undisturbed, trainer_of, behind, may_leave):
    cuts = []
    with trainer_of(3, deadline_s=5) as trainer, relays(trainer) as made:

        def cut(point, step):
            if point == "compute" and step == CUT_STEP and not cuts:
                cuts.append(step)
                made[behind].cut()

        with listening(cut):
            result = trainer.fit(dense_data(ROWS), **JOB)
    assert cuts
    lost = events_of(result.run_dir, "lost")
    assert len(lost) == 1
    assert lost[0]["worker"] in may_leave
    assert "connection with another worker is cut" in lost[0]["reason"]
    got = outcome(result)
    each_row_once(got["rows"], ROWS)
    assert got == undisturbed


def test_a_slow_link_makes_nobody_leave_and_changes_nothing(undisturbed, trainer_of):
    with trainer_of(3, deadline_s=30) as trainer, relays(trainer, delay_s=0.02):
        result = trainer.fit(dense_data(ROWS), **JOB)
    assert not events_of(result.run_dir, "lost")
    assert outcome(result) == undisturbed


def test_nobody_is_replaced_and_the_last_survivor_goes_on_alone(undisturbed, trainer_of):
    """The chief dies, then its successor; fewer workers are wanted each time."""
    deaths = {6: 0, 11: 1}
    with trainer_of(3, deadline_s=60) as trainer:

        def die(point, step):
            if point == "reduce" and step in deaths and is_worker(deaths[step]):
                trainer.resize(2 - deaths.pop(step))
                raise WorkerKilled("test")

        with listening(die):
            result = trainer.fit(dense_data(ROWS), **JOB)
    assert not deaths
    assert [each["workers"] for each in events_of(result.run_dir, "formed")] == [[0, 1, 2], [1, 2], [2]]
    assert outcome(result) == undisturbed


def test_who_is_only_killed_is_replaced_however_often_it_happens_at_one_step(undisturbed, trainer_of):
    """A bare SIGKILL says nothing about the microbatch: somebody else may want the memory."""
    killed = []
    with trainer_of(1, deadline_s=60) as trainer:

        def die(point, step):
            if point == "compute" and step == CUT_STEP and len(killed) < 4:
                killed.append(threading.current_thread().name)
                raise WorkerKilled("test")

        with listening(die):
            result = trainer.fit(dense_data(ROWS), **JOB)
    assert len(set(killed)) == 4
    assert len(events_of(result.run_dir, "lost")) == 4
    assert outcome(result) == undisturbed
