"""The notebooks run from the first cell to the last, each in a kernel in which TensorFlow was used before."""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from ..slow import SLOW
from .counted import EXAMPLES

NOTEBOOKS = EXAMPLES / "notebooks"
# What notebooks are opened with has often computed something already: threads and devices of TensorFlow are fixed.
USED = "import tensorflow as tf\nprint(float(tf.reduce_sum(tf.random.normal((50, 50)) @ tf.ones((50, 50)))) != 0)"
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def executed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the cells of a notebook print and show, in a kernel of this Python in the folder."""
    for variable in ("HELIOSTAT_WORKERS", "HELIOSTAT_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # as in a venv
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(USED))
    client = NotebookClient(
        notebook, timeout=int(240 * SLOW), kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert said_by(cells[0]) == "True\n"
    return [said_by(cell) for cell in cells[1:]]


def said_by(cell: nbformat.NotebookNode) -> str:
    """What a cell has printed on its standard output, and what it shows, such as the value of its last line."""
    texts = [out.text for out in cell.outputs if out.output_type == "stream" and out.name == "stdout"]
    shown = ("execute_result", "display_data")
    texts += [out.data.get("text/plain", "") for out in cell.outputs if out.output_type in shown]
    return ESCAPES.sub("", "".join(texts))


def containing(text: str, cells: list[str]) -> str:
    """The one output that has a text."""
    (found,) = [cell for cell in cells if text in cell]
    return found


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_stored_plainly(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if "outputs" in cell)
    for target in re.findall(r"\]\(([^)#:]+)\)", "\n".join(cell.source for cell in notebook.cells)):
        assert (path.parent / target).exists(), target


@pytest.mark.slow
@pytest.mark.ray
def test_first_steps(tmp_path, monkeypatch):
    cells = executed("first_steps", tmp_path, monkeypatch)
    here, workers = map(ast.literal_eval, re.findall(r"^\[[0-9., ]+\]$", "".join(cells), re.MULTILINE))
    assert len(here) == 5
    assert here[-1] > 0.85
    assert workers == pytest.approx(here, abs=0.02)
    assert "Trainable params: 4,547" in containing("Model:", cells)
    first, last = containing("model.keras", cells).splitlines()
    assert set(ast.literal_eval(first)) >= {"run.json", "metrics.jsonl", "events.jsonl", "logs", "checkpoints"}
    assert ast.literal_eval(last)["accuracy"] > 0.85


@pytest.mark.slow
@pytest.mark.engine
def test_augmentation(tmp_path, monkeypatch):
    cells = executed("augmentation", tmp_path, monkeypatch)
    said = containing("another epoch", cells)
    assert said == "another epoch, the same pictures: False\nthe same epoch, the same pictures: True\n"
    without, with_it = (
        float(each) for each in re.findall(r"augmentation: ([0-9.]+)", containing("of the test", cells))
    )
    assert without < 0.7 < 0.85 < with_it
    assert "#" in containing("....", cells)


@pytest.mark.slow
@pytest.mark.ray
def test_stop_and_go_on(tmp_path, monkeypatch):
    cells = executed("stop_and_go_on", tmp_path, monkeypatch)
    _, _, stopped, commands, so_far, gone_on, undisturbed, workers, events, _ = cells
    assert "heliostat resume" in stopped[stopped.index("PAUSED:") :]
    assert "paused" in commands
    assert "Usage" not in commands
    assert so_far.startswith("paused\nepochs so far: 3 ")
    assert "epochs: 6 mean error: " in gone_on
    assert undisturbed.endswith("the same weights: True\n")
    assert sorted(ast.literal_eval(workers.splitlines()[0])) == [0, 1]
    assert "resumed" in events
    assert "worker-1.log" in events


@pytest.mark.slow
@pytest.mark.ray
def test_step_by_step(tmp_path, monkeypatch):
    _, _, steps, validation, more, what_came_out, _ = executed("step_by_step", tmp_path, monkeypatch)
    assert [line.split()[0] for line in steps.splitlines()] == ["0", "5", "10", "15"]
    first = float(validation.split()[-1])
    assert [line.split()[0] for line in more.splitlines()] == ["1", "2", "3"]
    assert float(more.splitlines()[-1].split()[1]) > first > 0.5
    assert more.splitlines()[-1].endswith("rate: 0.005")
    assert ast.literal_eval(what_came_out.splitlines()[0]) == dict.fromkeys(
        ("accuracy", "loss", "val_accuracy", "val_loss"), 4
    )
    assert "model.keras" in what_came_out
