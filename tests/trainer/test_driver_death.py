"""The driver is killed, or asked to stop: its workers leave, and the same command goes on to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ..slow import SLOW
from .faults import assert_gone
from .ray_pool import exists

pytestmark = pytest.mark.faults

GUARD_S = 120.0
SCRIPT = """
import sys
from pathlib import Path

import numpy as np
from heliostat.trainer import RunPausedError, EverySteps, Trainer


def build_model():
    import time

    import keras
    from heliostat.cluster import instruments

    if {pace}:
        instruments.listen(lambda point, step: time.sleep(0.05) if point == "compute" else None)
    model = keras.Sequential([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(5, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(71, 12)).astype(np.float32), rng.integers(0, 5, 71)
    with Trainer(build_model, workers={workers}, num_microbatches=4, seed=7, run_dir="run",
                 threads_per_worker=1, deadline_s={deadline_s}) as trainer:
        try:
            result = trainer.fit((x, y), epochs=12, global_batch_size=16, checkpoint_every=EverySteps(3), verbose=0)
        except RunPausedError as paused:
            sys.exit(str(paused))
    Path("result.json").write_text(__import__("json").dumps([result.sha256, result.history]))
"""


def start(folder: Path, *, workers: int, pace: bool, deadline_s: float | None = None) -> subprocess.Popen:
    (folder / "script.py").write_text(SCRIPT.format(workers=workers, pace=pace, deadline_s=deadline_s))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "script.py"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )


def finish(folder: Path, **arguments) -> list:
    """Run the script to its end; returns its result."""
    process = start(folder, **arguments)
    _, errors = process.communicate(timeout=2 * GUARD_S)
    assert process.returncode == 0, errors
    return json.loads((folder / "result.json").read_text())


def wait_for_epochs(process: subprocess.Popen, folder: Path, num: int) -> list[int]:
    """Wait until the run has done some epochs; returns the pids of its workers."""
    metrics, until = folder / "run" / "metrics.jsonl", time.monotonic() + GUARD_S * SLOW
    while not metrics.exists() or len(metrics.read_text().splitlines()) < num:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until, "the run did not begin"
        time.sleep(0.05)
    return [each["pid"] for each in json.loads((folder / "run" / "run.json").read_text())["workers"]]


def events_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "run" / "events.jsonl").read_text().splitlines()]


def last_checkpoint(folder: Path) -> str:
    return max(each.parent.name for each in (folder / "run" / "checkpoints").glob("*/manifest.json"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return finish(tmp_path_factory.mktemp("undisturbed"), workers=0, pace=False)


@pytest.mark.slow
def test_a_driver_that_was_stopped_for_longer_than_the_deadline_blames_nobody(undisturbed, tmp_path):
    process = start(tmp_path, workers=2, pace=True, deadline_s=4)
    wait_for_epochs(process, tmp_path, 3)
    process.send_signal(signal.SIGSTOP)
    time.sleep(12.0)  # longer than the deadline, shorter than workers do without a driver
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=2 * GUARD_S)
    assert process.returncode == 0, errors
    assert json.loads((tmp_path / "result.json").read_text()) == undisturbed
    assert not any(each["event"] == "lost" for each in events_of(tmp_path))


@pytest.mark.slow
def test_a_machine_that_was_frozen_and_thaws_loses_nobody(undisturbed, tmp_path):
    """Driver and workers stand still for longer than the deadline and go on together, in whatever order they wake."""
    process = start(tmp_path, workers=3, pace=True, deadline_s=4)
    pids = [process.pid, *wait_for_epochs(process, tmp_path, 3)]
    for order in (pids, pids[::-1], pids):
        assert process.poll() is None
        for pid in order:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(6.0)  # the frozen time itself
        for pid in order:
            os.kill(pid, signal.SIGCONT)
    _, errors = process.communicate(timeout=2 * GUARD_S)
    assert process.returncode == 0, errors
    assert json.loads((tmp_path / "result.json").read_text()) == undisturbed
    assert not any(each["event"] == "lost" for each in events_of(tmp_path))


@pytest.mark.slow
def test_workers_leave_a_driver_that_is_gone_for_more_than_a_minute_and_the_reason_is_said(undisturbed, tmp_path):
    process = start(tmp_path, workers=2, pace=True)
    pids = wait_for_epochs(process, tmp_path, 3)
    process.send_signal(signal.SIGSTOP)
    stopped_s = time.monotonic()
    while any(exists(pid) for pid in pids):
        time.sleep(0.5)
        assert time.monotonic() - stopped_s < GUARD_S * SLOW, "workers stay"
    assert time.monotonic() - stopped_s > 55
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=2 * GUARD_S)
    assert process.returncode == 0, errors
    assert json.loads((tmp_path / "result.json").read_text()) == undisturbed
    lost = [each for each in events_of(tmp_path) if each["event"] == "lost"]
    assert lost
    assert all("the driver was gone for" in each["reason"] for each in lost)


def test_a_ray_that_dies_is_said_with_the_checkpoint_and_the_same_command_goes_on(undisturbed, tmp_path):
    process = start(tmp_path, workers=2, pace=True)
    pids = wait_for_epochs(process, tmp_path, 3)
    (raylet,) = [each for each in psutil.Process(process.pid).children() if each.name() == "raylet"]
    raylet.kill()
    killed_s = time.monotonic()
    _, errors = process.communicate(timeout=GUARD_S)
    assert time.monotonic() - killed_s < 60, errors
    assert process.returncode == 1
    assert "is gone: its raylet" in errors
    assert f"The run goes on from {last_checkpoint(tmp_path)}" in errors
    assert_gone(pids)
    assert finish(tmp_path, workers=0, pace=False) == undisturbed


def test_the_driver_is_killed_and_the_same_command_goes_on(undisturbed, tmp_path):
    process = start(tmp_path, workers=2, pace=True)
    pids = wait_for_epochs(process, tmp_path, 3)
    process.kill()
    process.wait()
    killed_s = time.monotonic()
    assert_gone(pids)
    assert time.monotonic() - killed_s < 20
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "running"
    assert finish(tmp_path, workers=0, pace=False) == undisturbed
    assert any(each["event"] == "resumed" for each in events_of(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_pauses_the_run_at_the_step_and_the_same_command_goes_on(undisturbed, tmp_path, number):
    process = start(tmp_path, workers=2, pace=True)
    pids = wait_for_epochs(process, tmp_path, 2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=GUARD_S)
    assert process.returncode == 1
    assert "run the same command again" in errors
    assert not any(exists(pid) for pid in pids)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["state"] == "paused"
    assert finish(tmp_path, workers=0, pace=False) == undisturbed
