"""A Keras script becomes a Heliostat script by at most three lines: every example is counted against its plain twin."""

from __future__ import annotations

import pytest

from .counted import EXAMPLES, compared, names, of_example

MOST = 3
PLAIN = """
'''A script.'''
import keras
x = 1
model = keras.Sequential([keras.layers.Dense(1)])  # one layer
model.compile("adam", "mse")
model.fit(
    x, epochs=2
)
model.save("a.keras")
"""
EXAMPLE = """
import keras
from heliostat.trainer import Trainer
x = 1
def build_model():
    import keras
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model
trainer = Trainer(build_model, workers=2)
trainer.fit(x, epochs=2)
trainer.save("a.keras")
"""


@pytest.mark.parametrize("name", names())
def test_at_most_three_lines_are_replaced_or_added(name):
    found = of_example(name)
    assert len(found.counted) <= MOST, found.shown
    assert any("Trainer(build_model" in line for line in found.counted)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short(path):
    text = path.read_text()
    assert 25 <= text.count("\n") <= 50
    assert text.startswith('"""')


@pytest.mark.parametrize("name", names())
def test_a_twin_is_plain_keras(name):
    assert "heliostat" not in (EXAMPLES / "plain" / f"{name}.py").read_text()


def test_there_are_eight_and_each_has_a_twin():
    alone = {"fashion_mnist", "reuters"}  # with a download
    assert sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in alone) == names()
    assert len(names()) == 8


def test_what_is_new_and_what_stands_for_another_line_is_counted():
    found = compared(PLAIN, EXAMPLE)
    assert found.counted == [
        "trainer = Trainer(build_model, workers=2)",
        "trainer.fit(x, epochs=2)",
        "trainer.save('a.keras')",
    ]
    assert "-model.fit(x, epochs=2)\n-model.save('a.keras')\n+trainer = Trainer(build_model, workers=2)" in found.shown


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("x = 1", "x = 2", id="another line"),
        pytest.param("x = 1", "x = 1; x += 1", id="two on one"),
        pytest.param('    model.compile("adam", "mse")', '    model.compile("sgd", "mse")', id="in build_model"),
        pytest.param("    return model", "    model.summary()\n    return model", id="new in build_model"),
        pytest.param("    return model", "    return wrapped(model)", id="no plain return"),
        pytest.param("def build_model():", "def other():\n    pass\ndef build_model():", id="a function"),
    ],
)
def test_nothing_more_hides(old, new):
    assert old in EXAMPLE
    assert len(compared(PLAIN, EXAMPLE).counted) < len(compared(PLAIN, EXAMPLE.replace(old, new)).counted)


def test_the_model_is_taken_from_the_twin_once():
    twice = EXAMPLE.replace("trainer = ", 'model.compile("adam", "mse")\ntrainer = ')
    assert "model.compile('adam', 'mse')" in compared(PLAIN, twice).counted
    moved = EXAMPLE.replace("x = 1\n", "").replace("trainer = ", "x = 1\ntrainer = ")
    assert len(compared(PLAIN, moved).counted) == 3  # before the model or behind it


def test_an_example_without_build_model_is_refused():
    with pytest.raises(ValueError, match="0 functions build_model"):
        compared(PLAIN, PLAIN)
