"""A run in an executed notebook: one output of its cell, replaced while it goes on, which keeps the lines."""

from __future__ import annotations

import subprocess
import sys

import nbformat
import pytest
from heliostat.trainer.driver.notebook import NotebookDisplay, drawn
from nbclient import NotebookClient

from ...scripts.child import environment
from ...slow import SLOW
from .test_block import BLOCK

CELL = """
import time
import numpy as np
from heliostat.trainer import Trainer

def build_model():
    import keras
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model

def slow():
    import keras
    class Slow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            time.sleep(0.05)
        def on_epoch_end(self, epoch, logs=None):
            time.sleep(3)
    return Slow()

x = np.random.default_rng(0).normal(size=(640, 20)).astype("float32")
trainer = Trainer(build_model, workers=2, in_process=True, num_microbatches=2, run_dir="run")
result = trainer.fit(x, x[:, :1], batch_size=10, epochs=2, callbacks=[slow()], probe=False)
"""


class Noting(NotebookClient):
    """Notes what the cell's output was meanwhile."""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] in ("display_data", "update_display_data"):
            self.meanwhile.append(msg["content"]["data"]["text/plain"])
        return super().process_message(msg, cell, cell_index)


def test_lines_and_block_are_drawn_as_html_and_as_text():
    shown = drawn(["a line <b>&", "worker 1 is lost"], BLOCK)
    assert "a line &lt;b&gt;&amp;" in shown["text/html"]
    assert "<script" not in shown["text/html"]
    assert "http" not in shown["text/html"], "it loads nothing"
    assert shown["text/plain"].startswith("a line <b>&\nworker 1 is lost\n\nepoch 3/10  ━")


def test_of_a_long_run_the_first_and_last_lines_are_shown(monkeypatch):
    display, shown = NotebookDisplay(), []
    monkeypatch.setattr(display, "_show", shown.append)
    for number in range(1000):
        display.say(f"line {number}")
    display.close()
    lines = shown[-1]["text/plain"].splitlines()
    assert (lines[0], lines[-1]) == ("line 0", "line 999")
    assert lines[40] == "... 860 lines are left out here; the run folder has what they tell"
    assert len(lines) == 141


def test_ipython_is_not_loaded_to_say_that_there_is_no_notebook():
    code = "import sys, heliostat.trainer.driver.screen as s; s.make_display(1); print('IPython' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.slow
@pytest.mark.engine
def test_a_fit_in_a_notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    client = Noting(
        notebook, timeout=int(240 * SLOW), kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.meanwhile = []
    client.execute()
    (output,) = [each for each in notebook.cells[0].outputs if each.output_type == "display_data"]
    lines = output.data["text/plain"].splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert lines[0].startswith("2 workers on CPU, in this process")
    assert not any("━" in line for line in lines), "the block is gone"
    assert "epoch 2/2" in output.data["text/html"]
    assert any("━" in text and "/64" in text for text in client.meanwhile)
    assert any("worker  host" in text for text in client.meanwhile)
    assert any("\ncallbacks, on worker 0 on " in text for text in client.meanwhile)
    assert len(client.meanwhile) < 100
