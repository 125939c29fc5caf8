"""What TensorFlow says when this process loads it is kept apart from what the program writes to standard error."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from heliostat.trainer.quiet_load import _SORT

OF_TENSORFLOW = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    "I0000 00:00:1795971252.455206    5867 port.cc:153] oneDNN custom operations are on.\n"
    "I0000 00:00:1795971252.533512    5867 cpu_feature_guard.cc:227] This TensorFlow binary is optimized to use ...\n"
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with the appropriate ...\n"
    "W0000 00:00:1795971254.753631    5867 gpu_device.cc:2431] Cannot dlopen some GPU libraries.\n"
    "E0000 00:00:1795971255.311752    5867 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: ...\n"
    "E0000 00:00:1795971255.311752    5867 cuda_fft.cc:467] Unable to register cuFFT factory: Attempting to ...\n"
    "E0000 00:00:1795971255.311752    5867 computation_placer.cc:177] computation placer already registered. ...\n"
    "2026-11-29 17:00:00.000000: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on.\n"
)
OF_THE_PROGRAM = (
    "WARNING: the user's own\n"
    "Image 7 of 9 is broken\n"
    "train.py:3: FutureWarning: use the other one\n"
    "F0000 00:00:1795971252.455206    5867 cpu.cc:17] The TensorFlow library was compiled to use AVX instructions\n"
    "E0000 00:00:1795971252.455206    5867 bfc_allocator.cc:9] out of memory\n"
    "Illegal instruction\n"
    "without an end"
)


def test_tensorflows_lines_are_told_from_the_programs():
    mixed = "".join(
        a + b for a, b in zip(OF_TENSORFLOW.splitlines(True), OF_THE_PROGRAM.splitlines(True), strict=False)
    )
    rest = OF_TENSORFLOW.splitlines(True)[len(OF_THE_PROGRAM.splitlines()) :]
    for said in (mixed + "\n" + "".join(rest), OF_TENSORFLOW + OF_THE_PROGRAM):
        command = [sys.executable, "-I", "-S", "-c", _SORT]
        done = subprocess.run(command, input=said, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout == OF_TENSORFLOW
        assert done.stderr.rstrip("\n") == OF_THE_PROGRAM


SCRIPT = """
import os, sys, threading
import numpy as np
from heliostat.trainer import Trainer

def build():
    import keras
    os.write(2, b"the model is built\\n")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    return model

over = threading.Event()
def write():
    while not over.wait(0.05):
        os.write(2, b"a thread writes\\n")

thread = threading.Thread(target=write)
thread.start()
try:
    with Trainer(build, workers=0, run_dir="run") as trainer:
        trainer.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
finally:
    over.set()
    thread.join()
"""


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("level", ["", "0"])
def test_a_run_in_this_process_begins_quietly_unless_that_is_not_wanted(tmp_path, level):
    environ = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environ |= {"PYTHONPATH": os.pathsep.join(sys.path)} | ({"TF_CPP_MIN_LOG_LEVEL": level} if level else {})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        env=environ,
        cwd=tmp_path,
        timeout=300,
        check=True,
    )
    log, words = tmp_path / "run/logs/worker-0.log", "All log messages before absl::InitializeLog()"
    if level:
        assert words in done.stderr
        assert not log.exists()
    else:
        assert words in log.read_text()
        assert set(done.stderr.splitlines()) == {"a thread writes", "the model is built"}
