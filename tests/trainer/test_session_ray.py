"""A caller's loop over real Ray actors: workers are killed, and the caller takes longer than any deadline."""

from __future__ import annotations

import os
import signal
import time

import pytest
from heliostat.trainer.driver.workers import Workers
from heliostat.trainer.trainer_config import TrainerConfig

from ..slow import SLOW
from .conftest import fingerprint
from .faults import Faults, Order, assert_gone, events_of
from .helpers import TrainerOn, local_trainer
from .models import linear, normalised
from .test_session import EPOCHS, JOB, TRAIN, VALID, Halve, epochs_by_hand

DEADLINE_S = 3.0 * SLOW


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What `fit` makes of the same, undisturbed, in one process."""
    with local_trainer(normalised, tmp_path_factory.mktemp("plain")) as trainer:
        arguments = {"validation_data": VALID, "loop": "train_on_batch", "callbacks": [Halve()]}
        return trainer.fit(TRAIN, epochs=EPOCHS, **arguments, **JOB)


@pytest.fixture(scope="module")
def workers(ray_here):
    made = Workers(TrainerConfig(workers=3, threads_per_worker=1, deadline_s=DEADLINE_S, start_timeout_s=300 * SLOW))
    yield made
    pids = [info.pid for info in made.seen.values()]
    made.close()
    assert_gone(pids)


@pytest.fixture
def trainer(workers, tmp_path):
    """A trainer on three actors that carry out `trainer.faults`."""
    faults = Faults(tmp_path / "faults", tmp_path / "run", 3)
    arguments = {"workers": 3, "num_microbatches": 4, "seed": 7, "run_dir": tmp_path / "run", "deadline_s": DEADLINE_S}
    made = TrainerOn(lambda _: workers, faults.build(normalised), **arguments)
    made.faults = faults
    return made


@pytest.mark.faults
@pytest.mark.slow
def test_workers_are_killed_in_a_step_and_while_the_caller_thinks(trainer, workers, plain):
    """The second one while all wait for the loop: the others go on without it, or with its replacement."""
    trainer.faults.order(Order(point="reduce", who="chief", step=2))
    victims = []

    def kill_one(epoch, step):
        if (epoch, step) == (1, 2):
            victims.append(next(iter(workers.group.infos.values())).pid)
            os.kill(victims[0], signal.SIGKILL)
            assert_gone(victims)

    with trainer.session(TRAIN, VALID, **JOB) as s:
        list(epochs_by_hand(s, then=kill_one))
    trainer.faults.check()
    assert fingerprint(s.result) == fingerprint(plain)
    assert len(events_of(s.result.run_dir, "lost")) == 2
    assert not any(each["restarted"] for each in events_of(s.result.run_dir, "formed"))


@pytest.mark.ray
@pytest.mark.slow
def test_a_caller_who_takes_longer_than_the_deadline(trainer, plain):
    """In a debugger, say: between two steps, between two epochs, and before the validation."""

    def think(epoch, step):
        if (epoch, step) in ((0, 2), (1, 0)):
            time.sleep(2.5 * DEADLINE_S)

    with trainer.session(TRAIN, VALID, **JOB) as s:
        list(epochs_by_hand(s, then=think))
    assert fingerprint(s.result) == fingerprint(plain)
    assert s.result.seconds > 5 * DEADLINE_S
    assert [events_of(s.result.run_dir, name) for name in ("lost", "late", "not_started")] == [[], [], []]
    assert len(events_of(s.result.run_dir, "formed")) == 1


@pytest.mark.ray
@pytest.mark.slow
def test_all_actors_are_killed_while_the_caller_thinks(trainer, workers, plain):
    def kill_all(epoch, step):
        if (epoch, step) == (2, 3):
            for info in list(workers.group.infos.values()):
                os.kill(info.pid, signal.SIGKILL)

    with trainer.session(TRAIN, VALID, **JOB) as s:
        list(epochs_by_hand(s, then=kill_all))
    assert fingerprint(s.result) == fingerprint(plain)
    assert [each["restarted"] for each in events_of(s.result.run_dir, "formed")].count(True) == 1


@pytest.mark.ray
def test_actors_do_the_steps_of_a_loop_and_evaluate_after_it(warm_trainer, train):
    trainer = warm_trainer(linear())
    with trainer.session(TRAIN, VALID, **JOB) as s:
        list(epochs_by_hand(s, range(2)))
    same = train(linear(), TRAIN, workers=0, validation_data=VALID, loop="train_on_batch", callbacks=[Halve()])
    assert fingerprint(s.result) == fingerprint(same)
    assert trainer.evaluate(VALID)["loss"] == pytest.approx(s.result.history["val_loss"][-1], rel=1e-5)
