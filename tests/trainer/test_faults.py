"""Real workers are killed, stopped and broken at exact points; the result has the bits of an undisturbed run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
from heliostat.trainer import Trainer, TrainingFailedError
from heliostat.trainer.config import TrainerConfig

from .conftest import dense_data
from .faults import Faults, Order, assert_gone, events_of, no_surviving_copies, outcome, reached
from .models import linear, normalised
from .ray_pool import SharedWorkers, nothing_left

pytestmark = pytest.mark.faults

ROWS, EPOCHS, SIZE = 71, 40, 3
JOB = {"epochs": EPOCHS, "global_batch_size": 16, "verbose": 0, "record_rows": True}


@pytest.fixture(scope="module")
def three_workers(ray_here):
    workers = SharedWorkers(TrainerConfig(workers=SIZE))
    yield workers
    pids = [info.pid for info in workers.seen.values()]
    workers.really_close()
    assert_gone(pids)


@pytest.fixture
def disturbed(three_workers, tmp_path):
    """disturbed(build, orders, **fit arguments) -> (result, faults): a run on three actors, with its faults."""

    def run(build, orders, **arguments):
        faults = Faults(tmp_path / "faults", tmp_path / "run", SIZE)
        faults.order(*orders)
        trainer = Trainer(faults.build(build), workers=SIZE, num_microbatches=4, seed=7, run_dir=tmp_path / "run")
        trainer._workers = three_workers
        return trainer.fit(dense_data(), **JOB | arguments), faults

    return run


@pytest.fixture
def undisturbed(train):
    def run(build, **arguments):
        return outcome(train(build, dense_data(), workers=0, **JOB | arguments))

    return run


def kills_in(points, who="other"):
    return [Order(point=point, who=who, wave=wave) for wave, point in enumerate(points)]


def test_a_death_at_any_point_of_a_step_changes_nothing(disturbed, undisturbed):
    orders = [
        Order(point="reduce", who="other", wave=0),
        Order(point="sending", who="chief", wave=1),
        Order(point="receiving", who="other", wave=1, at_once=True),
        Order(point="summed", who="chief", wave=2),
        Order(point="applied", who="other", wave=3),
        Order(point="checkpoint", who="chief", wave=3, at_once=True),
    ]
    result, faults = disturbed(normalised, orders, epochs=80)
    faults.check()
    got = outcome(result)
    no_surviving_copies(got["rows"], ROWS)
    assert got == undisturbed(normalised, epochs=80)
    lost = events_of(result.run_dir, "lost")
    assert sorted(each["worker"] for each in lost) == sorted(each["worker"] for each in faults.fired())
