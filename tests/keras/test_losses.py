"""Every loss of Keras against one device."""

from __future__ import annotations

import pytest
from keras import losses

from .against import Trial, differences
from .losses import FUNCTIONS, LOSSES, MORE, model_of, rows
from .recipe import of, public_classes, public_functions, without_recipe

ALL = LOSSES | MORE | FUNCTIONS


def test_every_loss_has_a_recipe():
    assert not without_recipe(public_classes(losses), LOSSES)
    assert not without_recipe(public_functions(losses), FUNCTIONS)


def trial(recipes):
    return Trial(build=model_of(recipes), rows=rows(recipes))


def too_far(found, recipes):
    """The differences beyond what a recipe allows, by name; the whole loss is the sum of all."""
    loosest = max(recipe.within for recipe in recipes.values())
    allowed = {name: next((r.within for n, r in recipes.items() if n in name), loosest) for name in found}
    return {name: difference for name, difference in found.items() if not difference <= allowed[name]}


@pytest.mark.engine
@pytest.mark.parametrize(
    "table", [LOSSES | MORE, pytest.param(FUNCTIONS, marks=pytest.mark.slow)], ids=["classes", "functions"]
)
def test_losses_of_rows_are_those_of_one_device(tmp_path, float64, table):
    recipes = {name: recipe for name, recipe in of(table, "equal").items() if not recipe.long}
    tried = trial(recipes)
    assert not too_far(differences(tried.heliostat(tmp_path), tried.plain(eager=True)), recipes)


@pytest.mark.engine
def test_losses_of_a_batch_are_those_of_one_device_in_one_microbatch(tmp_path, float64):
    recipes = of(LOSSES, "said")
    tried = trial(recipes)
    got = tried.heliostat(tmp_path, workers=0, num_microbatches=1)
    assert not too_far(differences(got, tried.plain(eager=True)), recipes)


@pytest.mark.slow
@pytest.mark.engine
def test_losses_of_a_batch_give_the_same_bits_on_any_workers(tmp_path, float64):
    assert trial(of(LOSSES, "said")).alike(tmp_path, num_microbatches=3)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("name", of(ALL, "equal"))
def test_each_loss_of_rows_alone_is_that_of_one_device(tmp_path, float64, name):
    recipes = {name: ALL[name]}
    tried = trial(recipes)
    assert not too_far(differences(tried.heliostat(tmp_path), tried.plain()), recipes)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("name", of(ALL, "said"))
def test_each_loss_of_a_batch_alone(tmp_path, float64, name):
    recipes = {name: ALL[name]}
    tried = trial(recipes)
    got = tried.heliostat(tmp_path / "one", workers=0, num_microbatches=1)
    assert not too_far(differences(got, tried.plain()), recipes)
    assert tried.alike(tmp_path, num_microbatches=3)
