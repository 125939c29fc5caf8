"""What `evaluate` and `predict` answer from: the state in which the last fit has left the model, or nothing."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from heliostat.trainer import EverySteps, RunPausedError, TrainingFailedError, storage_thread
from heliostat.trainer.checkpoints.store import CheckpointStore
from heliostat.trainer.driver.record import Record
from heliostat.trainer.errors import StateNotKeptError

from .conftest import dense_data
from .helpers import die, local_trainer
from .models import linear, normalised

pytestmark = pytest.mark.engine

DATA = dense_data()
JOB = {"epochs": 2, "global_batch_size": 16, "verbose": 0}


def answers(trainer):
    return trainer.evaluate(DATA, global_batch_size=16), trainer.predict(DATA[0], global_batch_size=16).tolist()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The answers of a model that was trained without faults."""
    with local_trainer(normalised, tmp_path_factory.mktemp("trained")) as trainer:
        trainer.fit(DATA, **JOB)
        return answers(trainer)


@pytest.mark.parametrize("checkpoint_every", ["epoch", None])
def test_the_same_script_again_on_a_finished_run_answers_from_the_trained_model(tmp_path, trained, checkpoint_every):
    for workers in (0, 2):
        with local_trainer(normalised, tmp_path, workers=workers) as trainer:
            trainer.fit(DATA, checkpoint_every=checkpoint_every, **JOB)
            assert answers(trainer) == trained


def test_a_lone_worker_that_dies_in_a_pass_is_replaced_by_one_with_the_trained_model(tmp_path, trained, at):
    with local_trainer(normalised, tmp_path, workers=1) as trainer:
        trainer.fit(DATA, **JOB)
        for _ in range(2):
            at("validation", None, die)
        assert answers(trainer) == trained
        assert sorted(trainer.workers.seen) == [0, 1, 2]


def test_a_model_outlives_its_workers(tmp_path, trained):
    with local_trainer(normalised, tmp_path) as trainer:
        trainer.fit(DATA, **JOB)
        trainer.close()
        assert answers(trainer) == trained


class Raises(keras.callbacks.Callback):
    """Fails once there is a checkpoint: one that is being written when a run fails does not count."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            until_s = time.monotonic() + 60
            while not list(Path("checkpoints").glob("*/manifest.json")) and time.monotonic() < until_s:
                time.sleep(0.01)
            raise ZeroDivisionError("a mistake in my callback")


@pytest.mark.parametrize("how", ["paused", "failed"])
def test_after_a_fit_that_did_not_finish_its_last_checkpoint_answers(tmp_path, at, how):
    if how == "paused":
        at("reduce", 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    error, callbacks = (RunPausedError, []) if how == "paused" else (TrainingFailedError, [Raises()])
    with local_trainer(linear(), tmp_path) as trainer:
        with pytest.raises(error):
            trainer.fit(DATA, callbacks=callbacks, checkpoint_every=EverySteps(2), **JOB)
        found = answers(trainer)
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    _, tensors = store.load(store.names()[-1])
    model = linear()()
    model.build((None, DATA[0].shape[1]))
    model.set_weights([tensors[name] for name in sorted(tensors) if name.startswith("state/")][: len(model.weights)])
    np.testing.assert_allclose(found[1], model.predict(DATA[0], verbose=0), rtol=1e-5)


def test_a_state_that_is_kept_nowhere_does_not_answer(tmp_path, at):
    with local_trainer(linear(), tmp_path, workers=1) as trainer:
        trainer.fit(DATA, **JOB)
        shutil.rmtree(tmp_path / "run" / "checkpoints")
        assert trainer.evaluate(DATA)["loss"] > 0  # the worker still holds it
        at("validation", None, die)
        with pytest.raises(StateNotKeptError, match="Call fit again"):
            trainer.evaluate(DATA)
        with pytest.raises(StateNotKeptError, match="Call fit again"):
            trainer.predict(DATA[0])


def test_a_fit_that_was_paused_without_checkpoints_leaves_nothing_that_answers(tmp_path, at):
    at("reduce", 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with local_trainer(linear(), tmp_path) as trainer:
        with pytest.raises(RunPausedError):
            trainer.fit(DATA, checkpoint_every=None, **JOB)
        with pytest.raises(StateNotKeptError, match="it was not kept"):
            trainer.evaluate(DATA)


def test_a_disk_that_does_not_answer_at_the_end_is_named_until_it_does(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(storage_thread, "TELL_EVERY_S", 0.05)
    stuck, is_told = tmp_path / "run" / ".run.json.writing", threading.Event()
    say = Record.tell_waiting

    def tell_waiting(self, what, seconds):
        say(self, what, seconds)
        if "the model" in what:
            is_told.set()

    class Sticks(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            os.mkfifo(stuck)  # whoever opens it for writing waits for a reader

    def answer():
        assert is_told.wait(60)
        with stuck.open("rb") as file:
            file.read()

    monkeypatch.setattr(Record, "tell_waiting", tell_waiting)
    thread = threading.Thread(target=answer)
    thread.start()
    with local_trainer(linear(), tmp_path) as trainer:
        result = trainer.fit(dense_data(), global_batch_size=16, epochs=1, callbacks=[Sticks()], verbose=2)
    thread.join()
    assert "s for the model to be written in " in capsys.readouterr().out
    assert result.model().count_params() > 0
    assert not stuck.exists()
