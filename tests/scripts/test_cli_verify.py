"""`heliostat verify-run` on real workers: what it proves, and what it names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ..examples.counted import names
from ..examples.running import EXAMPLES
from ..slow import SLOW
from .child import heliostat

pytestmark = pytest.mark.slow
UNSEEN = Path(__file__).parent / "unseen"
ALIKE = "2 workers = 1 worker = 2 workers, one killed, after each of 4 steps"
FOUND = {
    "small_sum": "the loss, and with it all gradients, from step 0 on",
    "late_hinge": "the loss, and with it all gradients, from step 1 on",
    "late_sum": "the loss, and with it all gradients, from step 2 on",
    "pairs": "the loss, and with it the gradients of",
    "late_state": "what the step assigns to sequential/largest/largest, and with it the loss, from step 2 on",
}
REFUSED = """
import keras, numpy as np
from heliostat.trainer import Trainer

x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")

def build_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", lambda y, p: keras.ops.sum(keras.ops.square(y - p)))
    return model

Trainer(build_model, workers=2).fit(x, x[:, :1], epochs=2, verbose=0)
"""


def verified(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What the command did in a folder."""
    return heliostat("verify-run", *arguments, cwd=folder, timeout_s=600 * SLOW)


@pytest.mark.faults
@pytest.mark.parametrize("name", names())
def test_an_example_is_proved(name, tmp_path):
    done = verified(tmp_path, EXAMPLES / f"{name}.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ALIKE in done.stdout
    assert "plain Keras on one device, in float64, 4 steps" in done.stdout
    assert "Proved for these steps" in done.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.faults
@pytest.mark.parametrize("name", FOUND)
def test_what_the_start_cannot_see_is_named(name, tmp_path):
    done = verified(tmp_path, UNSEEN / f"{name}.py")
    assert done.returncode == 1, done.stdout + done.stderr
    assert ALIKE in done.stdout
    assert f"NOT PROVED: plain Keras computes otherwise: {FOUND[name]}" in done.stdout
    assert os.listdir(tmp_path) == []


@pytest.mark.ray
def test_what_the_start_refuses_is_told_as_that(tmp_path):
    (tmp_path / "train.py").write_text(REFUSED)
    done = verified(tmp_path, "train.py", "--run-dir", "kept")
    assert done.returncode == 1
    assert "Refused at the start, before any step: UnsupportedStepError: The training step does not fit" in done.stderr
    assert (tmp_path / "kept" / "first" / "run.json").exists()
    again = verified(tmp_path, "train.py", "--run-dir", "kept")
    assert "exists already" in again.stderr


def test_a_script_that_trains_nothing_is_told(tmp_path):
    (tmp_path / "nothing.py").write_text("print('nothing')")
    done = verified(tmp_path, "nothing.py")
    assert done.returncode == 1
    assert "has begun no fit, so there is nothing to verify" in done.stderr
