"""Settings, checked when they are made; and the user's code on its way to workers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from heliostat.trainer import ConfigurationError
from heliostat.trainer.config import FitConfig, PassConfig
from heliostat.trainer.shipping import ship, unship
from heliostat.trainer.trainer_config import TrainerConfig, WorkerShare


def test_what_cannot_leave_the_process_is_refused_with_its_name(tmp_path):
    with (
        (tmp_path / "open").open("w") as file,
        pytest.raises(ConfigurationError, match="build_model cannot be shipped"),
    ):
        ship(lambda: file, "build_model")
    assert unship(ship((1, "two"), "x"), "x") == (1, "two")


@pytest.mark.parametrize(("workers", "replicas", "expected"), [(0, 1, 1), (1, 1, 1), (2, 1, 2), (3, 1, 4), (2, 3, 8)])
def test_the_default_number_of_microbatches_is_a_power_of_two(workers, replicas, expected):
    known = TrainerConfig(workers=workers).for_run(WorkerShare(replicas=replicas, threads=3))
    assert (known.total_microbatches, known.replicas, known.threads) == (expected, replicas, 3)


def test_a_run_that_goes_on_keeps_its_number_of_microbatches():
    assert TrainerConfig(workers=2).for_run(WorkerShare(), stored=16).total_microbatches == 16
    assert TrainerConfig(workers=2, num_microbatches=8).for_run(WorkerShare(), stored=16).total_microbatches == 8


@pytest.mark.parametrize("value", [0.9, 2.99, -1, 0, math.inf, math.nan, 3e6, "5", True])
def test_deadlines_that_would_end_healthy_workers_or_never_end_are_refused(value):
    with pytest.raises(ConfigurationError, match=r"^deadline_s="):
        TrainerConfig(deadline_s=value)


@pytest.mark.parametrize("value", [-1, 0, math.inf, math.nan, "x", None, True])
def test_start_timeouts_that_are_no_positive_number_of_seconds_are_refused(value):
    with pytest.raises(ConfigurationError, match=r"^start_timeout_s=.* positive number of seconds"):
        TrainerConfig(start_timeout_s=value)


def test_times_between_the_bounds_are_taken():
    assert TrainerConfig(deadline_s=3, start_timeout_s=0.5).deadline_s == 3
    assert TrainerConfig(deadline_s=7 * 24 * 3600).start_timeout_s == 300.0


@pytest.mark.parametrize(
    ("freq", "epochs"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3]), ([1, 4], [0, 3]), ((5,), [4]), (np.int64(3), [2])]
)
def test_a_run_validates_after_the_epochs_that_keras_validates_after(freq, epochs):
    wanted = FitConfig(validation_freq=freq, epochs=5)
    assert [epoch for epoch in range(5) if wanted.validates_after(epoch)] == epochs


def test_numbers_of_numpy_become_pythons():
    wanted = FitConfig(epochs=np.int64(3), steps_per_epoch=np.int32(7), validation_freq=[np.int64(2)])
    assert [type(each) for each in (wanted.epochs, wanted.steps_per_epoch, *wanted.validation_freq)] == [int] * 3
    with pytest.raises(ConfigurationError, match="it must be an integer of at least 1"):
        PassConfig(columns=wanted.columns, steps=np.float64(2))


@pytest.mark.parametrize(("steps", "num_steps", "num_rows"), [(None, 4, 10), (2, 2, 6), (4, 4, 10), (9, 4, 10)])
def test_a_pass_of_some_steps_takes_the_first_rows(steps, num_steps, num_rows):
    wanted = PassConfig(columns=FitConfig().columns, global_batch_size=3, steps=steps)
    assert (wanted.num_steps(10), wanted.num_rows(10)) == (num_steps, num_rows)
