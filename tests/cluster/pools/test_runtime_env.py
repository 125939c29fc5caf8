"""A runtime_env goes to Ray with the connection, or is refused; in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ...slow import SLOW

pytestmark = pytest.mark.ray

SCRIPT = """
import os, ray
from heliostat.cluster.errors import PlacementError
from heliostat.cluster.pools.ray_session import join_ray, leave_ray

def refused(env):
    try:
        join_ray(None, num_cpus=1, runtime_env=env)
    except PlacementError as error:
        print("refused:", error)

if __name__ == "__main__":
    refused({"env_vars": 3})
    refused({"working_dir": "/no/such/folder"})
    print("connected:", ray.is_initialized())
    join_ray(None, num_cpus=1, runtime_env={"env_vars": {"SAID": "by the runtime_env"}})
    print("there:", ray.get(ray.remote(num_cpus=0)(lambda: os.environ["SAID"]).remote()))
    join_ray(None, num_cpus=1, runtime_env={"env_vars": {"SAID": "by the runtime_env"}})
    refused({"env_vars": {"SAID": "a secret"}})
    leave_ray()
    leave_ray()
    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="error")
    refused({"env_vars": {"SAID": "a secret"}})
"""


@pytest.mark.slow
def test_a_runtime_env_reaches_workers_or_is_refused():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120 * SLOW, check=False
    )
    told = [line for line in done.stdout.splitlines() if line.split(":")[0] in ("refused", "connected", "there")]
    assert len(told) == 6, done.stdout + done.stderr
    assert told[0].startswith("refused: Ray does not take runtime_env={'env_vars': ...}: TypeError.")
    assert "/no/such/folder" in told[1]
    assert told[2:4] == ["connected: False", "there: by the runtime_env"]
    for line in told[4:]:
        assert line.startswith("refused: runtime_env={'env_vars': ...} comes too late")
        assert "secret" not in line
