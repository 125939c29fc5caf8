"""A name that Keras brings, or drops, is seen."""

from __future__ import annotations

import pytest
from keras import callbacks, layers, losses, metrics, optimizers
from keras.optimizers import schedules

from .branches import LAYERS
from .callbacks import CALLBACKS
from .losses import LOSSES
from .metrics import METRICS
from .optimizers import OPTIMIZERS, SCHEDULES
from .recipe import Recipe, public_classes, without_recipe

TABLES = {
    "losses": (losses, LOSSES),
    "metrics": (metrics, METRICS),
    "optimizers": (optimizers, OPTIMIZERS),
    "schedules": (schedules, SCHEDULES),
    "layers": (layers, LAYERS),
    "callbacks": (callbacks, CALLBACKS),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_name_without_a_recipe_and_a_recipe_without_a_name_are_seen(kind):
    module, recipes = TABLES[kind]
    names = public_classes(module)
    for name in names:
        fewer = {other: recipe for other, recipe in recipes.items() if other != name}
        assert without_recipe(names, fewer) == {"new in Keras": [name]}
    more = recipes | {"Invented": Recipe(verdict="base", reason="none")}
    assert without_recipe(names, more) == {"gone from Keras": ["Invented"]}


def test_other_names_of_a_class_are_one():
    assert public_classes(layers)["Conv2D"] == ["Conv2D", "Convolution2D"]


def test_what_is_not_equal_has_a_reason():
    with pytest.raises(ValueError, match="a reason belongs"):
        Recipe(verdict="said")
    with pytest.raises(ValueError, match="a reason belongs"):
        Recipe(reason="because")
