"""Classes and functions of the user's own, found by the code of `build_model`."""

from __future__ import annotations

import functools
import importlib

import keras
import numpy as np
import pytest
from heliostat.data import write_dataset
from heliostat.trainer.columns import Columns
from heliostat.trainer.driver.trained_model import Origin, load_trained, named_objects

MODULE = """
import keras

class Twice(keras.layers.Layer):
    def call(self, x):
        return halved(x) * 4

def halved(x):
    return x / 2

def loss(y, found):
    return keras.ops.mean((y - found) ** 2)

unused = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "parts_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("parts_of_mine")


class Here(keras.layers.Layer):
    @property
    def rate(self):
        return rate_of(self)


def rate_of(layer):
    return 0.5


def test_objects_of_this_file_and_of_a_module_are_found_through_functions_methods_and_partials(module):
    inner = functools.partial(keras.Sequential, [Here])

    def build_model():
        model = inner([module.Twice()])
        model.compile(loss=module.loss)
        return model

    found = named_objects(build_model)
    wanted = {"Twice": module.Twice, "halved": module.halved, "loss": module.loss, "Here": Here, "rate_of": rate_of}
    assert {name: found.get(name) for name in wanted} == wanted
    assert not {"Sequential", "Layer", "partial"} & set(found)


def test_what_was_typed_into_a_notebook_is_found(monkeypatch):
    monkeypatch.setattr("__main__.__file__", None, raising=False)
    cell = {"__name__": "__main__"}
    exec(MODULE + "def build_model():\n    return Twice()\n", cell)
    found = named_objects(cell["build_model"])
    assert found["Twice"] is cell["Twice"]
    assert found["halved"] is cell["halved"]


def test_a_model_that_comes_with_optimizers_and_is_not_compiled_is_built_anew(tmp_path):
    class Mine(keras.Model):  # of a class that no code names outside of build_model
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    def build_model():
        return Mine(), {"a": keras.optimizers.SGD(0.1)}

    data = write_dataset(tmp_path / "rows", {"x": np.ones((3, 4), np.float32), "y": np.ones((3, 2), np.float32)})
    trained = Mine()
    trained(np.ones((1, 4)))
    trained.save_weights(tmp_path / "model.weights.h5")
    found = load_trained(
        tmp_path / "model.weights.h5", Origin(build_model=build_model, data=data, columns=Columns()), None
    )
    assert np.array_equal(found.get_weights()[0], trained.get_weights()[0])
