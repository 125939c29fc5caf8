"""Exits of the user's code are the user's errors, with the user's frame; deaths are for processes."""

from __future__ import annotations

import sys
import threading
import time

import keras
import pytest
from heliostat.cluster.group.liveness import Activity
from heliostat.cluster.group.member import Member
from heliostat.data import write_dataset
from heliostat.trainer import TrainingFailedError
from heliostat.trainer.driver.run_folder import read_events
from heliostat.trainer.engine.feed import Feed

from .conftest import dense_data
from .faults import events_of
from .helpers import local_trainer
from .models import linear

pytestmark = pytest.mark.engine

JOB = {"epochs": 2, "global_batch_size": 16, "verbose": 0}
BAD_STEP = 2


class Other(BaseException):
    """No Exception, and no exit either."""


class InABatch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == BAD_STEP:
            sys.exit(3)


class AtAnEpoch(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def in_a_step(model, optimizer, x, y):
    raise Other("of mine")


def in_a_map(rows):
    if threading.current_thread().name.startswith("heliostat-"):
        sys.exit("a map of mine")
    return rows["x"]


def with_callback(trainer, tmp_path, callback):
    trainer.fit(dense_data(), callbacks=[callback()], **JOB)


def with_step(trainer, tmp_path, step):
    trainer.fit(dense_data(), loop="custom", train_step=step, **JOB)


def with_map(trainer, tmp_path, function):
    x, y = dense_data()
    stored = write_dataset(tmp_path / "data", {"x": x, "y": y})
    trainer.fit(stored.map(function, ["x"], "x"), inputs="x", targets="y", **JOB)


@pytest.mark.parametrize(
    ("fit", "where", "error", "step"),
    [
        (with_callback, InABatch, SystemExit, BAD_STEP + 1),
        (with_callback, AtAnEpoch, KeyboardInterrupt, 5),
        (with_step, in_a_step, Other, None),
        (with_map, in_a_map, SystemExit, None),
    ],
    ids=["batch", "epoch", "step", "map"],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_an_exit_of_the_users_code_is_the_users_error(tmp_path, fit, where, error, step, workers):
    with local_trainer(linear(), tmp_path, workers=workers) as trainer:
        with pytest.raises(TrainingFailedError, match=error.__name__) as caught:
            fit(trainer, tmp_path, where)
    assert isinstance(caught.value.__cause__, error)
    assert "test_exits.py" in caught.value.where
    assert (caught.value.kind, caught.value.step) == ("raised", step)
    assert not [each for each in read_events(tmp_path / "run") if each.event == "lost"]


@pytest.mark.slow
def test_a_worker_whose_rows_are_slow_is_named_and_waited_for(tmp_path, train):
    """Storage stalls for one worker until the others have asked for it."""
    x, y = dense_data()
    events, stalled = tmp_path / "run" / "events.jsonl", []

    def stalling(rows):
        if threading.current_thread().name == "heliostat-worker-1" and events.exists() and not stalled:
            stalled.append(True)
            while "reading" not in events.read_text():
                time.sleep(0.05)
        return rows["x"]

    stored = write_dataset(tmp_path / "data", {"x": x, "y": y})
    job = JOB | {"inputs": "x", "targets": "y"}
    with local_trainer(linear(), tmp_path, workers=2, deadline_s=3) as trainer:
        result = trainer.fit(stored.map(stalling, ["x"], "x"), **job)
    assert stalled
    assert {each["activity"] for each in events_of(result.run_dir, "late")} == {
        "reading"
    }  # by a loaded machine more than once
    assert not events_of(result.run_dir, "lost")
    assert result.sha256 == train(linear(), stored, workers=0, **job).sha256


def test_rows_are_read_in_an_activity_of_their_own(tmp_path, monkeypatch):
    """Whoever waits for a worker sees what holds it up, and shared storage may stall for longer than anything else."""
    doing, read, note = threading.local(), Feed.read, Member.note_activity
    seen = []

    def noted(member, activity):
        doing.now = activity
        note(member, activity)

    def watched(feed, step, indices):
        seen.append(getattr(doing, "now", Activity.SET_UP))
        return read(feed, step, indices)

    monkeypatch.setattr(Member, "note_activity", noted)
    monkeypatch.setattr(Feed, "read", watched)
    x, y = dense_data()
    with local_trainer(linear(), tmp_path, workers=2) as trainer:
        trainer.fit((x, y), validation_data=(x, y), **JOB)
        trained = len(seen)
        trainer.evaluate((x, y), global_batch_size=16)
    assert {*seen} == {Activity.SET_UP, Activity.READ}
    assert {*seen[trained:]} == {Activity.READ}
