"""Every example runs as it stands, on real Ray, and prints what it is to show; its plain twin computes the same."""

from __future__ import annotations

import ast
import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from .counted import names
from .running import EXAMPLES, run

pytestmark = [pytest.mark.slow, pytest.mark.ray]

# What the numbers of the last line have to be, and what the script leaves.
SHOWN = {
    "first_run": (lambda found: found[1] > 0.9 > found[0], "spirals.keras"),
    "own_data": (lambda found: found[-1] < 1 < found[0], "turbine/manifest.json"),
    "custom_step": (lambda found: found[-1] > 0.85 > found[0], "runs"),
    "gan": (lambda found: all(0.7 < each < 1.3 for each in found), "runs"),
    "transfer_learning": (lambda found: found[1] < found[0] / 4, "runs"),
    "images": (lambda found: found[-1] > 0.9 > found[0], "photos-set/manifest.json"),
    "spot_machines": (lambda found: found[-1] < found[0] / 2, "runs/spot/model.keras"),
    "laptop_to_cluster": (lambda found: found[-1] < found[0], "waves.keras"),
}
# Those that draw random numbers in a step, or read pictures in Keras's order, have another result by right.
DRAWN = {"gan", "images"}


def numbers(lines: list[str], name: str) -> list[float]:
    """The numbers of the last line that the script itself has printed."""
    if name == "first_run":
        first, last = lines[-2:]
        assert last.startswith("class of (0.5, 0.5): ")
        values = ast.literal_eval(first.partition(": ")[2])
        return [values[0], values[-1]]
    text = lines[-1].partition(": ")[2]
    if name == "transfer_learning":
        return [float(each) for each in text.split(" -> ")]
    return [float(each) for each in text.strip("[]").replace(",", " ").split()]


@pytest.mark.parametrize("name", names())
def test_an_example_runs_on_two_workers(name, tmp_path):
    said = run(EXAMPLES / f"{name}.py", tmp_path)
    is_good, left = SHOWN[name]
    found = numbers(said, name)
    assert is_good(found), said[-3:]
    assert (tmp_path / left).exists()
    assert not [line for line in said if "Warning" in line or "Traceback" in line]


@pytest.mark.parametrize("name", sorted(set(names()) - DRAWN))
def test_the_twin_computes_the_same(name, tmp_path):
    weights = []
    for kind in ("plain", "."):
        folder = tmp_path / f"in {kind}"
        script = EXAMPLES / kind / f"{name}.py"
        run(Path(__file__).parent / "in_order.py", folder, str(script), "weights.npz", HELIOSTAT_WORKERS="0")
        with np.load(folder / "weights.npz") as file:
            weights.append([file[each] for each in file.files])
    assert len(weights[0]) == len(weights[1]) > 0
    for plain, ours in zip(*weights, strict=True):
        assert ours.dtype == np.float64
        assert np.linalg.norm(ours - plain) <= 1e-9 * np.linalg.norm(plain)


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_the_other_twins_run(name, tmp_path):
    said = run(EXAMPLES / "plain" / f"{name}.py", tmp_path)
    assert SHOWN[name][0](numbers(said, name)), said[-3:]


def test_fashion_mnist_runs_on_its_files(tmp_path):
    rng = np.random.default_rng(0)
    for prefix, rows in (("train", 256), ("t10k", 64)):
        for kind, shape in (("images-idx3", (rows, 28, 28)), ("labels-idx1", (rows,))):
            head = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
            values = rng.integers(0, 10, shape, dtype=np.uint8).tobytes()
            (tmp_path / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + values))
    said = run(EXAMPLES / "fashion_mnist.py", tmp_path, "--data", ".", "--epochs", "1")
    assert "val_sparse_categorical_accuracy" in said[-2]
    assert len(ast.literal_eval(said[-1].replace(" ", ","))) == 5


@pytest.mark.parametrize("loop", ["fit", "train_on_batch", "custom"])
def test_reuters_runs_in_all_three_ways(loop, tmp_path):
    program = tmp_path / "without_download.py"
    program.write_text(
        "import runpy, sys\n"
        "import keras\n"
        "import numpy as np\n"
        "rng = np.random.default_rng(0)\n"
        "part = lambda n: ([list(rng.integers(1, 10_000, 20)) for _ in range(n)], rng.integers(0, 46, n))\n"
        "keras.datasets.reuters.load_data = lambda num_words: (part(256), part(64))\n"
        f"sys.argv = ['reuters.py', '--epochs', '1', '--loop', {loop!r}]\n"
        f"runpy.run_path({os.fspath(EXAMPLES / 'reuters.py')!r}, run_name='__main__')\n"
    )
    said = run(program, tmp_path, HELIOSTAT_WORKERS="0")
    assert set(ast.literal_eval(said[-1])) >= {"loss", "top_5"}
