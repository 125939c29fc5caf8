"""`heliostat run --quick`: a little of everything of a script, and nothing of it is left."""

from __future__ import annotations

import os

import pytest

from ..examples.running import EXAMPLES
from .child import heliostat

SCRIPT = """
import sys
import keras, numpy as np
from heliostat.trainer import Trainer

x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
mistake = sys.argv[1]

class Mistaken(keras.callbacks.Callback):
    def on_test_end(self, logs=None):
        if mistake == "callback":
            raise ValueError("there is no room")

def build_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model

with Trainer(build_model, workers=0, run_dir="own") as trainer:
    files = [keras.callbacks.CSVLogger("log.csv"), Mistaken()]
    for _ in range(2):
        trainer.fit(x, x[:, :1], batch_size=8, epochs=1000, validation_split=0.25, callbacks=files, verbose=0)
    assert set(trainer.evaluate(x, x[:, :1], verbose=0, return_dict=True)) == {"loss", "mae"}
    assert trainer.predict(x, verbose=0).shape == (256, 1)
    trainer.save("mine.keras")
    if mistake == "end":
        sys.exit(3)
"""


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """quick(argument) -> what the command did with the script; temporary folders are made where the test looks."""
    scratch, here = tmp_path / "scratch", tmp_path / "here"
    scratch.mkdir()
    here.mkdir()
    (here / "train.py").write_text(SCRIPT)

    def run(*arguments: object):
        done = heliostat("run", "--quick", *arguments, cwd=here, TMPDIR=str(scratch))
        assert [each for each in os.listdir(scratch) if each.startswith("heliostat")] == []
        assert "Traceback (most recent call last):\n" not in done.stderr
        return done

    run.here = here
    return run


def rows(stdout: str) -> list[list[str]]:
    """The first three words of the rows of the table: the call, its number, the part."""
    return [line.split()[:3] for line in stdout.splitlines() if line.startswith(("  fit", "  pass"))]


@pytest.mark.engine
def test_all_that_a_script_does_is_tried_and_no_run_is_left(quick):
    done = quick("train.py", "none")
    assert done.returncode == 0, done.stdout + done.stderr
    parts = ["start", "train", "callbacks", "validate", "checkpoint", "resume", "save"]
    found = rows(done.stdout)
    assert [each for each in found if each[0] == "fit" and each[2] != "callbacks"] == [
        ["fit", number, part] for number in "12" for part in parts if part != "callbacks"
    ]
    assert found[-2:] == [["pass", "1", "evaluate"], ["pass", "2", "predict"]]
    assert "Everything went well" in done.stdout
    assert "the script itself has written here: mine.keras" in done.stdout
    assert sorted(os.listdir(quick.here)) == ["mine.keras", "train.py"]


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize(
    ("mistake", "status", "said"),
    [("callback", 1, "FAILED: train of fit 1"), ("end", 3, "the script ended with status 3")],
)
def test_what_fails_is_named_and_decides_the_exit_status(quick, mistake, status, said):
    done = quick("train.py", mistake)
    assert done.returncode == status
    assert said in done.stdout
    assert "own" not in os.listdir(quick.here)
    if mistake == "callback":
        assert "there is no room" in done.stderr


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("name", ["first_run", "transfer_learning", "spot_machines"])
def test_examples_are_tried_on_real_workers(quick, name):
    done = quick(EXAMPLES / f"{name}.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything went well" in done.stdout
    assert not (quick.here / "runs").exists()


@pytest.mark.slow
def test_a_script_that_trains_nothing_is_told(tmp_path):
    (tmp_path / "nothing.py").write_text("print('nothing')")
    done = heliostat("run", "--quick", "nothing.py", cwd=tmp_path)
    assert done.returncode == 1
    assert "there is nothing to try" in done.stderr
    (tmp_path / "failed.py").write_text("raise SystemExit(7)")
    assert heliostat("run", "--quick", "failed.py", cwd=tmp_path).returncode == 7
    both = heliostat("run", "--quick", "--plan", "nothing.py", cwd=tmp_path)
    assert both.returncode == 2
    assert "give one of them" in both.stderr
