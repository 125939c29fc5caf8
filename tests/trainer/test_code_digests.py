"""The hashes of a user's function change with what it does, wherever that stands, and with nothing else."""

from __future__ import annotations

import argparse
import functools
import importlib
import random
import sys
import threading
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import keras
import numpy as np
import pytest
from heliostat.trainer.code_digests import callback_digests, changed_code, code_digests

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


@dataclass(slots=True)
class Slots:
    rate: float


@functools.lru_cache
def cached():
    return 1


def of(value):
    """Digests of a function that uses a value."""
    return code_digests(lambda: value)


class Property:
    @functools.cached_property
    def number(self):
        return 1


class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, peak):
        self.peak = peak


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (lambda: np.float32(1e-3), lambda: np.float32(1e-2)),
        (lambda: np.int64(8), lambda: np.int64(16)),
        (lambda: np.array(["a", 1], object), lambda: np.array(["a", 2], object)),
        (lambda: range(2), lambda: range(5)),
        (lambda: Path("a"), lambda: Path("b")),
        (lambda: Fraction(1, 2), lambda: Fraction(1, 3)),
        (lambda: deque([1, 2]), lambda: deque([1, 3])),
        (lambda: MappingProxyType({"rate": 1}), lambda: MappingProxyType({"rate": 2})),
        (lambda: Slots(0.1), lambda: Slots(0.2)),
        (lambda: np.add, lambda: np.multiply),
        (lambda: Warmup(1), lambda: Warmup(2)),
        (
            lambda: keras.optimizers.schedules.CosineDecay(1e-3, 10),
            lambda: keras.optimizers.schedules.CosineDecay(1e-2, 10),
        ),
        (lambda: keras.initializers.RandomNormal(stddev=0.1), lambda: keras.initializers.RandomNormal(stddev=0.2)),
        (lambda: keras.layers.Dense(8, name="a"), lambda: keras.layers.Dense(9, name="a")),
    ],
)
def test_values_of_any_kind_count(before, now):
    assert of(before()) == of(before())
    assert changed_code(of(before()), of(now())), "equal digests answer for another model"


@pytest.mark.parametrize(
    "value",
    [keras, np.mean, len, "a".join, cached, keras.layers.Dense, keras.ops.add, int.__add__, Slots.rate, Property()],
)
def test_what_has_a_name_is_known_by_it(value):
    assert of(value) == of(value)


@pytest.mark.parametrize("value", [threading.Lock(), random.Random(3), random.shuffle, (n for n in range(3))])
def test_what_cannot_be_looked_into_is_equal_to_nothing_and_not_said_to_have_changed(value):
    assert of(value) != of(value)
    assert changed_code(of(value), of(value)) == []


def test_what_is_nested_too_deep_is_not_known():
    value = ()
    for _ in range(2 * sys.getrecursionlimit()):
        value = (value,)
    assert of(value) != of(value)


def test_a_setting_of_a_callback_that_cannot_be_looked_into_is_not_said_to_have_changed():
    class Logs:
        def __init__(self, lock):
            self.lock = lock

    assert changed_code(*(callback_digests([Logs(threading.Lock())], {}) for _ in range(2))) == []


def test_a_list_that_holds_itself_comes_to_an_end():
    loop = [1]
    loop.append(loop)
    assert of(loop) == of(loop)
