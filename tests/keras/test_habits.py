"""Ways to write models and scripts: each is equal to plain Keras, refused by name, or said."""

from __future__ import annotations

import json
from functools import partial

import pytest
from heliostat.trainer.errors import TrainerError

from ..trainer.helpers import local_trainer
from ..trainer.one_device import same_history
from .habits import models, scripts

HABITS = models.HABITS | scripts.HABITS


def trained(name, trainer):
    """What Heliostat makes of a habit: numbers by name, or the words of an error."""
    habit = HABITS[name]
    trainer.fit = partial(trainer.fit, probe=True)  # as without these tests
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
        notes = json.loads((run_dir / "run.json").read_text())["probe"]["notes"]
        assert any(all(words in note for words in habit.said) for note in notes)
        return
    same_history(got, habit.keras(habit.build()), rtol=within)


QUICK = {("two_parts", 0), ("sum_over_rows", 0), ("optimizer_as_numbers", 0)}
RUNS = [
    pytest.param(name, workers, marks=() if (name, workers) in QUICK else pytest.mark.slow)
    for name in HABITS
    for workers in (0, 2)
]


@pytest.mark.engine
@pytest.mark.parametrize(("name", "workers"), RUNS)
def test_a_habit_in_this_process(tmp_path, float64, name, workers):
    trainer = local_trainer(HABITS[name].build, tmp_path, workers=workers, num_microbatches=2)
    hold(name, trained(name, trainer), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("name", HABITS)
def test_a_habit_on_ray(tmp_path, float64, warm_trainer, name):
    got = trained(name, warm_trainer(HABITS[name].build))
    hold(name, got, tmp_path / "run", within=1e-5)  # workers of their own compute in float32
