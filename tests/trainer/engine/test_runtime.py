"""What a process that already runs TensorFlow can be used for; in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.engine

SCRIPT = """
import sys
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(3)
import keras, numpy as np
from heliostat.trainer import RuntimeSetupError, Trainer

def build():
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    return model

def train(name, **arguments):
    with Trainer(build, run_dir=f"{sys.argv[1]}/{name}", **arguments) as trainer:
        trainer.fit(stream, verbose=2)

stream = tf.data.Dataset.from_tensor_slices((np.ones((4, 3)), np.ones((4, 2)))).batch(2)  # TensorFlow has started
train("alone", workers=0)
train("threads", workers=1, in_process=True)
for arguments in ({"replicas_per_worker": 2}, {"threads_per_worker": 2}):
    try:
        train("refused", workers=0, **arguments)
    except RuntimeSetupError as error:
        print("refused:", error)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """(folder of the runs, what the script printed)."""
    folder = tmp_path_factory.mktemp("runs")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


def test_devices_and_threads_cannot_change_once_tensorflow_runs(told):
    devices, threads = (line for line in told[1].splitlines() if line.startswith("refused: "))
    assert devices.startswith(
        "refused: 2 replicas need 2 logical CPU devices, and TensorFlow already runs in this process with 1"
    )
    assert threads.startswith(
        "refused: TensorFlow already runs in this process with 3 intra-op threads, and the run asks for 2"
    )


@pytest.mark.parametrize("name", ["alone", "threads"])
def test_a_run_takes_the_threads_that_tensorflow_has_already(told, name):
    folder, printed = told
    record = json.loads((folder / name / "run.json").read_text())
    assert record["state"] == "finished"
    assert record["identity"]["threads_per_worker"] == record["plan"]["threads_per_worker"] == 3
    assert (
        "TensorFlow has 3 threads in this process already, so the run takes those (results depend on the number)."
        in printed
    )
    assert record["plan"]["for_equal_bits"] == {"num_microbatches": 1, "threads_per_worker": 3}


@pytest.mark.slow
def test_tensorflow_that_was_told_nothing_has_as_many_threads_as_there_are_cores():
    script = (
        "import tensorflow as tf\ntf.ones(1)\n"
        "from heliostat.trainer.engine.runtime import fix_threads\nprint(fix_threads(None, usual=7))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) == len(os.sched_getaffinity(0))
