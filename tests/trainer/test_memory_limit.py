"""Memory that does not suffice for the first step, under a real limit; in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.slow]

# The wide layer needs 6,554 MB for 8,192 rows, and there is room for about 1,500 MB: what is refused is large, while
# native libraries, which end the process where they find no memory, find the little that they need.
SCRIPT = """
import resource
import keras, numpy as np
from heliostat.trainer import MemoryExhaustedError, Trainer

LIMIT = []

class Wide(keras.layers.Layer):
    def call(self, x):
        wide = keras.ops.ones((1, 200_000)) * x[:, :1]
        return keras.ops.concatenate([x, keras.ops.mean(wide, axis=1, keepdims=True)], axis=1)

def build():
    if not LIMIT:
        with open("/proc/self/statm") as file:
            LIMIT.append(int(file.read().split()[0]) * resource.getpagesize() + 1_500_000_000)
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT[0], LIMIT[0]))
    model = keras.Sequential([keras.layers.Input((4,)), Wide(), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model

def train(name, num_microbatches, fits=1):
    with Trainer(
        build, workers=0, num_microbatches=num_microbatches, threads_per_worker=1, run_dir=name
    ) as trainer:
        for _ in range(fits):
            trainer.fit(rows, epochs=1, global_batch_size=8192, verbose=2)

data = (np.random.default_rng(0).normal(size=(8192, 4)).astype("float32"), np.ones((8192, 1), "float32"))

def rows():
    print("the rows are read")
    yield data

print("---")
train("auto", "auto", fits=2)
print("---")
try:
    train("one", 1)
except MemoryExhaustedError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """(folder of the runs, what the script printed: before, with "auto", without)."""
    folder = tmp_path_factory.mktemp("runs")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=folder,
        # Threads reserve addresses, and oneDNN's allocator takes what is left at its first large request.
        env={**os.environ, "MALLOC_ARENA_MAX": "1", "TF_ENABLE_ONEDNN_OPTS": "0"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout.split("---\n")


def test_auto_finds_a_number_of_microbatches_that_fits_into_memory_once(told):
    folder, (_, printed, _) = told
    first, second = (json.loads((folder / name / "run.json").read_text()) for name in ("auto", "auto-2"))
    tried, found = first["microbatches_tried"], first["identity"]["num_microbatches"]
    assert tried == [2**each for each in range(len(tried))]
    assert found == 2 * tried[-1] == first["plan"]["num_microbatches"] >= 2
    for number in tried:
        assert printed.count(f"num_microbatches='auto' tries more than {number}: Memory was exhausted") == 1
    assert (second["identity"]["num_microbatches"], second.get("microbatches_tried")) == (found, None)
    assert {first["state"], second["state"]} == {"finished"}
    assert printed.count("the rows are read") == 2, "once for each fit, however many numbers were tried"
    assert "error" not in first


def test_without_auto_the_error_says_what_memory_goes_to_and_which_number_to_try(told):
    error = told[1][2].splitlines()[-1]
    assert error.startswith(
        "Memory was exhausted by microbatches of 8192 row(s) (num_microbatches=1): OOM when allocating tensor"
    )
    parts = ("weights", "their gradients", "the optimizer's state")
    assert re.search(", ".join(f"{name} [0-9.]+ [kM]B" for name in parts) + ", what layers give out", error)
    assert "begin a new run with num_microbatches=2 or more. num_microbatches='auto' finds the number" in error
