"""Real workers crash, run out of disk, hold Python's lock or die alone; what is said, and the same bits."""

from __future__ import annotations

import json
import os
import signal
import socket

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.trainer import EverySteps, Trainer, TrainingFailedError
from heliostat.trainer.checkpoints.store import CheckpointStore

from .conftest import dense_data
from .faults import Faults, Order, assert_gone, events_of, outcome
from .helpers import TrainerOn
from .models import linear, normalised
from .ray_pool import NUM_WORKERS

pytestmark = pytest.mark.faults

JOB = {"global_batch_size": 16, "verbose": 0, "record_rows": True}
POISON = 1e6
STEPS = 5  # of an epoch


@pytest.fixture
def trainer_of(warm_workers, tmp_path):
    """trainer_of(build) -> (Trainer on the two shared actors, its Faults)."""

    def make(build):
        faults = Faults(tmp_path / "faults", tmp_path / "run", NUM_WORKERS)
        arguments = {"workers": NUM_WORKERS, "num_microbatches": 4, "seed": 7, "run_dir": tmp_path / "run"}
        return TrainerOn(lambda _: warm_workers, faults.build(build), **arguments), faults

    return make


def wide():
    """Its checkpoint is larger than files may be on a full disk."""
    model = keras.Sequential([keras.layers.Dense(4096, activation="relu"), keras.layers.Dense(5, activation="softmax")])
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    return model


def test_a_full_disk_costs_checkpoints_and_nothing_else(trainer_of, train, capfd):
    trainer, faults = trainer_of(wide)
    faults.order(
        Order(point="compute", who="chief", step=2 * STEPS + 2, action="full"),
        Order(point="compute", who="chief", step=4 * STEPS + 2, action="room"),
    )
    result = trainer.fit(dense_data(), epochs=6, keep=10, **JOB | {"verbose": 2})
    faults.check()
    failed, written = (events_of(result.run_dir, name) for name in ("checkpoint_failed", "checkpoint"))
    assert 3 in {
        int(each["name"].split("-")[0]) for each in failed
    }  # others may be written a moment too late, or early
    assert not {each["name"] for each in failed} & {each["name"] for each in written}
    assert [each["epoch"] for each in written][-1] == 6
    store = CheckpointStore(str(result.run_dir / "checkpoints"))
    assert set(store.names()) == {each["name"] for each in written}
    for name in store.names():
        assert store.manifest(name).tensors
    assert capfd.readouterr().out.count("warning: no checkpoint") == 1
    assert not events_of(result.run_dir, "lost")
    assert outcome(result) == outcome(train(wide, dense_data(), workers=0, epochs=6, **JOB))


@pytest.mark.slow
def test_the_only_worker_dies_and_another_goes_on_from_the_checkpoint(ray_here, train, tmp_path):
    faults = Faults(tmp_path / "faults", tmp_path / "run", 1)
    faults.order(Order(point="applied", step=13))
    with Trainer(
        faults.build(normalised),
        workers=1,
        num_microbatches=4,
        threads_per_worker=1,
        seed=7,
        run_dir=tmp_path / "run",
    ) as trainer:
        result = trainer.fit(dense_data(), epochs=6, checkpoint_every=EverySteps(3), **JOB)
    faults.check()
    assert [each["restarted"] for each in events_of(result.run_dir, "formed")] == [False, True]
    assert outcome(result) == outcome(train(normalised, dense_data(), workers=0, epochs=6, **JOB))


@pytest.mark.slow
def test_a_process_that_never_lets_go_of_pythons_lock_is_replaced(trainer_of, train):
    trainer, faults = trainer_of(normalised)
    faults.order(Order(point="reduce", who="chief", step=7, action="gil"))
    result = trainer.fit(dense_data(), epochs=20, **JOB)
    faults.check()
    assert [each["worker"] for each in events_of(result.run_dir, "lost")] == [faults.fired()[0]["worker"]]
    assert outcome(result) == outcome(train(normalised, dense_data(), workers=0, epochs=20, **JOB))


def raise_at_bad_step(model, optimizer, x, y):
    raise ZeroDivisionError("a mistake in my step")


def test_an_error_in_a_users_step_stops_the_run_and_is_shown_with_its_frame(train):
    with pytest.raises(TrainingFailedError, match="a mistake in my step") as raised:
        train(linear(), dense_data(), workers=2, loop="custom", train_step=raise_at_bad_step)
    assert "raise_at_bad_step" in str(raised.value)
    assert "before the first step" in str(raised.value)


class Crashing(keras.layers.Layer):
    """Ends the process at rows that are poisoned, by a function."""

    end = staticmethod(os.abort)

    def call(self, x):
        def look(values):
            if (values > POISON / 2).any():
                self.end()
            return values

        same = tf.numpy_function(look, [tf.stop_gradient(x)], tf.float32, stateful=False)
        return x + 0.0 * tf.ensure_shape(same, x.shape)


class Leaving(Crashing):
    @staticmethod
    def end():
        os._exit(3)


def ending(layer):
    def build():
        model = keras.Sequential([layer(), keras.layers.Dense(5, activation="softmax")])
        model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
        return model

    return build


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Crashing, "native code crashed at this step"),
        (Leaving, r"(?s)with exit status 3.*ends the process at this step"),
    ],
)
def test_a_step_at_which_every_worker_ends_stops_the_run(trainer_of, warm_workers, layer, words):
    x, y = dense_data()
    x[40, 3] = POISON
    trainer, faults = trainer_of(ending(layer))
    with pytest.raises(TrainingFailedError, match=words) as raised:
        trainer.fit((x, y), epochs=2, **JOB)
    assert raised.value.host == socket.gethostname()
    assert len(events_of(faults.run_dir, "lost")) == 3
    pids = [info.pid for info in warm_workers.seen.values()]
    warm_workers.really_close()  # a run that was given up leaves its workers in the middle of it
    assert_gone(pids)
    assert not list(faults.run_dir.glob("logs/*.step"))


def test_a_lone_idle_worker_that_is_killed_is_replaced_by_one_with_the_trained_model(ray_here, tmp_path):
    x, y = dense_data()
    with Trainer(linear(), workers=1, num_microbatches=4, run_dir=tmp_path / "run") as trainer:
        trainer.fit((x, y), global_batch_size=16, verbose=0)
        before = trainer.evaluate((x, y)), trainer.predict(x)
        (pid,) = [each["pid"] for each in json.loads((tmp_path / "run" / "run.json").read_text())["workers"]]
        os.kill(pid, signal.SIGKILL)
        assert_gone([pid])
        assert trainer.evaluate((x, y)) == before[0]
        np.testing.assert_array_equal(trainer.predict(x), before[1])
        assert trainer.hosts.keys() != {0}
