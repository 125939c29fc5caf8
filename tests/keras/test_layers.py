"""Every layer of Keras against one device."""

from __future__ import annotations

import pytest
from keras import layers

from .against import differences
from .branches import EQUAL_GROUPS, LAYERS, SAID_GROUPS, trial
from .conftest import use_floats
from .recipe import of, public_classes, without_recipe


def together(group, verdict):
    """Those of a group that are tried in one model."""
    return {name: r for name, r in of(group, verdict).items() if not r.long and r.floats == "float64"}


def too_far(found, recipes):
    """The differences beyond what the recipe allows whose branch they are of, and that of the loss."""
    loosest = max(recipe.within for recipe in recipes.values())

    def allowed(name):
        return next((recipe.within for layer, recipe in recipes.items() if name.startswith(layer)), loosest)

    zero = [words for recipe in recipes.values() for words in recipe.zero]
    return {
        name: far
        for name, far in found.items()
        if not far <= allowed(name) and not any(words in name for words in zero)
    }


def test_every_layer_has_a_recipe():
    assert not without_recipe(public_classes(layers), LAYERS)
    tried = [name for group in EQUAL_GROUPS.values() for name in of(group, "equal")]
    tried += [name for group in SAID_GROUPS.values() for name in of(group, "said")]
    assert sorted(tried) == sorted([*of(LAYERS, "equal"), *of(LAYERS, "said")]), "a name is in one group"


@pytest.mark.engine
@pytest.mark.parametrize("group", EQUAL_GROUPS)
def test_layers_of_rows_are_those_of_one_device(tmp_path, float64, group):
    recipes = together(EQUAL_GROUPS[group], "equal")
    tried = trial(recipes, epochs=1)
    assert not too_far(differences(tried.heliostat(tmp_path), tried.plain(eager=True)), recipes)


@pytest.mark.engine
@pytest.mark.parametrize("group", SAID_GROUPS)
def test_layers_that_draw_or_see_a_batch_are_those_of_one_device_in_one_microbatch(tmp_path, float64, group):
    recipes = together(SAID_GROUPS[group], "said")
    tried = trial(recipes)
    got = tried.heliostat(tmp_path, workers=0, num_microbatches=1)
    assert not too_far(differences(got, tried.plain(draws=True, eager=group == "arrays")), recipes)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("group", SAID_GROUPS)
def test_layers_that_draw_or_see_a_batch_give_the_same_bits_on_any_workers(tmp_path, float64, group):
    assert trial(together(SAID_GROUPS[group], "said"), epochs=1).alike(tmp_path, num_microbatches=3)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("name", of(LAYERS, "equal"))
def test_each_layer_of_rows_alone_is_that_of_one_device(tmp_path, float64, name):
    tried = trial({name: LAYERS[name]})
    assert not too_far(differences(tried.heliostat(tmp_path), tried.plain()), {name: LAYERS[name]})


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("name", of(LAYERS, "said"))
def test_each_other_layer_alone_is_that_of_one_device_in_one_microbatch(tmp_path, name):
    use_floats(LAYERS[name].floats)
    tried = trial({name: LAYERS[name]})
    got = tried.heliostat(tmp_path / "one", workers=0, num_microbatches=1)
    assert not too_far(differences(got, tried.plain(draws=True)), {name: LAYERS[name]})
    assert trial({name: LAYERS[name]}, epochs=1).alike(tmp_path, num_microbatches=3)
