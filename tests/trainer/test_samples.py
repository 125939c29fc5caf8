"""Samples of real runs: the parts add up to all of a worker's time, and each has what was spent in it."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import keras
import pytest
from heliostat.trainer import EverySteps, RunPausedError
from heliostat.trainer.driver.run_folder import read_run
from heliostat.trainer.engine.times import PARTS, TimeSplit

from .conftest import dense_data
from .helpers import die, local_trainer
from .models import linear

ROWS, STEPS, EPOCHS = 71, 5, 3
JOB = {"epochs": EPOCHS, "global_batch_size": 16, "verbose": 0}
SLEEP_S = 0.2


class Slow(keras.callbacks.Callback):
    """Holds up all workers at the end of an epoch, and when validation begins."""

    def on_epoch_end(self, epoch, logs=None):
        time.sleep(SLEEP_S)

    def on_test_begin(self, logs=None):
        time.sleep(SLEEP_S)


@pytest.fixture
def added_up(monkeypatch):
    """Whatever a worker tells of its time is held against the clock: what goes by between two looks is in its parts."""
    looks, seconds = defaultdict(list), TimeSplit.seconds

    def watched(times):
        before_s = time.perf_counter()
        found = seconds(times)
        looks[id(times)].append((before_s, sum(found.values()), time.perf_counter()))
        return found

    monkeypatch.setattr(TimeSplit, "seconds", watched)
    yield
    rounding_s = 1e-6 * len(PARTS)
    assert looks
    for each in looks.values():
        assert len(each) > 1
        for (before_s, earlier_s, after_s), (next_before_s, later_s, next_after_s) in pairwise(each):
            assert next_before_s - after_s - rounding_s <= later_s - earlier_s <= next_after_s - before_s + rounding_s


@pytest.mark.engine
def test_where_the_time_of_two_workers_goes(added_up, tmp_path):
    valid = dense_data(rows=23, seed=1)
    with local_trainer(linear(), tmp_path, workers=2) as trainer:
        result = trainer.fit(
            dense_data(), validation_data=valid, callbacks=[Slow()], checkpoint_every=EverySteps(2), **JOB
        )
    run = read_run(result.run_dir)
    last = run.samples[-1]
    chief, other = last.workers
    assert (last.step, last.rows) == (EPOCHS * STEPS, EPOCHS * ROWS) == (chief.step, chief.rows + other.rows)
    assert (chief.microbatches, other.microbatches) == (2, 2)
    assert chief.computed == other.computed == 2 * (EPOCHS * STEPS - 1), "the first step counts by itself"
    assert chief.memory["host"] > 1 << 20
    assert chief.seconds.keys() == {f"{part}_s" for part in PARTS}
    parts = ("first_step_s", "input_s", "compute_s", "apply_s", "validate_s", "epoch_end_s", "rest_s")
    assert all(each.seconds[part] > 0 for each in last.workers for part in parts)

    slept_s = EPOCHS * SLEEP_S
    assert chief.hooks.keys() == {"Slow.on_epoch_end", "Slow.on_test_begin"}
    assert min(chief.hooks.values()) >= slept_s
    assert chief.seconds["hooks_s"] >= sum(chief.hooks.values()) - 1e-5
    assert other.hooks == {}
    assert other.seconds["hooks_s"] > slept_s, "who waits for the callbacks says so"

    copies_s = sum(each.seconds for each in run.events if each.event == "checkpoint")
    assert chief.seconds["save_s"] > copies_s / 2 > 0
    assert chief.seconds["save_s"] > other.seconds["save_s"]

    at_ends = {sample.step: sample for sample in run.samples}
    for epoch in run.epochs:
        assert at_ends[(epoch.epoch + 1) * STEPS].logs == epoch.logs
        assert epoch.seconds_by_worker[0]["compute_s"] > 0
        assert epoch.seconds_by_worker[0].keys() <= chief.seconds.keys()


@pytest.mark.engine
def test_the_samples_of_a_run_go_on_after_a_death(added_up, at, tmp_path, monkeypatch):
    monkeypatch.setattr("heliostat.trainer.worker.sampler.SAMPLE_EVERY_S", 0.0)
    at("reduce", 6, die, 1)
    with local_trainer(linear(), tmp_path, workers=3) as trainer:
        result = trainer.fit(dense_data(), callbacks=[Slow()], **JOB)
    samples = read_run(result.run_dir).samples
    assert samples[-1].rows == EPOCHS * ROWS
    assert 1 in {each.worker for each in samples[0].workers}
    assert 1 not in {each.worker for each in samples[-1].workers}
    told = defaultdict(list)
    for sample in samples:
        for each in sample.workers:
            told[each.worker].append(each)
    for each in told.values():
        for earlier, later in pairwise(each):
            assert later.step >= earlier.step
            assert all(later.seconds[part] >= seconds for part, seconds in earlier.seconds.items())
    assert all(told[worker][-1].seconds["regroup_s"] > 0 for worker in (0, 2))


@pytest.mark.engine
def test_a_run_that_goes_on_appends_samples_and_counts_seconds_anew(added_up, tmp_path):
    told = []
    for epochs in (EPOCHS, 2 * EPOCHS):
        with local_trainer(linear(), tmp_path) as trainer:
            result = trainer.fit(dense_data(), callbacks=[Slow()], **JOB | {"epochs": epochs})
        told.append(read_run(result.run_dir).samples)
    before, after = told
    assert after[: len(before)] == before
    first, last = after[len(before)], after[-1]
    assert sum(first.workers[0].seconds.values()) < sum(before[-1].workers[0].seconds.values())
    assert (last.step, last.rows, last.workers[0].rows) == (2 * EPOCHS * STEPS, 2 * EPOCHS * ROWS, EPOCHS * ROWS)
    lines = Path(result.run_dir, "samples.jsonl").read_text().splitlines()
    assert len(lines) == len(after)


@pytest.mark.engine
@pytest.mark.slow
def test_steps_that_all_workers_lost_are_in_the_file_and_not_among_the_samples(at, tmp_path, monkeypatch):
    monkeypatch.setattr("heliostat.trainer.worker.sampler.SAMPLE_EVERY_S", 0.0)
    at("compute", 12, die, 0)
    at("compute", 12, die, 1)
    with local_trainer(linear(), tmp_path, workers=2) as trainer:
        result = trainer.fit(dense_data(), callbacks=[Slow()], checkpoint_every=EverySteps(8), **JOB)
    steps = [each.step for each in read_run(result.run_dir).samples]
    assert steps == sorted(steps)
    assert steps[-1] == EPOCHS * STEPS
    assert read_run(result.run_dir).samples[-1].rows == EPOCHS * ROWS


@pytest.mark.engine
@pytest.mark.slow
def test_the_last_sample_of_a_paused_run_is_where_it_goes_on(at, tmp_path):
    at("reduce", 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with local_trainer(linear(), tmp_path, workers=2) as trainer, pytest.raises(RunPausedError):
        trainer.fit(dense_data(), **JOB)
    run = read_run(tmp_path / "run")
    (paused,) = (each for each in run.events if each.event == "paused")
    (checkpoint,) = (each for each in run.events if each.event == "checkpoint" and each.name == paused.checkpoint)
    assert max(each.step for each in run.samples[-1].workers) == checkpoint.epoch * STEPS + checkpoint.step > 0


@pytest.mark.ray
def test_actors_tell_samples(warm_trainer):
    result = warm_trainer(linear()).fit(dense_data(), **JOB)
    last = read_run(result.run_dir).samples[-1]
    assert last.rows == EPOCHS * ROWS == sum(each.rows for each in last.workers)
    assert len({each.worker for each in last.workers}) == 2
    assert all(each.seconds["first_step_s"] > 0 and each.memory["host"] > 1 << 20 for each in last.workers)
