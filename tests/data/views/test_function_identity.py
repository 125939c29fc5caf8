"""Functions of other effect have other fingerprints, one has the same in every process, or it is refused."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import importlib
import operator
import os
import pathlib
import re
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from heliostat.data import Dataset, write_dataset
from heliostat.data.errors import TransformError
from heliostat.data.views.function_identity import function_fingerprint


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Dataset:
    ids = np.arange(50)
    return write_dataset(tmp_path_factory.mktemp("stored") / "set", {"id": ids, "x": ids.astype(np.float32)})


class Scale:
    """A callable object whose effect lies in whatever it holds."""

    def __init__(self, held):
        self.held = held

    def __call__(self, rows):
        return {"x": rows["x"] * self.held["k"]}


@dataclasses.dataclass(frozen=True, slots=True)
class Slots:
    held: object


class Color(enum.Enum):
    RED = 1
    BLUE = 2


Pair = collections.namedtuple("Pair", "first second")


def refers_to(value):
    return lambda rows: {"y": value}


def code(text: str):
    """The function g of a module that does not exist as a file."""
    names = {"__name__": "of_a_user"}
    exec(text, names)
    return names["g"]


CACHED = "import functools\n@functools.lru_cache\ndef f(x): return x * {}\ndef g(rows): return f(rows)"
CLASS = """
class C:
    def method(self, x): return x * {}
    @property
    def one(self): return 1
    @staticmethod
    def two(): return 2
def g(rows): return C().method(rows)
"""
BASE = "class B:\n    k = {}\nclass C(B): pass\nC.__module__ = B.__module__ = 'of_a_user'\ndef g(rows): return C().k"

# For each: an effect 0, made anew for 0, and another one.
VALUES = {
    "an object with a dict": lambda n: Scale({"k": n}),
    "nested objects": lambda n: Scale(Scale(Scale([n]))),
    "an object in slots": lambda n: Slots({n}),
    "a named tuple": lambda n: Pair(1, [n]),
    "a defaultdict": lambda n: collections.defaultdict(list, {1: [n]}),
    "a deque": lambda n: collections.deque([n, 2]),
    "an enum": lambda n: list(Color)[n],
    "a pattern": lambda n: re.compile("ab"[n]),
    "keys of a dict": lambda n: {(n,): 1, frozenset({n}): 2},
    "a number and a bool": lambda n: [1, True][n],
    "an array of objects": lambda n: np.array([{"a": n}, None], object),
    "a masked array": lambda n: np.ma.array([1, 2], mask=[n, 0]),
    "a dtype": lambda n: np.dtype(["f4", "f8"][n]),
    "a frame": lambda n: pd.DataFrame({"a": [1, 2], "b": ["x", "yz"[n]]}),
    "a frame's index": lambda n: pd.DataFrame({"a": [1, 2]}, index=[0, 1 + n]),
    "a series of categories": lambda n: pd.Series(["a", "bc"[n]], dtype="category"),
    "other categories than are there": lambda n: pd.Series(pd.Categorical(["a"], categories=["a", "bc"[n]])),
    "an order of categories": lambda n: pd.Series(pd.Categorical(["a"], categories=["a", "b"], ordered=bool(n))),
    "a series with missing numbers": lambda n: pd.Series([1, None if n else 2], dtype="Int64"),
    "a point in time": lambda n: pd.Timestamp(2020, 1, 1 + n),
    "a table": lambda n: pa.table({"a": [1, n], "s": ["x", None]}),
    "a function": lambda n: lambda: n,
    "a bound method": lambda n: Scale({"k": n}).__call__,
    "a method of a value": lambda n: {"a": n}.get,
}
FUNCTIONS = {
    "a cached function": lambda n: code(CACHED.format(n)),
    "a method of a class": lambda n: code(CLASS.format(n)),
    "an attribute of a base class": lambda n: code(BASE.format(n)),
    "a partial": lambda n: functools.partial(refers_to(0), n),
    "an object of operator": lambda n: operator.itemgetter("ab"[n]),
    "a vectorized function": lambda n: np.vectorize(lambda x: x + n),
    "another function of NumPy": lambda n: [np.mean, np.sum][n],
    "an exception that is caught": lambda n: code(
        f"def g(rows):\n try:\n  return 1\n except {['KeyError', 'ValueError'][n]}:\n  return 2"
    ),
}
CASES = {name: (lambda n, make=make: refers_to(make(n))) for name, make in VALUES.items()} | FUNCTIONS


@pytest.mark.parametrize("name", CASES)
def test_what_differs_in_effect_differs_in_its_fingerprint_and_nothing_else_does(name):
    make = CASES[name]
    assert function_fingerprint(make(0)) == function_fingerprint(make(0))
    assert function_fingerprint(make(0)) != function_fingerprint(make(1))


def test_functions_that_call_each_other_come_to_an_end():
    def make(how):
        def one(rows):
            return other(rows) if how else one(rows)

        def other(rows):
            return one(rows)

        return one

    assert function_fingerprint(make(1)) == function_fingerprint(make(1)) != function_fingerprint(make(0))


UNCERTAIN = {
    "a lock": (threading.Lock, r"_thread.lock \(in value\)"),
    "an event": (threading.Event, r"_thread.lock \(in value\['_cond'\]\['_lock'\]\)"),
    "a file": (lambda: pathlib.Path(os.devnull).open("rb"), "BufferedReader"),  # noqa: SIM115
    "a generator": (lambda: (n for n in range(3)), "generator"),
    "one in an object": (lambda: Scale([{"k": threading.Lock()}]), r"in value\['held'\]\[0\]\['k'\]"),
}


@pytest.mark.parametrize("name", UNCERTAIN)
def test_what_cannot_be_known_again_is_refused_with_the_way_out(stored, name):
    make, message = UNCERTAIN[name]
    value = make()
    with pytest.raises(TransformError, match=rf"The function refers_to.<lambda> refers to a .*{message}.*version="):
        stored.map(lambda rows: {"y": rows["id"]}).map(refers_to(value), ["id"])
    view = stored.map(lambda rows: {"y": rows["id"] if value else None}, ["id"], version="1")
    assert view.fingerprint != stored.fingerprint
    if hasattr(value, "close"):
        value.close()


@pytest.mark.parametrize(
    "found", ["globals()['K']", "eval('K')", "[eval(k) for k in 'K']", "__import__('of_a_user').K"]
)
def test_what_is_found_by_a_text_is_refused(found):
    with pytest.raises(TransformError, match=r"refers to a builtins.builtin_function_or_method \(in (eval|glob|__imp)"):
        function_fingerprint(code(f"K = 1\ndef g(rows): return {found}"))


def test_a_cache_of_another_effect_is_not_used(stored, tmp_path):
    for k in (1, 9):
        cached = stored.map(Scale({"k": k}), ["x"], "x").cache(tmp_path / "cache")
        assert next(cached.batches(3, shuffle=False))["x"].tolist() == [0, k, 2 * k]


def test_modules_of_the_user_count_by_what_is_used_of_them(tmp_path, monkeypatch):
    package = tmp_path / "my_helpers_for_rows"
    package.mkdir()
    (package / "__init__.py").touch()
    (tmp_path / "my_rows.py").write_text(
        "from my_helpers_for_rows import deep\nimport my_helpers_for_rows\n"
        "def change(rows): return deep.scale(rows)\n"
        "def late(rows):\n    from my_helpers_for_rows.deep import scale\n    return scale(rows)\n"
        "def dotted(rows): return my_helpers_for_rows.deep.scale(rows)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for body, unused in (("x * 2", 1), ("x * 2", 2), ("x * 3", 1)):
        (package / "deep.py").write_text(f"import threading\nlock = threading.Lock()\n# {unused}\n\n"
                                         f"def scale(x): return {body}\nunused = {unused}\n")  # fmt: skip
        for name in [name for name in sys.modules if name.startswith("my_")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        module = importlib.import_module("my_rows")
        found.append([function_fingerprint(getattr(module, name)) for name in ("change", "late", "dotted")])
    for same, again, other in zip(*found, strict=True):
        assert same == again != other


def dense(keras, seed):
    keras.utils.set_random_seed(seed)
    layer = keras.layers.Dense(3)
    layer.build((None, 2))
    return layer


def sequential(keras, seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])


def functional(keras, seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.Dense(2)(inputs))


def adapted(keras, number):
    layer = keras.layers.Normalization()
    layer.adapt(np.array([[number], [4.0]]))
    return layer


def vectorization(keras, number):
    layer = keras.layers.TextVectorization(output_sequence_length=3)
    layer.adapt(["a " + "bc"[number]])
    return layer


def own_layer(keras, number):
    class Own(keras.layers.Layer):
        def __init__(self, held):
            super().__init__()
            self.held, self.sub, self.several = held, keras.layers.Dense(1, kernel_initializer="ones"), [1, held]

        def build(self, shape):
            self.sub.build(shape)

        def call(self, x):
            return self.sub(x) * self.held["a"]

    layer = Own({"a": number})
    layer.build((None, 2))
    return layer


def activated(keras, number):
    layer = keras.layers.Dense(2, activation=code(f"def g(x): return x * {number}"), kernel_initializer="ones")
    layer.build((None, 1))
    return layer


KERAS = {
    "weights": dense,
    "a sequential model": sequential,
    "a functional model": functional,
    "adapted statistics": adapted,
    "a vocabulary": vectorization,
    "settings": lambda keras, number: keras.layers.Rescaling(1.0 + number),
    "a layer of one's own": own_layer,
    "an activation of one's own": activated,
    "a global of a lambda": lambda keras, number: keras.layers.Lambda(code(f"K = {number}\ng = lambda x: x * K")),
    "settings of a loss": lambda keras, number: refers_to(keras.losses.Huber(1.0 + number)),
}


@pytest.mark.engine
@pytest.mark.parametrize("name", KERAS)
def test_layers_and_models_count_by_settings_and_weights(name):
    import keras

    make = KERAS[name]
    first = make(keras, 0)
    fingerprint = function_fingerprint(first)
    assert function_fingerprint(make(keras, 0)) == fingerprint != function_fingerprint(make(keras, 1))
    if name in ("weights", "settings", "a layer of one's own"):
        first(np.ones((1, 2), np.float32))
        assert function_fingerprint(first) == fingerprint


@pytest.mark.engine
def test_values_of_tensorflow_count_by_their_bytes():
    import tensorflow as tf

    for make in (tf.constant, tf.Variable, lambda values: tf.ragged.constant([values, [1, 2]])):
        one, same, other = (function_fingerprint(refers_to(make(values))) for values in ([1, 2], [1, 2], [1, 3]))
        assert one == same != other
    one, same, other = (function_fingerprint(tf.function(refers_to(n))) for n in (1, 1, 2))
    assert one == same != other


@pytest.mark.engine
def test_a_layer_without_weights_and_a_table_are_refused():
    import keras
    import tensorflow as tf

    with pytest.raises(TransformError, match=r"The function Dense refers to a keras.*Dense.*version="):
        function_fingerprint(keras.layers.Dense(3))
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [1]), 0)
    with pytest.raises(TransformError, match="StaticHashTable"):
        function_fingerprint(refers_to(table))


def test_a_fingerprint_covers_code_and_values_and_nothing_else(stored):
    def make(offset, scale=1):
        def change(rows):
            """Words that do nothing."""
            return {"y": helper(rows["id"]) * scale + offset}

        return change

    def helper(values):
        return values

    one = function_fingerprint(make(1))
    assert one == function_fingerprint(make(1))
    different = [make(2), make(1, 2), make(np.arange(3)), make(np.arange(1, 4)), functools.partial(make(1), 5)]
    different += [lambda rows: rows, lambda rows: {"y": 1}, lambda rows: {"y": 2}, np.abs, np.sin]
    assert len({one, *map(function_fingerprint, different)}) == len(different) + 1
    views = [
        stored.map(make(1)),
        stored.map(make(2)),
        stored.map(make(1), version="a"),
        stored.map(make(1), version="b"),
    ]
    assert len({view.fingerprint for view in views}) == 4
    assert stored.map(make(1), version="a").fingerprint == stored.map(make(2), version="a").fingerprint


def test_a_fingerprint_is_the_same_in_every_process():
    program = (
        "from heliostat.data.views.function_identity import function_fingerprint\n"
        "import numpy as np\n"
        "import pandas as pd\n"
        "class Held:\n"
        "    def __init__(self): self.a, self.b = {'k': {'x', 'y', 2}}, pd.DataFrame({'a': ['x', None]})\n"
        "held, names = Held(), {'b', 'a', 'c'}\n"
        "def change(rows):\n"
        "    held.a, np.float32(3), Held\n"
        "    return {'y': [n for n in rows['id'] if n in {'x', 'y', 'z', 1, 2.5} or n in names], 'z': np.abs(1)}\n"
        "print(function_fingerprint(change))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", "\n" * int(seed) + program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1
