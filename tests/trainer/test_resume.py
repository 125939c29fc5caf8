"""Runs that are disturbed, stopped and gone on with, in this process: the result has the bits of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
from heliostat.cluster.allreduce.mesh import TcpMesh
from heliostat.cluster.errors import PeerError
from heliostat.trainer import (
    ConfigurationError,
    EverySteps,
    NonfiniteGradientError,
    RunPausedError,
    TrainingFailedError,
)
from heliostat.trainer.checkpoints.store import CheckpointStore

from ..slow import SLOW
from .conftest import dense_data
from .faults import events_of
from .helpers import die, local_trainer
from .models import linear, normalised

pytestmark = pytest.mark.engine

ROWS, EPOCHS = 71, 4
JOB = {"epochs": EPOCHS, "global_batch_size": 16, "verbose": 0, "record_rows": True}


class RateByStep(keras.callbacks.Callback):
    """Acts between steps, from a state of its own."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def on_train_batch_begin(self, batch, logs=None):
        self.count += 1
        self.model.optimizer.learning_rate = 0.02 / self.count

    def get_state(self):
        return {"count": self.count}

    def set_state(self, state):
        self.count = state["count"]


def callbacks():
    plateau = keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=10, factor=0.5)
    return [RateByStep(), plateau, keras.callbacks.CSVLogger("log.csv")]


def fit(trainer, **arguments):
    return trainer.fit(dense_data(ROWS), **{"validation_data": dense_data(23, seed=1), **JOB, **arguments})


def rows_of(result):
    return [[sorted(row for worker in step for row in worker) for step in epoch.row_ids] for epoch in result.epochs]


def outcome(result):
    return {**result.sha256, "history": json.dumps(result.history), "rows": rows_of(result)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """undisturbed(with callbacks) -> what a run without faults gives; each is computed once."""
    known = {}

    def get(with_callbacks):
        if with_callbacks not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            with local_trainer(normalised, folder) as trainer:
                result = fit(trainer, callbacks=callbacks() if with_callbacks else [])
            csv = (result.run_dir / "log.csv").read_text() if with_callbacks else ""
            known[with_callbacks] = outcome(result), csv
        return known[with_callbacks]

    return get


POINTS = (
    pytest.param("sending", None, 1, "custom", marks=pytest.mark.slow),
    ("receiving", None, 0, "train_on_batch"),
    ("summed", 3, 2, "fit"),
    ("validation", 4, 0, "fit"),
    ("end", None, 0, "custom"),
)


@pytest.mark.parametrize(("point", "step", "worker", "loop"), POINTS)
def test_a_worker_dies(undisturbed, at, tmp_path, point, step, worker, loop):
    at(point, step, die, worker)
    with_callbacks = worker == 0
    with local_trainer(normalised, tmp_path, workers=3) as trainer:
        result = fit(trainer, loop=loop, callbacks=callbacks() if with_callbacks else [])
    expected, csv = undisturbed(with_callbacks)
    assert outcome(result) == expected
    if with_callbacks:
        assert (result.run_dir / "log.csv").read_text() == csv
    for epoch in rows_of(result):
        assert sorted(row for step in epoch for row in step) == list(range(ROWS))
    lost = [line for line in (result.run_dir / "events.jsonl").read_text().splitlines() if '"lost"' in line]
    assert len(lost) == 1


def test_a_second_worker_dies_while_the_group_mends_itself(undisturbed, at, tmp_path):
    at("reduce", 6, die, 2)
    at("regroup", 6, die, 0)
    with local_trainer(normalised, tmp_path, workers=3) as trainer:
        assert outcome(fit(trainer, callbacks=callbacks())) == undisturbed(True)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("worker", "with_callbacks", "loop"),
    [(0, True, "fit"), (0, False, "custom"), (1, True, "train_on_batch"), (1, False, "fit"), (2, True, "custom"),
     (2, False, "train_on_batch")],
)  # fmt: skip
@pytest.mark.parametrize(
    ("point", "step"),
    [("compute", 2), ("reduce", 2), ("sending", None), ("receiving", None), ("summed", 3), ("applied", 3),
     ("checkpoint", None), ("validation", 4), ("end", None)],
)  # fmt: skip
def test_the_full_product_of_deaths(undisturbed, at, tmp_path, point, step, worker, with_callbacks, loop):
    at(point, step, die, None if point == "checkpoint" else worker)
    with local_trainer(normalised, tmp_path, workers=3) as trainer:
        result = fit(trainer, loop=loop, callbacks=callbacks() if with_callbacks else [])
    assert outcome(result) == undisturbed(with_callbacks)[0]


class Weigh(keras.callbacks.Callback):
    """Changes weights between epochs."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.set_weights([values * 0.9 for values in self.model.get_weights()])


@pytest.mark.parametrize(("act", "message"), [(RateByStep, 6), (Weigh, 2)])
def test_the_next_chief_has_not_heard_what_the_last_one_said_and_another_has(at, tmp_path, monkeypatch, act, message):
    """The last words of a chief reach one worker; the one that takes its place hears them from there."""
    with local_trainer(normalised, tmp_path / "undisturbed") as trainer:
        undisturbed = fit(trainer, callbacks=[act()])
    heard, told = threading.Event(), TcpMesh._broadcast
    counts = Counter()

    def tell(self, call, payload, root, max_bytes, deadline_s):
        name = threading.current_thread().name
        counts[name] += 1
        found = told(self, call, payload, root, max_bytes, deadline_s)
        if counts[name] == message and name == "heliostat-worker-0":
            assert heard.wait(60)
            die()
        if counts[name] == message and name == "heliostat-worker-1":
            assert heard.wait(60)
            raise PeerError.lost(call, 0, "its last words were cut off")
        if counts[name] == message and name == "heliostat-worker-2":
            heard.set()
        return found

    monkeypatch.setattr(TcpMesh, "_broadcast", tell)
    with local_trainer(normalised, tmp_path / "disturbed", workers=3) as trainer:
        result = fit(trainer, callbacks=[act()])
    assert outcome(result) == outcome(undisturbed)
    (lost,) = events_of(result.run_dir, "lost")
    assert lost["worker"] == 0


class KillInHook(keras.callbacks.Callback):
    """Ends the chief in the middle of its callbacks, once."""

    done = False

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1 and not KillInHook.done:
            KillInHook.done = True
            die()


def test_the_chief_dies_in_its_callbacks_and_the_next_one_runs_them(undisturbed, tmp_path):
    KillInHook.done = False
    with local_trainer(normalised, tmp_path, workers=3) as trainer:
        result = fit(trainer, callbacks=[*callbacks(), KillInHook()])
    assert KillInHook.done
    expected, csv = undisturbed(True)
    assert outcome(result) == expected
    assert (result.run_dir / "log.csv").read_text() == csv


def test_all_workers_die_and_new_ones_go_on_from_the_last_checkpoint(undisturbed, at, tmp_path):
    at("compute", 12, die, 0)
    at("compute", 12, die, 1)
    with local_trainer(normalised, tmp_path, workers=2) as trainer:
        result = fit(trainer)
    assert outcome(result) == undisturbed(False)[0]
    events = [json.loads(line) for line in (result.run_dir / "events.jsonl").read_text().splitlines()]
    assert any(each.get("restarted") for each in events)


def test_a_group_grows_and_shrinks_between_steps(undisturbed, at, tmp_path):
    trainer = local_trainer(normalised, tmp_path, workers=1, max_workers=3)
    at("compute", 3, lambda: trainer.resize(3))
    at("compute", 14, lambda: trainer.resize(1))
    with trainer:
        result = fit(trainer, epochs=EPOCHS)
        assert outcome(result) == undisturbed(False)[0]
        with pytest.raises(ConfigurationError, match=r"resize\(4\)"):
            trainer.resize(4)


@pytest.mark.parametrize(
    ("step", "workers", "then", "with_callbacks"),
    [
        (7, 2, 3, True),
        pytest.param(11, 0, 2, True, marks=pytest.mark.slow),
        pytest.param(8, 3, 0, False, marks=pytest.mark.slow),
    ],
)
def test_a_paused_run_goes_on_with_any_number_of_workers(
    undisturbed, at, tmp_path, step, workers, then, with_callbacks
):
    trainer = local_trainer(normalised, tmp_path, workers=workers)
    user = callbacks if with_callbacks else list

    at("reduce", step, lambda: os.kill(os.getpid(), signal.SIGTERM), None)
    with trainer, pytest.raises(RunPausedError, match="asked to by SIGTERM") as paused:
        fit(trainer, callbacks=user())
    assert str(tmp_path / "run") in str(paused.value)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "paused"
    with local_trainer(normalised, tmp_path, workers=then) as trainer:
        result = fit(trainer, callbacks=user())
    expected, csv = undisturbed(with_callbacks)
    assert outcome(result) == expected
    if with_callbacks:
        assert (result.run_dir / "log.csv").read_text() == csv


class Keeps(keras.callbacks.Callback):
    """Has a state of numbers that JSON lacks, and pauses the run once."""

    def __init__(self, pause=lambda: None):
        super().__init__()
        self.state, self.pause = {"best": float("inf"), "last": [float("nan"), np.float32("-inf")], "$of": {}}, pause

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            self.pause()

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = state


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_states_of_callbacks_that_are_not_finite_go_on(tmp_path, workers):
    def interrupt():
        until = time.monotonic() + 60 * SLOW
        while not CheckpointStore(tmp_path / "run" / "checkpoints").names() and time.monotonic() < until:
            threading.Event().wait(0.02)
        raise RuntimeError("enough")

    with local_trainer(normalised, tmp_path, workers=workers) as trainer, pytest.raises(Exception, match="enough"):
        fit(trainer, callbacks=[Keeps(interrupt)])
    assert CheckpointStore(tmp_path / "run" / "checkpoints").names(), "the state went into a checkpoint"
    callback = Keeps()
    expected, callback.state = callback.state, {}
    with local_trainer(normalised, tmp_path) as trainer:
        fit(trainer, callbacks=[callback])
    assert json.dumps(callback.state["best"]) == json.dumps(expected["best"])
    assert np.isnan(callback.state["last"][0])
    assert (callback.state["last"][1].dtype, callback.state["last"][1]) == (np.float32, -np.inf)
    assert callback.state["$of"] == {}


@pytest.mark.parametrize(
    ("workers", "max_time_s"),
    [pytest.param(0, 0.001, marks=pytest.mark.slow), (2, 0.001), pytest.param(0, 3.0, marks=pytest.mark.slow)],
)
def test_a_run_pauses_when_its_time_is_over(tmp_path, workers, max_time_s):
    with local_trainer(normalised, tmp_path, workers=workers) as trainer:
        with pytest.raises(RunPausedError, match="max_time_s"):
            fit(trainer, epochs=1_000_000, max_time_s=max_time_s)
    metrics = tmp_path / "run" / "metrics.jsonl"
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    with local_trainer(normalised, tmp_path) as trainer:
        result = fit(trainer, epochs=done + 2)
    with local_trainer(normalised, tmp_path / "whole", workers=0) as trainer:
        assert outcome(result) == outcome(fit(trainer, epochs=done + 2))


def test_a_finished_run_gives_its_result_and_more_epochs_go_on(undisturbed, tmp_path):
    with local_trainer(normalised, tmp_path) as trainer:
        first = fit(trainer, epochs=2)
    with local_trainer(normalised, tmp_path) as trainer:
        again = fit(trainer, epochs=2)
        assert trainer.hosts == {}, "nothing was to be computed"
    assert (again.sha256, again.history) == (first.sha256, first.history)
    with local_trainer(normalised, tmp_path, workers=2) as trainer:
        assert outcome(fit(trainer)) == undisturbed(False)[0]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"seed": 8}, "seed"),
        ({"num_microbatches": 8}, "num_microbatches"),
        ({"threads_per_worker": 1, "deterministic": False}, "deterministic"),
        ({"build": linear()}, "model"),
        ({"global_batch_size": 8}, "global_batch_size"),
        ({"loop": "custom"}, "loop"),
        ({"data": 1}, "data.train"),
    ],
)
def test_a_changed_run_does_not_go_on_and_the_message_names_what_differs(tmp_path, change, what):
    with local_trainer(normalised, tmp_path) as trainer:
        fit(trainer, epochs=1)
    before = {path: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file()}
    fit_only = {name: change.pop(name) for name in ("global_batch_size", "loop") if name in change}
    data = dense_data(ROWS, seed=change.pop("data", 0))
    build = change.pop("build", normalised)
    arguments = {"validation_data": dense_data(23, seed=1), **JOB, "epochs": 2, **fit_only}
    with local_trainer(build, tmp_path, **change) as trainer:
        with pytest.raises(ConfigurationError, match=what) as raised:
            trainer.fit(data, **arguments)
    assert "it began with" in str(raised.value)
    assert before == {path: path.read_bytes() for path in before}


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(undisturbed, tmp_path, capfd):
    with local_trainer(normalised, tmp_path) as trainer:
        fit(trainer, epochs=3, checkpoint_every=EverySteps(4), keep=5)
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    last = store.names()[-1]
    state = tmp_path / "run" / "checkpoints" / last / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    with local_trainer(normalised, tmp_path, workers=2) as trainer:
        result = fit(trainer, verbose=2)
    assert outcome(result) == undisturbed(False)[0]
    assert last in capfd.readouterr().out


def poisoned(row=40):
    x, y = dense_data(ROWS)
    x = x.copy()
    x[row, 3] = np.nan
    return x, y


@pytest.mark.parametrize("workers", [0, 2])
def test_a_gradient_that_is_not_finite_stops_the_run_with_its_place(tmp_path, workers):
    with local_trainer(linear(), tmp_path, workers=workers) as trainer:
        with pytest.raises(NonfiniteGradientError, match=r"Microbatch \d of step \d of epoch 1") as raised:
            trainer.fit(poisoned(), **JOB)
    assert "kernel" in str(raised.value)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    found = [each for each in events if each["event"] == "nonfinite" and each["microbatch"] is not None]
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    assert store.manifest(store.names()[-1]).step == found[0]["step"], "the state before the step is saved"


def test_a_step_that_is_not_finite_can_be_left_out_alike_on_all_workers(tmp_path):
    results = []
    for workers in (0, 2):
        with local_trainer(linear(), tmp_path / str(workers), workers=workers) as trainer:
            results.append(trainer.fit(poisoned(), on_nonfinite="skip", **JOB))
    assert results[0].sha256 == results[1].sha256
    assert results[0].history == results[1].history
    assert np.isfinite(results[0].history["loss"]).all()
    events = [json.loads(line) for line in (results[1].run_dir / "events.jsonl").read_text().splitlines()]
    left_out = {each["epoch"]: each["step"] for each in events if each["event"] == "nonfinite" and each["skipped"]}
    assert sorted(left_out) == list(range(EPOCHS))
    for result in results:
        for epoch in result.epochs:
            rows = rows_of(result)[epoch.epoch][left_out[epoch.epoch]]
            assert 40 in rows
            assert epoch.rows == sum(epoch.rows_by_worker.values()) == ROWS - len(rows)


class FailsOnce(keras.callbacks.Callback):
    """Fails in the third epoch while a file is there, and removes it."""

    def __init__(self, mark):
        super().__init__()
        self.mark = mark

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2 and self.mark.exists():
            self.mark.unlink()
            until = time.monotonic() + 60 * SLOW
            while not any(Path("checkpoints").glob("*/manifest.json")) and time.monotonic() < until:
                time.sleep(0.01)
            raise OSError("no room for a plot")


def test_other_callbacks_than_the_run_began_with_are_named(tmp_path, capfd):
    mark = tmp_path / "mark"
    mark.touch()
    stopping = keras.callbacks.EarlyStopping("loss", patience=3)
    with local_trainer(normalised, tmp_path) as trainer, pytest.raises(TrainingFailedError, match="no room"):
        fit(trainer, callbacks=[FailsOnce(mark), stopping])
    others = [FailsOnce(mark), keras.callbacks.EarlyStopping("loss", patience=9), RateByStep()]
    mark.touch()
    capfd.readouterr()
    with local_trainer(normalised, tmp_path) as trainer, pytest.raises(TrainingFailedError, match="no room"):
        fit(trainer, callbacks=others, verbose=2)
    said = capfd.readouterr().out
    assert "going on from checkpoint" in said
    assert "callbacks or steps are not those with which the run" in said
    assert "began: EarlyStopping.patience, RateByStep, " in said
    with local_trainer(normalised, tmp_path) as trainer:
        fit(trainer, callbacks=others, verbose=2)
    assert "are not those with which" not in capfd.readouterr().out
