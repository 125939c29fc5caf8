"""Two hosts on one machine: network namespaces joined by a link, each with its own host name and a node of Ray."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from ..slow import SLOW

NAMES = ("heliostat-a", "heliostat-b")
ADDRESSES = ("10.213.77.1", "10.213.77.2")
LINKS = ("heliostat-la", "heliostat-lb")
RAY_PORT = 26379
START_S = round(120 * SLOW)


def why_not() -> str:
    """Why this machine cannot have such hosts; empty if it can."""
    if not all(shutil.which(tool) for tool in ("ip", "tc", "unshare")):
        return "ip, tc and unshare are needed"
    probe = subprocess.run(["ip", "netns", "add", "heliostat-probe"], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"network namespaces are not allowed here: {probe.stderr.strip()}"
    _run("ip", "netns", "del", "heliostat-probe")
    return ""


class Hosts:
    """Two hosts; Ray's head is on the first. A context manager.

    Args:
        folder: for what Ray writes and prints.
        cpus: CPUs that each host says it has, as many workers fit.
    """

    def __init__(self, folder: Path, cpus: int = 1) -> None:
        self._folder, self._cpus = folder, cpus
        self._nodes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Hosts:
        self._remove()
        try:
            self._make_link()
            self._start(0, "--head", f"--port={RAY_PORT}", "--include-dashboard=false", f"--temp-dir={self._folder}/r")
            self._start(1, f"--address={ADDRESSES[0]}:{RAY_PORT}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self._nodes:
            _end(node)
        self._remove()

    @contextmanager
    def linked(self) -> Iterator[None]:
        """The two hosts and their link alone, without Ray."""
        self._remove()
        try:
            self._make_link()
            yield
        finally:
            self._remove()

    def run(self, script: str, *arguments: str, host: int = 0) -> subprocess.Popen[str]:
        """Start a Python script on a host."""
        command = [sys.executable, "-c", script, *arguments]
        return subprocess.Popen(
            _on(host, *command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self._env_here()
        )

    def cut(self) -> None:
        """Cut the link: nothing arrives, and nobody is told."""
        _run("ip", "netns", "exec", NAMES[0], "tc", "qdisc", "replace", "dev", LINKS[0], "root", *_NOTHING)
        _run("ip", "netns", "exec", NAMES[1], "tc", "qdisc", "replace", "dev", LINKS[1], "root", *_NOTHING)

    def limit(self, rate: str) -> None:
        """Limit the rate of the link, as ``"20mbit"``, in both directions."""
        shape = ("tbf", "rate", rate, "burst", "64kb", "latency", "400ms")
        for name, link in zip(NAMES, LINKS, strict=True):
            _run("ip", "netns", "exec", name, "tc", "qdisc", "replace", "dev", link, "root", *shape)

    def drain(self) -> None:
        """Announce that the second host goes away, as a cloud's notice of pre-emption does."""
        _run(*_on(0, sys.executable, "-c", _DRAIN), env=self._env_here())

    def num_sent_bytes(self) -> int:
        """Bytes that have gone from the second host to the first."""
        path = f"/sys/class/net/{LINKS[1]}/statistics/tx_bytes"
        done = subprocess.run(["ip", "netns", "exec", NAMES[1], "cat", path], capture_output=True, check=True)
        return int(done.stdout)

    def _make_link(self) -> None:
        for name in NAMES:
            _run("ip", "netns", "add", name)
            _run("ip", "netns", "exec", name, "ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", LINKS[0], "type", "veth", "peer", "name", LINKS[1])
        for name, link, address in zip(NAMES, LINKS, ADDRESSES, strict=True):
            _run("ip", "link", "set", link, "netns", name)
            _run("ip", "netns", "exec", name, "ip", "address", "add", f"{address}/24", "dev", link)
            _run("ip", "netns", "exec", name, "ip", "link", "set", link, "up")

    def _start(self, host: int, *options: str) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--num-cpus={self._cpus}"]
        log = (self._folder / f"{NAMES[host]}.log").open("wb")
        node = subprocess.Popen(
            _on(host, *command, f"--node-ip-address={ADDRESSES[host]}", "--object-store-memory=80000000", *options),
            stdout=log,
            stderr=log,
            env=self._env(),
            start_new_session=True,
        )
        log.close()
        self._nodes.append(node)
        if host == 0:
            self._wait_for_head()

    def _wait_for_head(self) -> None:
        probe = f"import socket; socket.create_connection({(ADDRESSES[0], RAY_PORT)!r}, 1)"
        script = f"import time\nfor _ in range({START_S}):\n try:\n  {probe}; break\n except OSError: time.sleep(1)"
        _run(*_on(0, sys.executable, "-c", script))

    def _env(self) -> dict[str, str]:
        return os.environ | {"RAY_AUTH_MODE": "disabled", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}

    def _env_here(self) -> dict[str, str]:
        """Makes "auto" mean this cluster, whatever others run on the machine."""
        return self._env() | {"RAY_ADDRESS": f"{ADDRESSES[0]}:{RAY_PORT}"}

    def _remove(self) -> None:
        for name in NAMES:
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout
            for pid in pids.split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", LINKS[0]], capture_output=True, check=False)


_DRAIN = f"""
import time, ray
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
ray.init(address="auto", logging_level="ERROR")
node = next(each["NodeID"] for each in ray.nodes() if each["NodeManagerAddress"] == {ADDRESSES[1]!r})
deadline_ms = int(1000 * (time.time() + 300))
accepted, why = GcsClient(address={f"{ADDRESSES[0]}:{RAY_PORT}"!r}).drain_node(
    node, DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"), "test", deadline_ms
)
if not accepted:
    raise SystemExit(why)
"""

# A token bucket that lets less through than any packet holds: everything is dropped without a word.
_NOTHING = ("tbf", "rate", "8bit", "burst", "1", "limit", "1")


def _on(host: int, *command: str) -> list[str]:
    inner = f'hostname {NAMES[host]} && exec "$@"'
    return ["ip", "netns", "exec", NAMES[host], "unshare", "--uts", "sh", "-c", inner, "sh", *command]


def _end(node: subprocess.Popen[bytes]) -> None:
    try:
        family = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    node.wait()


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)[:300]} failed:\n{done.stdout}\n{done.stderr}")
