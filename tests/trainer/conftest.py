"""TensorFlow for the tests that compute in this process: one thread, eight logical CPU devices standing in for GPUs."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from heliostat.cluster import instruments
from heliostat.trainer import Trainer
from heliostat.trainer.engine.runtime import set_up

from ..slow import SLOW
from .phased_watch import Watch
from .ray_pool import warm_trainer, warm_workers

__all__ = ["warm_trainer", "warm_workers"]


@pytest.fixture(scope="session", autouse=True)
def tensorflow_with_eight_devices():
    set_up(replicas=8, threads=1)


def use_floats(name: str) -> None:
    """Make Keras compute in this type. Its dtype policy is remembered per thread, apart from floatx."""
    keras.config.set_floatx(name)
    keras.config.set_dtype_policy(name)


@pytest.fixture(autouse=True)
def float32_again():
    yield
    use_floats("float32")


@pytest.fixture
def float64():
    use_floats("float64")


@pytest.fixture(autouse=True)
def folder_of_its_own(request, tmp_path_factory, monkeypatch):
    """What callbacks have written is linked into the working directory, which is not to be the repository."""
    if request.node.get_closest_marker("engine"):
        monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@pytest.fixture
def train(tmp_path):
    """train(build_model, data, workers=, replicas=, **fit arguments) -> Result, in this process."""
    count = 0

    def run(build_model, data, *, workers=1, replicas=1, num_microbatches=4, seed=7, gradient_dtype=None, **arguments):
        nonlocal count
        count += 1
        trainer = Trainer(
            build_model,
            workers=workers,
            in_process=workers > 0,
            replicas_per_worker=replicas,
            num_microbatches=num_microbatches,
            seed=seed,
            run_dir=tmp_path / f"run-{count}",
            deadline_s=60 * SLOW,
            gradient_dtype=gradient_dtype,
        )
        arguments = {"epochs": 2, "global_batch_size": 16, "verbose": 0, "probe": False} | arguments
        with trainer:
            return trainer.fit(data, **arguments)

    return run


@pytest.fixture
def at():
    """at(point, step, action, worker): do something once at a point of a worker's life; all must have happened."""
    stops, missing = [], []

    def order(point, step, action, worker=None):
        missing.append((point, step, worker))

        def listener(here, at_step):
            name = threading.current_thread().name
            mine = worker is None or name == f"heliostat-worker-{worker}"
            if here == point and step in (None, at_step) and mine and (point, step, worker) in missing:
                missing.remove((point, step, worker))
                action()

        stops.append(instruments.listen(listener))

    yield order
    for stop in stops:
        stop()
    assert not missing, f"this did not happen: {missing}"


@pytest.fixture
def watch():
    """A `Watch` on the workers of this process; what is planned with it must have happened."""
    made = Watch()
    remove = instruments.listen(made.reached)
    yield made
    remove()
    assert not made.missing, "what was planned did not happen"


def fingerprint(result) -> dict[str, str]:
    """What must be equal bit for bit: weights, optimizer state, history."""
    return {**result.sha256, "history": json.dumps(result.history, sort_keys=True)}


def written_epochs(result) -> list[dict]:
    return [json.loads(line) for line in Path(result.run_dir, "metrics.jsonl").read_text().splitlines()]


def text_data(rows=71, length=30, words=50, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, words, (rows, length), dtype=np.int32), rng.integers(0, classes, rows)


def dense_data(rows=71, width=12, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width)).astype(np.float32)
    return x, (np.abs(x[:, 0] * 3).astype(np.int64)) % classes
