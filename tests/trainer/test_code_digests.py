"""The hashes of a user's function change with what it does, wherever that stands, and with nothing else."""

from __future__ import annotations

import argparse
import functools
import importlib
import sys

import pytest
from heliostat.trainer.code_digests import changed_code, code_digests

HELPER = "def units():\n    return 8\n"
SCRIPT = """
import keras, helper, argparse
from dataclasses import dataclass
RATE = 0.01
class Layer(keras.layers.Layer):
    def call(self, x):
        return x * 2
@dataclass
class Config:
    depth: int = 3
CONFIG = Config()
def inner(n):
    return [Layer() for _ in range(n)]
def make(rate):
    def build_model():
        return inner(CONFIG.depth), helper.units(), rate, RATE
    return build_model
build_model = make(1)
"""


@pytest.fixture
def digests(tmp_path, monkeypatch):
    """digests(script, helper) -> those of `build_model` in a module with this text; both are the user's."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def get(script=SCRIPT, helper=HELPER):
        for name, text in (("helper", helper), ("script", script)):
            (tmp_path / f"{name}.py").write_text(text)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        found = code_digests(importlib.import_module("script").build_model)
        for name in ("helper", "script"):
            sys.modules.pop(name, None)
        return found

    return get


def test_comments_and_places_do_not_count(digests):
    moved = "# a comment\n\n" + SCRIPT.replace("    def call", "    # and another\n\n    def call")
    assert digests(moved) == digests()
    assert {"script.inner", "script.Layer", "helper.units", "script.make.<locals>.build_model"} < digests().keys()
    assert not any(name.startswith(("keras", "dataclasses")) for name in digests())


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("RATE = 0.01", "RATE = 0.001", "script.make.<locals>.build_model"),
        ("make(1)", "make(2)", "script.make.<locals>.build_model"),
        ("range(n)", "range(n + 1)", "script.inner"),
        ("x * 2", "x * 3", "script.Layer.call"),
        ("depth: int = 3", "depth: int = 4", "script.Config"),
        ("CONFIG = Config()", "CONFIG = Config(5)", "script.make.<locals>.build_model"),
        ("keras.layers.Layer)", "keras.layers.Dense)", "script.Layer"),
    ],
)
def test_what_a_function_reaches_counts(digests, old, new, changed):
    assert old in SCRIPT
    assert changed in changed_code(digests(), digests(SCRIPT.replace(old, new)))


def test_modules_of_the_user_count(digests):
    assert changed_code(digests(), digests(helper=HELPER.replace("8", "9"))) == ["helper.units"]


def test_another_python_tells_nothing(digests):
    now = digests()
    assert changed_code(now | {"python": "3.1", "script.inner": "other"}, now) == []


def test_values_that_hold_themselves_come_to_an_end():
    loop = {}
    loop["self"] = loop

    def recursive(n):
        return loop if n else recursive(n - 1)

    assert code_digests(recursive) == code_digests(recursive)


def test_partials_and_namespaces_are_looked_into():
    def build(width):
        return arguments.rate * width

    arguments = argparse.Namespace(rate=0.1)
    before = code_digests(functools.partial(build, 3))
    assert before == code_digests(functools.partial(build, 3))
    assert before != code_digests(functools.partial(build, 4))
    arguments.rate = 0.2
    assert before != code_digests(functools.partial(build, 3))
