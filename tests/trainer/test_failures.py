"""A worker that dies or raises stops the run within seconds, with one error that says who, where and when."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import keras
import pytest
from heliostat.trainer import Trainer, TrainingFailedError

from .conftest import dense_data
from .models import linear
from .ray_pool import exists, nothing_left

pytestmark = pytest.mark.faults

BAD_STEP = 3


@pytest.fixture
def trainer(ray_here, tmp_path):
    with Trainer(linear(), workers=2, num_microbatches=4, run_dir=tmp_path / "run") as made:
        made._workers.start(print)  # the tests kill their processes
        yield made


def pids_of(trainer) -> list[int]:
    return [info.pid for info in trainer._workers.infos]


class KillAtStep(keras.callbacks.Callback):
    """Kills a process with SIGKILL at the end of a step, and leaves a note that it did."""

    def __init__(self, pid: int, note: Path) -> None:
        super().__init__()
        self.pid, self.note = pid, note

    def on_train_batch_end(self, batch, logs=None):
        if batch == BAD_STEP:
            self.note.write_text(str(time.time()))
            os.kill(self.pid, signal.SIGKILL)


@pytest.mark.parametrize(("rank", "loop"), [(0, "fit"), (1, "custom"), (1, "train_on_batch")])
def test_a_killed_worker_ends_the_run_with_its_name(trainer, tmp_path, rank, loop):
    pids, note = pids_of(trainer), tmp_path / "note"
    arguments = {"epochs": 50, "global_batch_size": 16, "loop": loop, "verbose": 0}
    with nothing_left(pids):
        with pytest.raises(TrainingFailedError) as raised:
            trainer.fit(dense_data(rows=400), callbacks=[KillAtStep(pids[rank], note)], **arguments)
    assert note.exists(), "the fault did not happen"
    assert not exists(pids[rank])
    error = raised.value
    assert error.rank == rank
    assert error.host == socket.gethostname()
    assert f"Worker {rank} on {error.host} died" in str(error)
    assert "killed" in str(error)
    if rank == 1:
        assert error.step is not None
        assert error.step >= BAD_STEP
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["state"] == "failed"
    assert time.time() - float(note.read_text()) < 60, "the others hung"


def test_after_a_failure_the_trainer_starts_new_workers(trainer, tmp_path):
    pids, note = pids_of(trainer), tmp_path / "note"
    with pytest.raises(TrainingFailedError):
        trainer.fit(dense_data(rows=400), epochs=50, callbacks=[KillAtStep(pids[1], note)], verbose=0)
    assert note.exists()
    result = trainer.fit(dense_data(), epochs=1, verbose=0)
    assert len(result.history["loss"]) == 1
    assert not set(pids) & set(pids_of(trainer))


def raise_at_bad_step(model, optimizer, x, y):
    raise ZeroDivisionError("a mistake in my step")


class RaiseAtStep(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == BAD_STEP:
            raise ZeroDivisionError("a mistake in my callback")


def test_an_error_in_a_users_callback_is_shown_with_its_frame(trainer, tmp_path):
    pids = pids_of(trainer)
    with nothing_left(pids):
        with pytest.raises(TrainingFailedError, match="a mistake in my callback") as raised:
            trainer.fit(dense_data(), epochs=2, global_batch_size=8, callbacks=[RaiseAtStep()], verbose=0)
    error = raised.value
    assert (error.rank, error.step) == (0, BAD_STEP + 1)
    assert "test_failures.py" in str(error)
    assert "on_train_batch_end" in str(error)
    assert isinstance(error.__cause__, ZeroDivisionError)


def test_an_error_in_a_users_step_is_shown_with_its_frame(trainer):
    with pytest.raises(TrainingFailedError, match="a mistake in my step") as raised:
        trainer.fit(dense_data(), loop="custom", train_step=raise_at_bad_step, verbose=0)
    assert "raise_at_bad_step" in str(raised.value)
    assert "before the first step" in str(raised.value)
