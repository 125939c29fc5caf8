"""A real head of Ray for tests of what goes through its job server: dashboard, tokens, folders and ports of its own.

The fixture `head` (tests/conftest.py) is the session's: who submits a job there ends it. Its processes have the token
of this user, as `ray.init` makes it (~/.ray/auth_token).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from heliostat.cluster.errors import NoAnswerError
from heliostat.cluster.head.api import Head

from .slow import SLOW

START_S = 120 * SLOW
_MARK = "HELIOSTAT_TEST_HEAD"
# Ports of which Ray has one by default, which another Ray on this machine may hold.
_AGENT = "dashboard-agent-listen-port"
_PORTS = ("port", "dashboard-port", _AGENT, "dashboard-agent-grpc-port", "ray-client-server-port")
_PORTS += ("metrics-export-port", "runtime-env-agent-port", "node-manager-port", "object-manager-port")


@dataclass(frozen=True, slots=True)
class RayHead:
    """A head that runs.

    Attributes:
        address: of its job server, with http://.
        gcs: host and port that the cluster's own machines use.
        folder: all that it writes: Ray's sessions in "r", HELIOSTAT_HOME in "heliostat", the cache in "cache".
    """

    address: str
    gcs: str
    folder: Path

    @property
    def logs(self) -> Path:
        """The log folder of the session."""
        return (self.folder / "r" / "session_latest" / "logs").resolve()

    def drivers(self) -> list[psutil.Process]:
        """The processes that jobs' commands run in, with those that they have started."""
        return [process for process in _marked(self.folder) if "RAY_JOB_CONFIG_JSON_ENV_VAR" in process.environ()]


@contextmanager
def ray_head(num_cpus: int = 3, **environ: str) -> Iterator[RayHead]:
    """A head; at the end none of its processes and files is left.

    Args:
        num_cpus: that it offers.
        environ: variables for its processes.
    """
    folder = Path(tempfile.mkdtemp(prefix="helh", dir="/tmp"))  # paths of Ray's sockets must be short
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    command += [f"--num-cpus={num_cpus}", "--object-store-memory=100000000", f"--temp-dir={folder / 'r'}"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--include-dashboard=true"]
    given = {"RAY_AUTH_MODE": "token", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", _MARK: str(folder)}
    given |= {"HELIOSTAT_HOME": str(folder / "heliostat"), "XDG_CACHE_HOME": str(folder / "cache")}
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | given | environ
    with (folder / "start.log").open("wb") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        _wait(started, ports[_AGENT], address, folder / "start.log")
        yield RayHead(address, f"127.0.0.1:{ports['port']}", folder)
    finally:
        _end(started, folder)


def _wait(started: subprocess.Popen[bytes], agent: int, address: str, log: Path) -> None:
    """Until it takes jobs: the agent that makes them is the last one to come up."""
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s and started.poll() is None:
        with suppress(OSError, NoAnswerError):
            socket.create_connection(("127.0.0.1", agent), 1).close()
            Head(address).check()
            return
        time.sleep(0.2)
    raise RuntimeError(f"the head did not come up: {log.read_text()[-3000:]}")


def _end(started: subprocess.Popen[bytes], folder: Path) -> None:
    """First as Ray ends it, which waits for jobs that run; then whatever is left."""
    family = [*psutil.Process(started.pid).children(recursive=True), *_marked(folder)]
    started.terminate()
    with suppress(subprocess.TimeoutExpired):
        started.wait(5)
    for process in {*family, *_marked(folder)}:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    started.kill()
    started.wait()
    psutil.wait_procs(family, timeout=10 * SLOW)
    shutil.rmtree(folder)


def _marked(folder: Path) -> list[psutil.Process]:
    """Processes that were started with a head's environment, wherever they are by now."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(_MARK) == str(folder):
                found.append(process)
    return found


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        listeners = [held.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]
