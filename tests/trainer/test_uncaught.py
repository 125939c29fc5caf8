"""The last lines on the screen of scripts that fail under plain ``python``: whole, with the user's own frames."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from ..examples.running import epochs, wait_until
from ..scripts.child import environment, interruptible

pytestmark = [pytest.mark.engine, pytest.mark.slow]

HEAD = """import os
import keras
import numpy as np
import tensorflow as tf
from heliostat.trainer import Trainer

x, y = np.zeros((64, 4), "float32"), np.arange(64) % 3

def build_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    return model

"""
FIRST = "Traceback (most recent call last), of your code alone:\n"
LAST = "(HELIOSTAT_TRACEBACK=1 shows all of it.)\n"


def python(folder: Path, source: str) -> subprocess.Popen[str]:
    (folder / "train.py").write_text(HEAD + source)
    return subprocess.Popen(
        [sys.executable, "train.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(),
        preexec_fn=interruptible,
    )


def end_of(process: subprocess.Popen[str], folder: Path, first: str = FIRST) -> tuple[int, str]:
    """Exit status, and what is on the screen from a line that begins so, with names for what differs."""
    _, said = process.communicate(timeout=240)
    before, found, after = said.partition(first)
    assert found, said
    assert "Traceback" not in before, said
    text = re.sub(r"build_model-[0-9]{8}-[0-9]{6}", "RUN", f"{found}{after}").replace(str(folder), "HERE")
    text = re.sub(r"[0-9]{6}-[0-9]{8}\.g[0-9]+", "CHECKPOINT", text)
    return process.returncode, text.replace(f"on {socket.gethostname()}", "on HOST")


def line_of(folder: Path, text: str) -> int:
    return (folder / "train.py").read_text().splitlines().index(text) + 1


def test_a_mistake_in_build_model(tmp_path):
    process = python(
        tmp_path,
        "def build():\n"
        "    units = {'a': 3}\n"
        "    return keras.layers.Dense(units['b'])\n"
        "trainer = Trainer(build, workers=0, run_dir='run')\n"
        "trainer.fit(x, y)\n",
    )
    at = line_of(tmp_path, "trainer.fit(x, y)")
    assert end_of(process, tmp_path) == (
        1,
        f"{FIRST}"
        f'  File "HERE/train.py", line {at}, in <module>\n'
        "    trainer.fit(x, y)\n"
        f'  File "HERE/train.py", line {at - 2}, in build\n'
        "    return keras.layers.Dense(units['b'])\n"
        "TrainingFailedError: Worker 0 on HOST raised an error before the first step: KeyError: 'b'\n"
        "Mend it there, and run the script again.\n"
        "The run stopped; its folder HERE/run holds what was reached.\n"
        f"{LAST}",
    )


def test_a_mistake_in_a_callback(tmp_path):
    process = python(
        tmp_path,
        "class Mine(keras.callbacks.Callback):\n"
        "    def on_epoch_end(self, epoch, logs=None):\n"
        "        print(logs['accuracy'])\n"
        "Trainer(build_model, workers=0).fit(x, y, callbacks=[Mine()])\n",
    )
    at = line_of(tmp_path, "        print(logs['accuracy'])")
    assert end_of(process, tmp_path) == (
        1,
        f"{FIRST}"
        f'  File "HERE/train.py", line {at + 1}, in <module>\n'
        "    Trainer(build_model, workers=0).fit(x, y, callbacks=[Mine()])\n"
        f'  File "HERE/train.py", line {at}, in on_epoch_end\n'
        "    print(logs['accuracy'])\n"
        "TrainingFailedError: Worker 0 on HOST raised an error at step 2: KeyError: 'accuracy'\n"
        "Mend it there, and run the script again.\n"
        "The run stopped; its folder HERE/runs/RUN holds what was reached.\n"
        f"{LAST}",
    )


def test_data_that_does_not_fit(tmp_path):
    source = "Trainer(build_model, workers=0).fit(x[:, :3], y)"
    process = python(tmp_path, f"{source}\n")
    assert end_of(process, tmp_path) == (
        1,
        f"{FIRST}"
        f'  File "HERE/train.py", line {line_of(tmp_path, source)}, in <module>\n'
        f"    {source}\n"
        "DataError: The model cannot take this data (x: float32 (3,) per row, y: int64 () per row): ValueError: Input "
        "0 with name 'None' of layer 'dense' is incompatible with the layer: expected axis -1 of input shape to have "
        "value 4, but received input with shape (None, 3) (in Sequential.call()). Check inputs=, targets= and the "
        "model's input shapes.\n"
        "(found by worker 0 on HOST)\n"
        f"{LAST}",
    )


def test_a_run_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "taken").write_text("")
    source = "Trainer(build_model, workers=0, run_dir='taken/run').fit(x, y)"
    process = python(tmp_path, f"{source}\n")
    assert end_of(process, tmp_path) == (
        1,
        f"{FIRST}"
        f'  File "HERE/train.py", line {line_of(tmp_path, source)}, in <module>\n'
        f"    {source}\n"
        "StorageError: 'HERE/taken/run' cannot be written: Not a directory. It is on the machine where the script "
        "runs: put back what was moved or deleted, take away what lies in its place, or give another run_dir.\n"
        f"{LAST}",
    )


def test_a_name_that_fit_does_not_have(tmp_path):
    source = "Trainer(build_model, workers=0).fit(x, y, epocs=2)"
    process = python(tmp_path, f"{source}\n")
    assert end_of(process, tmp_path) == (
        1,
        f"{FIRST}"
        f'  File "HERE/train.py", line {line_of(tmp_path, source)}, in <module>\n'
        f"    {source}\n"
        "ConfigurationError: fit() has no argument 'epocs', which was given as epocs=2. Did you mean epochs=2? See "
        "help(heliostat.trainer.Trainer).\n"
        f"{LAST}",
    )


@pytest.mark.ray
def test_a_mistake_in_a_step_on_another_worker(tmp_path):
    process = python(
        tmp_path,
        "def share():\n"
        "    if os.readlink('/proc/self/fd/1').endswith('worker-1.log'):\n"
        "        return {}['weight']\n"
        "    return 1.0\n"
        "def train_step(model, optimizer, x, y):\n"
        "    with tf.GradientTape() as tape:\n"
        "        loss = tf.reduce_mean(model(x)) * share()\n"
        "    gradients = tape.gradient(loss, model.trainable_variables)\n"
        "    optimizer.apply_gradients(zip(gradients, model.trainable_variables))\n"
        "    return loss\n"
        "if __name__ == '__main__':\n"
        "    trainer = Trainer(build_model, workers=2)\n"
        "    trainer.fit(x, y, loop='custom', train_step=train_step)\n",
    )
    at = line_of(tmp_path, "        return {}['weight']")
    assert end_of(process, tmp_path) == (
        1,
        f"{FIRST}"
        f'  File "HERE/train.py", line {at + 10}, in <module>\n'
        "    trainer.fit(x, y, loop='custom', train_step=train_step)\n"
        f'  File "HERE/train.py", line {at + 4}, in train_step\n'
        "    loss = tf.reduce_mean(model(x)) * share()\n"
        f'  File "HERE/train.py", line {at}, in share\n'
        "    return {}['weight']\n"
        "TrainingFailedError: Worker 1 on HOST raised an error before the first step: KeyError: 'weight'\n"
        "Mend it there, and run the script again.\n"
        "Its log: HERE/runs/RUN/logs/worker-1.log\n"
        "The run stopped; its folder HERE/runs/RUN holds what was reached.\n"
        f"{LAST}",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_pause(number, tmp_path):
    process = python(tmp_path, "Trainer(build_model, workers=0, run_dir='run').fit(x, y, epochs=100000)\n")
    wait_until(lambda: epochs(tmp_path / "run") > 0, process)
    process.send_signal(number)
    how = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[number]
    assert end_of(process, tmp_path, "The run was paused") == (
        75,
        f"The run was paused: it was asked to by {how}. Its state is in checkpoint CHECKPOINT. To go on:\n"
        "  heliostat resume HERE/run\n"
        "or run the same command again, with run_dir='HERE/run'.\n",
    )


def test_a_notebook(tmp_path):
    """What a cell of a notebook shows is what a script does."""
    source = HEAD + "Trainer(build_model, workers=0, run_dir='run').fit(x, y + 5)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "python3"}
    client = NotebookClient(notebook, timeout=120, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=environment(IPYTHONDIR=str(tmp_path)))
    (shown,) = [each for each in notebook.cells[0].outputs if each.output_type == "error"]
    text = re.sub(r'File ".*/ipykernel_[^"]*"', 'File "CELL"', "\n".join(shown.traceback)).replace(
        str(tmp_path), "HERE"
    )
    assert text == (
        f"{FIRST}"
        f'  File "CELL", line {len(source.splitlines())}, in <module>\n'
        "    Trainer(build_model, workers=0, run_dir='run').fit(x, y + 5)\n"
        "DataError: The labels in column 'y' of 'HERE/run/data/train' range from 5 to 7, and the model's output has 3 "
        "classes (0 to 2). Give the last layer as many units as there are classes, or renumber the labels.\n"
        f"(found by worker 0 on {socket.gethostname()})\n"
        "(%env HELIOSTAT_TRACEBACK=1 shows all of it.)"
    )
