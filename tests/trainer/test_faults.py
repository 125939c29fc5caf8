"""Real workers are killed, stopped and broken at exact points; the result has the bits of an undisturbed run."""

from __future__ import annotations

import json
import random
import socket
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from heliostat.trainer import Trainer, TrainingFailedError
from heliostat.trainer.driver.workers import Workers
from heliostat.trainer.trainer_config import TrainerConfig

from .conftest import dense_data
from .faults import Faults, Order, assert_gone, each_row_once, events_of, outcome, reached
from .helpers import TrainerOn
from .models import linear, normalised
from .phased_players import Gan, adams

pytestmark = pytest.mark.faults

ROWS, SIZE, BAD_STEP = 71, 3, 3
WHO = ("any", "any", "chief", "other")
JOB = {"global_batch_size": 16, "verbose": 0, "record_rows": True}


@pytest.fixture(scope="module")
def three_workers(ray_here):
    """After a run that fails its trainer ends them, and the next one starts others."""
    workers = Workers(TrainerConfig(workers=SIZE, threads_per_worker=1))
    yield workers
    pids = [info.pid for info in workers.seen.values()]
    workers.close()
    assert_gone(pids)


@pytest.fixture
def trainer_of(three_workers, tmp_path):
    """trainer_of(build) -> (Trainer on three actors, its Faults)."""

    def make(build):
        faults = Faults(tmp_path / "faults", tmp_path / "run", SIZE)
        arguments = {"workers": SIZE, "num_microbatches": 4, "seed": 7, "run_dir": tmp_path / "run"}
        return TrainerOn(lambda _: three_workers, faults.build(build), **arguments), faults

    return make


@pytest.fixture
def check(trainer_of, train):
    """check(build, orders, **fit arguments) -> the result of a run with faults, which equals one without."""

    def run(build, orders, callbacks=lambda: (), **arguments):
        trainer, faults = trainer_of(build)
        faults.order(*orders)
        result = trainer.fit(dense_data(), callbacks=list(callbacks()), **JOB | arguments)
        faults.check()
        got = outcome(result)
        each_row_once(got["rows"], ROWS)
        assert got == outcome(train(build, dense_data(), workers=0, callbacks=list(callbacks()), **JOB | arguments))
        return result, faults

    return run


def lost_in(result) -> list[int]:
    return sorted(each["worker"] for each in events_of(result.run_dir, "lost"))


def test_deaths_in_the_all_reduce_and_while_the_group_mends_itself(check):
    orders = [
        Order(point="reduce", who="other"),
        Order(point="regroup", who="any", at_once=True),
        Order(point="join", who="new", at_once=True),
        Order(point="sending", who="chief", wave=1),
        Order(point="receiving", who="other", wave=1, at_once=True),
    ]
    result, faults = check(normalised, orders, epochs=60)
    assert lost_in(result) == sorted(each["worker"] for each in faults.fired())


def test_deaths_after_the_sum_and_beside_the_steps(check):
    orders = [
        Order(point="summed", who="chief"),
        Order(point="applied", who="other", wave=1),
        Order(point="checkpoint", who="chief", wave=1, at_once=True),
        Order(point="validation", who="any", wave=2),
    ]
    valid = dense_data(rows=23, seed=1)
    result, faults = check(normalised, orders, epochs=60, loop="custom", validation_data=valid)
    assert lost_in(result) == sorted(each["worker"] for each in faults.fired())


def gan_of_dense_data():
    model = Gan(inputs=12)
    model.compile(*adams())
    return model


@pytest.mark.slow
def test_deaths_in_a_later_phase_of_a_step(check):
    """The last one is stopped, and its peers hear nothing."""
    orders = [
        Order(point="compute", who="other", phase=1),
        Order(point="reduce", who="chief", phase=1, wave=1),
        Order(point="sending", who="any", phase=1, wave=2),
        Order(point="summed", who="chief", phase=0, wave=3),
        Order(point="compute", who="other", phase=1, wave=4, action="stop"),
    ]
    result, faults = check(gan_of_dense_data, orders, epochs=60)
    assert lost_in(result) == sorted(each["worker"] for each in faults.fired())
    assert not any(each["restarted"] for each in events_of(result.run_dir, "formed"))


@pytest.mark.slow
def test_twenty_deaths_in_one_run(check):
    """Two in each wave, at points drawn from a seed."""
    chance = random.Random(11)
    points = ("compute", "reduce", "sending", "receiving", "summed", "applied", "checkpoint", "validation")
    orders = [
        Order(point=chance.choice(points), wave=number // 2, at_once=number % 2 == 1, who=chance.choice(WHO))
        for number in range(20)
    ]
    result, faults = check(normalised, orders, epochs=200, validation_data=dense_data(rows=23, seed=1))
    assert lost_in(result) == sorted(each["worker"] for each in faults.fired())


def endless():
    x, y = dense_data()
    at = 0
    while True:
        places = np.arange(at, at + 16) % ROWS
        yield x[places], y[places]
        at += 16


@pytest.mark.slow
def test_deaths_while_the_rows_of_an_endless_stream_arrive(trainer_of, train):
    trainer, faults = trainer_of(normalised)
    faults.order(
        Order(point="summed", who="chief", step=9),
        Order(point="compute", step=70, wave=1),
        Order(point="compute", wave=1, at_once=True),
        Order(point="compute", wave=1, at_once=True),
    )
    arguments = JOB | {"epochs": 5, "steps_per_epoch": 20, "keep": 1}
    result = trainer.fit(endless, **arguments)
    faults.check()
    assert outcome(result) == outcome(train(normalised, endless, workers=0, **arguments))
    assert any(each["restarted"] for each in events_of(result.run_dir, "formed"))


def test_all_workers_die_at_once_and_the_last_checkpoint_goes_on(check):
    orders = [
        Order(point="compute", step=33),
        Order(point="compute", at_once=True),
        Order(point="compute", at_once=True),
    ]
    result, faults = check(normalised, orders, epochs=20, loop="train_on_batch")
    # Whether the survivors of the first get as far as a group of their own, before they die as well, is chance.
    assert any(each["restarted"] for each in events_of(result.run_dir, "formed"))
    assert lost_in(result) == sorted(each["worker"] for each in faults.fired())
    assert events_of(result.run_dir, "checkpoint")


def test_a_worker_that_stands_still_for_long_is_replaced_and_one_that_does_for_a_moment_is_not(check):
    orders = [
        Order(point="compute", who="other", step=7, action="pause"),
        Order(point="compute", who="other", wave=1, step=12, action="stop"),
    ]
    result, faults = check(normalised, orders, epochs=20)
    _paused, stopped = faults.fired()
    assert lost_in(result) == [stopped["worker"]]
    assert "did not answer" in events_of(result.run_dir, "lost")[0]["reason"]


class KillInCallback(keras.callbacks.Callback):
    """Stands behind the other callbacks, which have heard of the end of the epoch already."""

    def on_epoch_end(self, epoch, logs=None):
        reached("callback", epoch)


def callbacks_with_state():
    return [
        keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=0.05, factor=0.5),
        keras.callbacks.EarlyStopping("loss", patience=6, min_delta=0.01, restore_best_weights=True),
        keras.callbacks.CSVLogger("log.csv"),
        KillInCallback(),
    ]


def test_the_chief_dies_in_a_callback_and_its_successor_has_the_callbacks_states(check, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where callbacks' files are linked
    orders = [Order(point="callback", step=3), Order(point="callback", step=5, at_once=True)]
    result, _ = check(normalised, orders, callbacks_with_state, epochs=12)
    lines = Path(result.run_dir, "log.csv").read_text().splitlines()
    assert [int(line.split(",")[0]) for line in lines[1:]] == list(range(len(result.history["loss"])))


def test_a_death_during_evaluate_and_during_predict(trainer_of, tmp_path):
    trainer, faults = trainer_of(linear())
    x, y = dense_data()
    trainer.fit((x, y), epochs=1, **JOB)
    faults.order(Order(point="validation", who="other"))
    metrics = trainer.evaluate((x, y), global_batch_size=16)
    faults.check()
    faults.order(Order(point="validation", wave=1, at_once=True))
    predicted = trainer.predict(x, global_batch_size=16)
    faults.check()
    with Trainer(linear(), workers=0, num_microbatches=4, seed=7, run_dir=tmp_path / "quiet") as quiet:
        quiet.fit((x, y), epochs=1, **JOB)
        assert metrics == quiet.evaluate((x, y), global_batch_size=16)
        np.testing.assert_array_equal(predicted, quiet.predict(x, global_batch_size=16))


class ExitAtStep(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == BAD_STEP:
            sys.exit("a mistake in my callback")


def test_an_exit_in_a_users_callback_stops_the_run_and_is_shown_with_its_frame(ray_here, tmp_path):
    with Trainer(linear(), workers=2, num_microbatches=4, run_dir=tmp_path / "run") as trainer:
        with pytest.raises(TrainingFailedError, match="a mistake in my callback") as raised:
            trainer.fit(dense_data(), epochs=2, global_batch_size=8, callbacks=[ExitAtStep()], verbose=0)
        record = json.loads((tmp_path / "run" / "run.json").read_text())
        pids = [each["pid"] for each in record["workers"]]
        assert len(set(pids)) == 2
        assert_gone(pids)
    error = raised.value
    assert (error.worker, error.step, error.host) == (0, BAD_STEP + 1, socket.gethostname())
    assert "test_faults.py" in str(error)
    assert "on_train_batch_end" in str(error)
    assert isinstance(error.__cause__, SystemExit)
    assert not events_of(tmp_path / "run", "lost")
