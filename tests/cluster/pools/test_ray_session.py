"""This process's connection to Ray belongs to all its trainers; in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.ray

SCRIPT = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np, ray
from heliostat.cluster.errors import PlacementError
from heliostat.trainer import Trainer

def build():
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    return model

if __name__ == "__main__":
    data = (np.ones((4, 3)), np.ones((4, 2)))
    first, second = (Trainer(build, workers=1, run_dir=f"run-{number}") for number in range(2))
    first.evaluate(data)
    second.evaluate(data)
    first.close()
    print("told: second after the first was closed:", sorted(second.evaluate(data)))
    try:
        Trainer(build, workers=1, address="127.0.0.1:1").evaluate(data)
    except PlacementError as error:
        print("told:", error)
    second.close()
    print("told: connected:", ray.is_initialized())
"""


def test_two_trainers_share_rays_connection_and_the_last_one_ends_it(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Ray's own messages may come between, and after.
    told = [line.removeprefix("told: ") for line in done.stdout.splitlines() if line.startswith("told: ")]
    answered, refused, connected = told
    assert answered == "second after the first was closed: ['loss']"
    assert refused.startswith(
        "This process is connected to a Ray cluster already, so it cannot join the one at '127.0.0.1:1'"
    )
    assert connected == "connected: False"
