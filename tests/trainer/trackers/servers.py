"""Real servers for slow tests: MLflow in an environment of its own, since it needs other versions, and Prometheus."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from ...slow import SLOW

ENVIRONMENT = Path(__file__).parents[3] / ".cache" / "mlflow-server"  # made by the first test that needs it
START_S = 120.0


def mlflow_python() -> Path:
    """The Python of an environment with MLflow's server."""
    python = ENVIRONMENT / "bin" / "python"
    if subprocess.run([python, "-m", "pip", "show", "-q", "mlflow"], check=False).returncode if python.exists() else 1:
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "mlflow>=3.17,<4"], check=True)
    return python


def prometheus_program() -> str:
    """Prometheus's program."""
    found = shutil.which("prometheus")
    assert found, "this test needs a Prometheus: apt-get install --no-install-recommends prometheus"
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def running(command: list[object], address: str, health: str, folder: Path) -> Iterator[None]:
    """A server while the block runs; all its processes are gone after it.

    Args:
        command: starts it.
        address: of it.
        health: the path there that answers once it is up.
        folder: where it runs and logs.
    """
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(
            [str(each) for each in command], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until_s = time.monotonic() + START_S * SLOW
        while True:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"{address}{health}").close()
                break
            is_coming = server.poll() is None and time.monotonic() < until_s
            assert is_coming, (folder / "server.log").read_text()
            time.sleep(0.1)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """The address of an MLflow server that keeps its runs in a folder."""
    address = f"http://127.0.0.1:{port}"
    command = [mlflow_python(), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", 1]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", folder / "artifacts"]
    with running(command, address, "/health", folder):
        yield address
