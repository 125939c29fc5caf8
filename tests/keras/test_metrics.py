"""Every metric of Keras against one device, over an epoch and over a validation pass."""

from __future__ import annotations

import pytest
from keras import metrics

from .against import Trial, differences
from .conftest import use_floats
from .metrics import FUNCTIONS, METRICS, model_of, rows
from .recipe import of, public_classes, public_functions, without_recipe

ALL = METRICS | {f"{name}()": recipe for name, recipe in FUNCTIONS.items()}
EQUAL = of(ALL, "equal")
GROUPS = {
    "classes": {name: r for name, r in EQUAL.items() if name in METRICS and r.floats == "float64"},
    "classes in float32": {name: r for name, r in EQUAL.items() if name in METRICS and r.floats == "float32"},
    "functions": {name: r for name, r in EQUAL.items() if name not in METRICS and r.floats == "float64"},
}
QUICK = ["classes", "classes in float32"]


def test_every_metric_has_a_recipe():
    assert not without_recipe(public_classes(metrics), METRICS)
    assert not without_recipe(public_functions(metrics), FUNCTIONS)


def compare(folder, recipes):
    """What is too far from one device with these metrics, and how many numbers there are."""
    use_floats(next(iter(recipes.values())).floats)
    tried = Trial(build=model_of(recipes), rows=rows(recipes, 28), valid=rows(recipes, 13, seed=1))
    found = differences(tried.heliostat(folder), tried.plain(eager=True))
    within = max(recipe.within for recipe in recipes.values())
    # Of a shorter last batch, Keras counts the loss of one output as much as of the others.
    far = {name: far for name, far in found.items() if not far <= within and not name.endswith("_loss")}
    return far, len(found)


@pytest.mark.engine
@pytest.mark.parametrize("group", [g if g in QUICK else pytest.param(g, marks=pytest.mark.slow) for g in GROUPS])
def test_metrics_are_those_of_one_device(tmp_path, group):
    far, numbers = compare(tmp_path, GROUPS[group])
    assert not far
    assert numbers >= 2 * len(GROUPS[group]), "each has a number of its own, in training and in validation"


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("name", EQUAL)
def test_each_metric_alone_is_that_of_one_device(tmp_path, name):
    assert not compare(tmp_path, {name: EQUAL[name]})[0]
