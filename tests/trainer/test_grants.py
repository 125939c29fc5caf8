"""What workers get of a machine, in a process of its own: threads, and GPUs that Ray grants and TensorFlow lacks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SCRIPT = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np, ray
from heliostat.trainer import RuntimeSetupError, Trainer

def build():
    model = keras.Sequential([keras.layers.Dense(3, "relu"), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    return model

def train(run_dir, epochs, **arguments):
    data = (np.arange(24.0).reshape(8, 3), np.ones((8, 2)))
    with Trainer(build, run_dir=run_dir, num_microbatches=2, **arguments) as trainer:
        return trainer.fit(data, epochs=epochs, global_batch_size=4, verbose=2).sha256

if __name__ == "__main__":
    ray.init(num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    whole = train("whole", 2, workers=0, threads_per_worker=3)
    train("moved", 1, workers=0)  # takes the three that TensorFlow has now
    assert train("moved", 2, workers=1, device="cpu") == whole
    train("new", 1, workers=1, device="cpu")
    for arguments in ({"workers": 1}, {"workers": 0, "device": "gpu"}):
        try:
            train("none", 1, **arguments)
        except RuntimeSetupError as error:
            print("refused:", error)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """(folder of the runs, what the script printed); Ray says that there is one core, and a GPU."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, timeout=200, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


def test_a_run_keeps_its_threads_on_a_machine_with_fewer_cores(told):
    folder, _ = told
    identities = [json.loads((folder / name / "run.json").read_text())["identity"] for name in ("moved", "new")]
    assert [each["threads_per_worker"] for each in identities] == [3, 1]  # Ray gives one core away
    found = [json.loads((folder / name / "run.json").read_text())["plan"] for name in ("whole", "moved")]
    assert [each["for_equal_bits"] for each in found] == 2 * [{"num_microbatches": 2, "threads_per_worker": 3}]


def test_a_gpu_that_tensorflow_does_not_see_is_an_error_that_says_what_to_install(told):
    granted, wanted = (line for line in told[1].splitlines() if line.startswith("refused: "))
    for line in (granted, wanted):
        assert line.startswith("refused: 1 GPU(s) are wanted on this machine, and TensorFlow")
        assert "pip install 'tensorflow[and-cuda]==" in line
