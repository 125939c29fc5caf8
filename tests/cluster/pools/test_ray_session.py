"""This process's connection to Ray belongs to all its trainers; in a process of its own, as in a user's notebook."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
import ray
from heliostat.cluster.pools.ray_address import Cluster
from heliostat.cluster.pools.ray_session import _explained
from ray._private.utils import check_version_info

from ...ray_head import ray_head

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
    freed = psutil.Process(third._runs.workers.infos[0].pid)
    del third
    freed.wait(60)
    first.close()
    print("told: second after the others are gone:", sorted(second.evaluate(data)))
    try:
        trainer(4, address="127.0.0.1:1").evaluate(data)
    except PlacementError as error:
        print("told:", error)
    print("told: connected:", ray.is_initialized())
    print("told: worker", second._runs.workers.infos[0].pid)
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


def test_other_versions_are_told_in_one_sentence_without_wrong_advice():
    theirs = {"ray_version": "2.59.0", "python_version": "3.11.2"}
    with pytest.raises(RuntimeError) as raised:  # what Ray itself raises when it joins such a cluster
        check_version_info(theirs, "node 10.0.0.2")
    said = str(_explained(raised.value, Cluster(address="10.0.0.1:6379", origin="a test")))
    ours = f"this process Ray {ray.__version__} with Python {platform.python_version()}"
    assert f"at 10.0.0.1:6379 runs Ray 2.59.0 with Python 3.11.2, {ours}" in said
    assert "ray start --head" not in said
    assert "\n" not in said


def test_a_cluster_that_wants_a_token_where_there_is_none_is_told_as_that(tmp_path):
    script = (
        "from heliostat.cluster.errors import PlacementError\n"
        "from heliostat.cluster.pools.ray_address import Cluster\n"
        "from heliostat.cluster.pools.ray_session import _connect\n"
        "try:\n"
        "    _connect(Cluster(address='127.0.0.1:1', origin='a test'), 1, None)\n"
        "except PlacementError as error:\n"
        "    print(error)\n"
    )
    given = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True, env=environ | given
    )
    assert "The Ray cluster at 127.0.0.1:1 takes commands only with its token, and this machine has none" in done.stdout


SIGNALLED = """
import os, signal, sys
from heliostat.cluster.pools.ray_session import join_ray

def own(number, frame):
    print("the user's", number)

if sys.argv[1] == "own":
    signal.signal(signal.SIGTERM, own)
join_ray(None, num_cpus=1)
try:
    os.kill(os.getpid(), signal.SIGTERM)
    print("goes on")
finally:
    print("cleaned up")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("whose", "status", "said"), [("own", 0, "the user's 15\ngoes on\ncleaned up\n"), ("none", 15, "cleaned up\n")]
)
def test_sigterm_is_pythons_also_when_ray_is_joined(tmp_path, whose, status, said):
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, whose],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (status, said), done.stderr


JOINS_WITHOUT_TOKENS = """
import sys
import ray
from heliostat.cluster.pools.ray_address import Asked, ARGUMENT
from heliostat.cluster.pools.ray_session import join_ray, leave_ray

join_ray(Asked(address=sys.argv[1], origin=ARGUMENT), num_cpus=1)

@ray.remote(num_cpus=0)
class Idle:
    def answer(self):
        return "an actor answers"

print(ray.get(Idle.remote().answer.remote(), timeout=90))
leave_ray()
"""


@pytest.mark.slow
def test_a_token_on_this_machine_does_not_hinder_a_cluster_where_tokens_are_off():
    """Ray keeps a token that it was asked for, and would from then on refuse the head, which sends none."""
    off = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "f" * 64}
    with ray_head(num_cpus=1, **off) as head:
        command = [sys.executable, "-c", JOINS_WITHOUT_TOKENS, head.gcs]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=os.environ | off)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "an actor answers" in done.stdout
