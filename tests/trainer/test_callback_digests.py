"""Digests of callbacks tell which of them, and which of their settings, are others than when a run began."""

from __future__ import annotations

import numpy as np
import pytest
from heliostat.trainer.code_digests import callback_digests, changed_code, code_digests


def module(text):
    """What a user's script of this text defines."""
    names = {"__name__": "script", "np": np}
    exec(compile(text, "/home/somebody/train.py", "exec"), names)
    return names


SCRIPT = """
RATE = 0.1

def inner(x):
    return x * RATE

def train_step(model, optimizer, x, y, k=3):
    return {"loss": inner(x) + k}

class Base:
    def on_epoch_end(self, epoch, logs=None):
        self.seen = epoch

class Halve(Base):
    def __init__(self, every=2, factor=0.5, rule=lambda epoch: epoch):
        super().__init__()
        self.every, self.factor, self.rule = every, factor, rule
        self.count = 0

    def on_train_begin(self, logs=None):
        self.count += 1
"""


def digests(text=SCRIPT, make="[Halve()]"):
    names = module(text)
    callbacks = eval(make, names)
    return code_digests(names["train_step"]) | callback_digests(callbacks, {"Halve": ("count",)})


def test_the_same_script_has_the_same_digests():
    assert changed_code(digests(), digests("\n# a comment\n\n" + SCRIPT)) == []
    assert {"Halve", "Halve.every", "Halve.factor", "Halve.rule", "script.train_step"} < set(digests())


@pytest.mark.parametrize(
    ("make", "named"),
    [
        ("[Halve(every=5)]", ["Halve.every"]),
        ("[Halve(rule=lambda epoch: -epoch)]", ["Halve.rule"]),
        ("[Halve(), Halve(every=2, factor=1)]", ["Halve #2", "Halve #2.every", "Halve #2.factor", "Halve #2.rule"]),
        ("[Base(), Halve()]", ["Base"]),
        ("[]", ["Halve", "Halve.every", "Halve.factor", "Halve.rule"]),
    ],
)
def test_changed_callbacks_and_settings_are_named(make, named):
    changed = changed_code(digests(), digests(make=make))
    assert [each for each in changed if not each.startswith("script.")] == named


def test_a_changed_step_and_a_changed_hook_are_named():
    changed = changed_code(
        digests(), digests(SCRIPT.replace("k=3", "k=4").replace("self.count += 1", "self.count = 2"))
    )
    assert {"script.train_step", "script.Halve.on_train_begin"} <= set(changed)


def test_what_a_callback_has_gathered_is_no_setting():
    names = module(SCRIPT)
    one = names["Halve"]()
    before = callback_digests([one], {})
    one.count, one.seen = 7, 3
    assert callback_digests([one], {}) == before
