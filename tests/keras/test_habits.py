"""Ways to write models and scripts: each is equal to plain Keras, refused by name, or said."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from heliostat.trainer import Trainer
from heliostat.trainer.errors import TrainerError

from ..slow import SLOW
from .habits import models, scripts

HABITS = models.HABITS | scripts.HABITS


def trained(name, trainer):
    """What Heliostat makes of a habit: numbers by name, or the words of an error."""
    habit = HABITS[name]
    with trainer:
        try:
            return (habit.heliostat or habit.keras)(trainer)
        except TrainerError as error:
            return str(error)


def hold(name, got, run_dir, within=1e-8):
    """Fail unless this is what must come of a habit."""
    habit = HABITS[name]
    if habit.refused:
        assert isinstance(got, str), f"it was not refused, and gave {got}"
        assert all(words in got for words in habit.refused), got
        return
    assert not isinstance(got, str), got
    if habit.said:
        notes = json.dumps(json.loads((run_dir / "run.json").read_text()))
        assert all(words in notes for words in habit.said)
        return
    wanted = habit.keras(habit.build())
    assert got.keys() == wanted.keys()
    for key, values in wanted.items():
        np.testing.assert_allclose(got[key], values, rtol=within, err_msg=key)


def arguments(tmp_path, workers):
    return {
        "workers": workers,
        "num_microbatches": 2,
        "seed": 7,
        "run_dir": tmp_path / "run",
        "deadline_s": 60 * SLOW,
    }


QUICK = {("two_parts", 0), ("sum_over_rows", 0), ("optimizer_as_numbers", 0)}
RUNS = [
    pytest.param(name, workers, marks=() if (name, workers) in QUICK else pytest.mark.slow)
    for name in HABITS
    for workers in (0, 2)
]


@pytest.mark.engine
@pytest.mark.parametrize(("name", "workers"), RUNS)
def test_a_habit_in_this_process(tmp_path, monkeypatch, float64, name, workers):
    monkeypatch.chdir(tmp_path)
    trainer = Trainer(HABITS[name].build, in_process=workers > 0, **arguments(tmp_path, workers))
    hold(name, trained(name, trainer), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("name", HABITS)
def test_a_habit_on_ray(tmp_path, monkeypatch, float64, warm_trainer, name):
    monkeypatch.chdir(tmp_path)
    trainer = warm_trainer(HABITS[name].build)
    trainer.fit = partial(trainer.fit, probe=True)  # as without these tests
    hold(name, trained(name, trainer), tmp_path / "run", within=1e-5)  # workers of their own compute in float32
