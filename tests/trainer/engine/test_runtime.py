"""What a process that already runs TensorFlow cannot become any more; in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.engine

SCRIPT = """
import sys
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.ones(1)  # TensorFlow has started
import keras, numpy as np
from heliostat.trainer import RuntimeSetupError, Trainer

def build():
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    return model

for arguments in ({"replicas_per_worker": 2}, {"threads_per_worker": 2}):
    try:
        Trainer(build, workers=0, run_dir=sys.argv[1], **arguments).fit((np.ones((4, 3)), np.ones((4, 2))), verbose=0)
    except RuntimeSetupError as error:
        print(error)
"""


def test_devices_and_threads_cannot_change_once_tensorflow_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run")], capture_output=True, text=True, timeout=120, check=True
    )
    devices, threads = done.stdout.strip().splitlines()
    assert devices.startswith(
        "2 replicas need 2 logical CPU devices, and TensorFlow already runs in this process with 1"
    )
    assert threads.startswith("TensorFlow already runs in this process with 1 intra-op threads, and the run asks for 2")
