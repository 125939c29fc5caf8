"""Every optimizer and schedule of Keras against one device."""

from __future__ import annotations

import pytest
from heliostat.trainer.errors import TrainerError
from keras import optimizers
from keras.optimizers import schedules

from .against import Trial, differences, relative, weights_of
from .optimizers import APART, OPTIMIZERS, OPTIONS, SCHEDULES, MeanOfAll, model_of, model_of_all, rows, schedule_free
from .recipe import of, public_classes, without_recipe

EQUAL, RATES = of(OPTIMIZERS, "equal"), of(SCHEDULES, "equal")


def far(folder, recipe, make_rate=lambda: 1e-2, within=1e-10):
    """What is too far from one device, with this optimizer and this rate."""
    trial = Trial(build=model_of(lambda: recipe.make(make_rate())), rows=rows())
    wanted = trial.plain()
    found = differences(trial.heliostat(folder), wanted)
    return {name: difference for name, difference in found.items() if not difference <= max(recipe.within, within)}


def test_every_optimizer_and_schedule_has_a_recipe():
    assert not without_recipe(public_classes(optimizers), OPTIMIZERS)
    assert not without_recipe(public_classes(schedules), SCHEDULES)


@pytest.mark.engine
def test_optimizers_are_those_of_one_device(tmp_path, float64):
    trial = Trial(build=model_of_all({name: EQUAL[name] for name in EQUAL if name not in APART}), rows=rows())
    found = differences(trial.heliostat(tmp_path), trial.plain())
    assert not {name: difference for name, difference in found.items() if not difference <= 1e-10}


@pytest.mark.engine
@pytest.mark.parametrize(
    "name", [name if name in APART else pytest.param(name, marks=pytest.mark.slow) for name in EQUAL]
)
def test_each_optimizer_alone_is_that_of_one_device(tmp_path, float64, name):
    assert not far(tmp_path, EQUAL[name])


@pytest.mark.engine
def test_schedule_free_is_what_its_authors_describe(tmp_path, float64):
    trial = Trial(build=model_of(lambda: OPTIMIZERS["ScheduleFreeAdamW"].make(1e-2)), rows=rows())
    model = trial.new_model()
    schedule_free(model, trial.rows, trial.batch, trial.epochs)
    wanted = weights_of(model)
    got = trial.heliostat(tmp_path).weights
    assert {path for path in wanted if relative(got[path], wanted[path]) > 1e-10} == set()


@pytest.mark.engine
def test_schedules_are_those_of_one_device(tmp_path, float64):
    assert not far(tmp_path, EQUAL["SGD"], lambda: MeanOfAll([r.make() for r in RATES.values()]), within=1e-6)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("schedule", RATES)
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_each_schedule_alone_is_that_of_one_device(tmp_path, float64, name, schedule):
    assert not far(tmp_path, EQUAL[name], RATES[schedule].make, within=1e-6)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("name", of(OPTIONS, "equal"))
def test_what_every_optimizer_takes_is_that_of_one_device(tmp_path, float64, name):
    assert not far(tmp_path, OPTIONS[name])


@pytest.mark.engine
@pytest.mark.parametrize("name", of(OPTIONS, "refused"))
def test_what_is_refused_of_optimizers_is_refused_by_name(tmp_path, float64, name):
    with pytest.raises(TrainerError, match=name):
        far(tmp_path, OPTIONS[name])
