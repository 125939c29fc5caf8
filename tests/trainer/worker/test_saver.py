"""The thread that writes checkpoints: whatever it meets is told, and the next checkpoint is tried."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from heliostat.cluster import instruments
from heliostat.cluster.group.liveness import Activity
from heliostat.trainer import EverySteps, storage_thread
from heliostat.trainer.checkpoints.manifest import CheckpointWritten, FinalStateWritten
from heliostat.trainer.checkpoints.snapshot import Snapshot
from heliostat.trainer.checkpoints.store import CheckpointStore
from heliostat.trainer.config import FitConfig
from heliostat.trainer.engine.times import TimeSplit
from heliostat.trainer.events import CheckpointNotMade
from heliostat.trainer.jobs import StillSaving
from heliostat.trainer.worker import worker
from heliostat.trainer.worker.saver import Saver
from heliostat.trainer.worker.session import Session

from ..conftest import dense_data, fingerprint
from ..faults import events_of
from ..models import linear

pytestmark = pytest.mark.engine


@pytest.fixture
def when_written():
    """when_written(fails): call `fails(n)` at the n-th checkpoint that is to be written, from 1; returns the count."""
    stops, count = [], [0]

    def begin(fails):
        def listener(point, step):
            if point == "checkpoint":
                count[0] += 1
                fails(count[0])

        stops.append(instruments.listen(listener))
        return count

    yield begin
    for stop in stops:
        stop()


class WaitsForCheckpoints(keras.callbacks.Callback):
    """Lets every checkpoint be written before the next one is due; else a later state may take its place."""

    def on_train_batch_begin(self, batch, logs=None):
        while any(thread.name == "heliostat-checkpoint" for thread in threading.enumerate()):
            time.sleep(0.002)


def fit(train, **arguments):
    arguments = {"workers": 0, "keep": 9, "callbacks": [WaitsForCheckpoints()], **arguments}
    return train(linear(), dense_data(37), **arguments)


def out_of_memory(*numbers):
    def fails(number):
        if number in numbers:
            raise MemoryError(f"checkpoint {number}")

    return fails


def checkpoints_of(result):
    return [CheckpointStore(str(result.run_dir / "checkpoints")).manifest(name).epoch for name in names_of(result)]


def names_of(result):
    return CheckpointStore(str(result.run_dir / "checkpoints")).names()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_the_thread_is_told_and_the_next_checkpoint_is_made(train, when_written, workers, capfd):
    when_written(out_of_memory(2))
    result = fit(train, workers=workers, epochs=4, verbose=2)
    failed = events_of(result.run_dir, "checkpoint_failed")
    assert [(each["name"][:6], each["reason"]) for each in failed] == [("000002", "MemoryError: checkpoint 2.")]
    assert checkpoints_of(result) == [1, 3, 4]
    assert capfd.readouterr().out.count("warning: no checkpoint 000002") == 1


def test_the_last_state_is_tried_again_at_the_end(train, when_written):
    count = when_written(out_of_memory(3))
    result = fit(train, epochs=3)
    assert count == [5]  # the third twice, and the run's final state
    assert checkpoints_of(result) == [1, 2, 3]
    assert len(events_of(result.run_dir, "checkpoint_failed")) == 1


def test_a_run_without_any_checkpoint_ends_as_one_with_all(train, when_written):
    undisturbed = fit(train, epochs=3)
    count = when_written(out_of_memory(*range(1, 99)))
    result = fit(train, epochs=3)
    assert count[0] >= 3
    assert names_of(result) == []
    assert fingerprint(result) == fingerprint(undisturbed)


def test_a_copy_that_finds_no_memory_costs_this_checkpoint_only(train, monkeypatch):
    taken, take = [], Session.snapshot

    def snapshot(self) -> Snapshot:
        taken.append(self.position.of_run)
        if len(taken) == 2:
            raise MemoryError("too little for a copy")
        return take(self)

    monkeypatch.setattr(Session, "snapshot", snapshot)
    result = fit(train, epochs=2, checkpoint_every=EverySteps(2))
    assert taken == [2, 4, 6]
    failed = events_of(result.run_dir, "checkpoint_failed")
    assert [(each["name"], each["reason"]) for each in failed] == [("of step 4", "MemoryError: too little for a copy.")]
    assert [name[:15] for name in names_of(result)] == ["000000-00000002", "000002-00000000"]


class Alone:
    """What a saver needs of a member; it is the chief."""

    is_chief, generation, step, copy_s = True, 0, 4, 0.0

    def __init__(self):
        self.activity, self.sent = None, []

    def send(self, content):
        self.sent.append(content)

    def note_activity(self, activity):
        self.activity = activity

    def told(self, kind):
        return [each for each in self.sent if isinstance(each, kind)]


def snapshot():
    return Snapshot(epoch=1, step=0, begun=False, tensors={"w": np.zeros(3)}, extra={})


@pytest.mark.parametrize("ending", ["finish", "save_now"])
def test_whoever_waits_for_its_storage_at_an_end_is_saving_and_tells_it(tmp_path, monkeypatch, when_written, ending):
    monkeypatch.setattr(storage_thread, "TELL_EVERY_S", 0.01)
    alone, activities = Alone(), []
    kept = Saver(FitConfig(checkpoint_dir=str(tmp_path)), alone, 0, snapshot, TimeSplit())

    def hangs(number):
        until_s = time.monotonic() + 20
        while len(alone.told(StillSaving)) < 2 and time.monotonic() < until_s:
            time.sleep(0.001)
        activities.append(alone.activity)

    when_written(hangs)
    if ending == "finish":
        kept.save(4)
        kept.finish()
    else:
        kept.save_now(4)
    assert activities == [Activity.SAVE], "which is never cut short"
    first, second = alone.told(StillSaving)[:2]
    assert first.location == second.location == CheckpointStore(str(tmp_path)).location
    assert 0 < first.seconds < second.seconds
    assert len(alone.told(CheckpointWritten)) == 1


def test_who_waits_until_the_run_s_final_state_is_written_tells_it(tmp_path, monkeypatch, when_written):
    monkeypatch.setattr(storage_thread, "TELL_EVERY_S", 0.01)
    monkeypatch.setattr(worker, "make_snapshot", lambda built, **where: snapshot())
    monkeypatch.setattr(worker, "write_model", lambda *arguments: None)
    alone, final = Alone(), SimpleNamespace(final_dir=str(tmp_path), first_generation=0, run_dir=str(tmp_path / "run"))

    def hangs(number):
        until_s = time.monotonic() + 20
        while not alone.told(StillSaving) and time.monotonic() < until_s:
            time.sleep(0.001)

    when_written(hangs)
    worker.Worker._fit_report(
        None, final, SimpleNamespace(model=keras.Sequential([keras.layers.Dense(1)])), alone, {}, None
    )
    assert alone.told(StillSaving)[0].location == str(tmp_path)
    assert len(alone.told(FinalStateWritten)) == 1


def test_a_copy_that_finds_no_memory_at_a_pause_is_told(tmp_path):

    def no_memory():
        raise MemoryError("too little for a copy")

    alone = Alone()
    Saver(FitConfig(checkpoint_dir=str(tmp_path)), alone, 0, no_memory, TimeSplit()).save_now(4)
    (told,) = alone.told(CheckpointNotMade)
    assert (told.name, told.reason) == ("of step 4", "MemoryError: too little for a copy.")
    alone = Alone()
    Saver(FitConfig(checkpoint_dir=str(tmp_path), checkpoint_every=None), alone, 0, no_memory, TimeSplit()).save_now(4)
    assert alone.sent == [], "without checkpoints no copy is made"
