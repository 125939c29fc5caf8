"""Classes and functions of the user's own, found by the code of `build_model`."""

from __future__ import annotations

import functools
import importlib

import keras
import pytest
from heliostat.trainer.driver.trained_model import named_objects

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
