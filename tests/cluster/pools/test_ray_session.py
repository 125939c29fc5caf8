"""This process's connection to Ray belongs to all its trainers; in a process of its own, as in a user's notebook."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

SCRIPT = """
import os, time
import keras, numpy as np, psutil, ray
from heliostat.cluster.errors import PlacementError
from heliostat.trainer import Trainer

def build():
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    return model

def trainer(number, **options):
    options = {"threads_per_worker": os.cpu_count(), "start_timeout_s": 100} | options
    return Trainer(build, workers=1, run_dir=f"run-{number}", **options)

if __name__ == "__main__":
    data = (np.ones((4, 3)), np.ones((4, 2)))
    first, second, third = map(trainer, range(3))  # each wants all cores
    for each in (first, second):
        each.evaluate(data)
    print("told: third while two others are open:", sorted(third.evaluate(data, verbose=2)))
    freed = psutil.Process(third._workers.infos[0].pid)
    del third
    freed.wait(60)
    first.close()
    print("told: second after the others are gone:", sorted(second.evaluate(data)))
    try:
        trainer(4, address="127.0.0.1:1").evaluate(data)
    except PlacementError as error:
        print("told:", error)
    print("told: connected:", ray.is_initialized())
    print("told: worker", second._workers.infos[0].pid)
"""


@pytest.fixture
def misleading():
    """An environment with an address of Ray that accepts and never answers, and a file with it where Ray looks."""
    folder = Path(tempfile.mkdtemp(prefix="hel", dir="/tmp"))  # paths of Ray's sockets must be short
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        (folder / "ray").mkdir()
        (folder / "ray" / "ray_current_cluster").write_text(address)
        yield {"RAY_TMPDIR": str(folder), "RAY_ADDRESS": address, "PYTHONUNBUFFERED": "1"}
    shutil.rmtree(folder, ignore_errors=True)


def test_trainers_of_a_process_share_a_ray_of_its_own_which_ends_with_them_quietly(tmp_path, misleading):
    script = tmp_path / "three.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
        env=os.environ | misleading | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    # Ray's own messages may come between, and after.
    told = [line.removeprefix("told: ") for line in done.stdout.splitlines() if line.startswith("told: ")]
    third, second, refused, connected, pid = told
    assert third == "third while two others are open: ['loss']"
    assert second == "second after the others are gone: ['loss']"
    assert refused.startswith("This process is connected to the Ray cluster at ")
    assert connected == "connected: True"
    assert not Path("/proc", pid.split()[-1]).exists(), "a trainer that was not closed has left a worker"
    assert f"RAY_ADDRESS={misleading['RAY_ADDRESS']} is not followed" in done.stdout
    assert "A worker died" not in done.stdout + done.stderr
