"""How many threads workers get: a share of the cores for a new run, and what it had for one that goes on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.ray

SCRIPT = """
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np, ray
from heliostat.trainer import Trainer

def build():
    model = keras.Sequential([keras.layers.Dense(3, "relu"), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    return model

def train(run_dir, epochs, **arguments):
    data = (np.arange(24.0).reshape(8, 3), np.ones((8, 2)))
    with Trainer(build, run_dir=run_dir, num_microbatches=2, **arguments) as trainer:
        return trainer.fit(data, epochs=epochs, global_batch_size=4, verbose=2).sha256

if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    whole = train("whole", 2, workers=0, threads_per_worker=3)
    train("moved", 1, workers=0)  # takes the three that TensorFlow has now
    assert train("moved", 2, workers=1) == whole
    train("new", 1, workers=1)
"""


def test_a_run_keeps_its_threads_on_a_machine_with_fewer_cores(tmp_path):
    script = tmp_path / "moves.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    identities = [json.loads((tmp_path / name / "run.json").read_text())["identity"] for name in ("moved", "new")]
    assert [each["threads_per_worker"] for each in identities] == [3, 1]  # Ray gives one core away
    assert done.stdout.count("the same bits on any workers with num_microbatches=2, threads_per_worker=3") == 3
