"""Every callback of Keras against one device: history, weights, and what the callback leaves behind."""

from __future__ import annotations

import pytest
from heliostat.trainer.errors import TrainerError
from keras import callbacks

from .against import Trial, differences, relative
from .callbacks import CALLBACKS, build, monitor, rows
from .recipe import of, public_classes, without_recipe

EQUAL, REFUSED = of(CALLBACKS, "equal"), of(CALLBACKS, "refused")
ENDS = {"EarlyStopping"}
"""After it nothing is left to be seen of those that act later."""


def test_every_callback_has_a_recipe():
    assert not without_recipe(public_classes(callbacks), CALLBACKS)


def compare(folder, names):
    """History, weights and files of a fit with these callbacks, by plain Keras and by Heliostat."""
    tried = {name: CALLBACKS[name].make() for name in names}
    outcomes, left = [], []
    for side in ("keras", "heliostat"):
        here = folder / side
        with monitor(here):
            made = [each.make(here) for each in tried.values()]
            trial = Trial(build=build, rows=rows(), epochs=6, callbacks=lambda made=made: made)
            outcomes.append(trial.plain() if side == "keras" else trial.heliostat(folder))
            left.append({key: value for each in tried.values() for key, value in each.left(here).items()})
    wanted, got = outcomes
    found = differences(got, wanted)
    assert left[0].keys() == left[1].keys()
    found |= {name: relative(left[1][name], value) for name, value in left[0].items()}
    return {name: far for name, far in found.items() if not far <= 1e-6}, wanted, left[0]


@pytest.mark.engine
def test_callbacks_act_as_on_one_device(tmp_path, float64):
    far, wanted, left = compare(tmp_path, [*(name for name in EQUAL if name not in ENDS | {"History"}), "History"])
    assert not far
    rates = wanted.history["learning_rate"]
    assert rates[-1] < rates[0] * 0.7**5 * 0.9, "both of those that change the rate did"
    assert len(left) > 20


@pytest.mark.engine
def test_early_stopping_stops_where_it_does_on_one_device(tmp_path, float64):
    far, wanted, _ = compare(tmp_path, ["EarlyStopping"])
    assert not far
    assert 1 < len(wanted.history["loss"]) < 6


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("name", EQUAL)
def test_each_callback_alone_acts_as_on_one_device(tmp_path, float64, name):
    assert not compare(tmp_path, [name])[0]


@pytest.mark.engine
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_of_callbacks_is_refused_by_name(tmp_path, float64, name):
    made = REFUSED[name].make().make(tmp_path)
    with pytest.raises(TrainerError, match=name):
        Trial(build=build, rows=rows(), callbacks=lambda: [made]).heliostat(tmp_path / "run")
