"""Machines on one machine: network namespaces on a bridge, each with a disk, a host name, processes and a node of Ray.

What tells machines from processes is what they do not share. Here every machine has its own ``/tmp`` (its home is in
there), its own ``/dev/shm``, addresses, host name and process numbers. All else (the system, Python, this checkout) is
the same everywhere and read-only. Ray's token authentication is on, and every machine has the token.

The laptop is no machine of the cluster, and `GATEWAY` is all that it can be let reach: an address of the bridge, where
one port is passed on to the head's port for jobs. So one port is open, and no rule for it can be wrong.

A firewall is a hardware address that nobody has: what a machine sends to another goes to it, so packets vanish and
nobody is told, on connections that are there, too. iptables does that as well, but is often not installed; ``tc``
drops by the queue, not by whom it goes to.

What was not done: containers (they need a service, an image, and rights that test machines seldom give), and physical
machines, of which the limits of a network are not seen here. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

from ..scripts.child import interruptible
from ..slow import SLOW
from .running import Running

SET = int(os.environ.get("HELIOSTAT_TEST_MACHINES", "0"))  # another one for whoever runs these tests twice at once
PREFIX, NETWORK, SWITCH = f"heliohost{SET}-", f"10.213.{88 + SET}", f"heliohost{SET}-switch"
HEAD, LAPTOP = "a", "l"
RAY_PORT, JOBS_PORT = 6379, 8265
GATEWAY = f"{NETWORK}.200"
AT_GATEWAY = f"http://{GATEWAY}:{JOBS_PORT}"
START_S = 120
NOBODY = "02:00:00:00:00:01"

# The first process of a machine; everything that runs on it ends with this. $1: its disk, $2: its name, $3: what it
# shares with others, as /mnt.
_FIRST = """
mount --make-rprivate /
[ -z "$3" ] || mount --bind "$3" /mnt
mount --bind "$1" /tmp
mount -t tmpfs -o size=2g shm /dev/shm
mount -o remount,bind,ro /
hostname "$2"
echo ready
while :; do sleep 1000 & wait $! || true; done
"""


def why_not() -> str:
    """Why this machine cannot have such machines; empty if it can."""
    missing = [tool for tool in ("ip", "tc", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    tries = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "mount", "-t", "tmpfs", "try", "/mnt"]
    done = subprocess.run(tries, capture_output=True, text=True, check=False)
    return f"namespaces are not allowed here: {done.stderr.strip()}" if done.returncode else ""


def address(name: str) -> str:
    """The address of a machine."""
    return f"{NETWORK}.{ord(name) - ord('a') + 1}"


def host(name: str) -> str:
    """The host name of a machine."""
    return f"{PREFIX}{name}"


class Machines:
    """Nodes of a Ray cluster, the first of them its head, and a laptop that is none. A context manager.

    Args:
        folder: for their disks; removed at the end.
        nodes: names of the nodes, a letter each.
        cpus: that each node says it has.
        head_cpus: those of the head, where they are others: 0 keeps workers away from the driver's machine.
        store_bytes: of each node's object store.
        shared: a folder that all have as ``/mnt``; None for nothing shared.

    Attributes:
        crashed: names of those that `crash` has hit.
    """

    def __init__(
        self,
        folder: Path,
        nodes: str = "abc",
        *,
        cpus: int = 2,
        head_cpus: int | None = None,
        store_bytes: int = 100_000_000,
        shared: Path | None = None,
    ) -> None:
        self._folder, self._nodes, self._shared = folder, nodes, shared
        self._cpus, self._head_cpus = cpus, cpus if head_cpus is None else head_cpus
        self._store_bytes = store_bytes
        self._token = secrets.token_hex(32)
        self._first: dict[str, subprocess.Popen[str]] = {}
        self._inits: dict[int, int] = {}
        self._gateway: subprocess.Popen[str] | None = None
        self.crashed: set[str] = set()

    def __enter__(self) -> Machines:
        _remove_namespaces()
        try:
            _run("ip", "netns", "add", SWITCH)
            _run("ip", "-n", SWITCH, "link", "add", "br0", "type", "bridge")
            _run("ip", "-n", SWITCH, "link", "set", "br0", "up")
            _run("ip", "-n", SWITCH, "address", "add", f"{GATEWAY}/24", "dev", "br0")
            for name in (*self._nodes, LAPTOP):
                self._make(name)
            self.heal()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()
        for name in list(self._first):
            self.remove(name)
        _remove_namespaces()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def names(self) -> list[str]:
        """All that there are now."""
        return list(self._first)

    def disk(self, name: str) -> Path:
        """Where the ``/tmp`` of a machine lies here."""
        return self._folder / name

    def put(self, name: str, *paths: Path, to: str = "work") -> None:
        """Copy files or folders onto a machine, into a folder below its ``/tmp``."""
        for path in paths:
            target = self.disk(name) / to / path.name
            if path.is_dir():
                shutil.copytree(path, target, dirs_exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)

    def start(self, name: str, *command: str, **env: str) -> Running:
        """Start a command on a machine, in ``/tmp/work``, with environment variables beside the usual ones."""
        environment = self._env() | env
        for absent in [key for key, value in environment.items() if not value]:
            del environment[absent]
        process = subprocess.Popen(
            [*self._within(name), "sh", "-c", 'cd /tmp/work && exec "$@"', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
            preexec_fn=interruptible,
        )
        return Running(process, f"{' '.join(command)[:200]} on {host(name)}")

    def python(self, name: str, *arguments: str, **env: str) -> Running:
        """Start Python, the one that runs this, on a machine."""
        return self.start(name, sys.executable, "-u", *arguments, **env)

    def submit(self, job: str, *command: str) -> Running:
        """Submit what is in the head's ``/tmp/work`` as a job with a name, from the head, and follow it."""
        return self._jobs("submit", "--submission-id", job, "--working-dir", "/tmp/work", "--", *command)

    def stop(self, job: str) -> Running:
        """``ray job stop``."""
        return self._jobs("stop", job)

    def _jobs(self, verb: str, *arguments: str) -> Running:
        at = f"http://{address(HEAD)}:{JOBS_PORT}"
        return self.python(HEAD, "-m", "ray.scripts.scripts", "job", verb, "--address", at, *arguments)

    def add(self, name: str) -> None:
        """One more node of the cluster."""
        self._make(name)
        self._start_ray(name)

    def remove(self, name: str) -> None:
        """Take a machine away with all that runs on it; its disk stays."""
        first = self._first.pop(name, None)
        if first is None:
            return
        first.kill()  # unshare, and with it the first process, and with that all others
        first.communicate()
        subprocess.run(["ip", "netns", "del", host(name)], capture_output=True, check=False)

    def crash(self, name: str) -> None:
        """Kill all that runs on a machine at once; nobody is left there to take its scratch folders away."""
        self.crashed.add(name)
        subprocess.run([*self._within(name), "sh", "-c", "kill -9 -1"], capture_output=True, check=False)

    def kill(self, name: str, pid: int) -> None:
        """``kill -9`` of a process, by its number on its machine."""
        _run(*self._within(name), "kill", "-9", str(pid))

    def kill_called(self, name: str, title: str) -> int:
        """``kill -9`` of all processes of a machine whose command line begins so; how many they were."""
        found = [each for each in self._processes(name) if _command_line(each).startswith(title)]
        for process in found:
            process.kill()
        psutil.wait_procs(found, timeout=START_S)
        return len(found)

    def restart(self, name: str, **env: str) -> None:
        """Ray anew on a node, with environment variables beside the usual ones."""
        self.crash(name)
        self._start_ray(name, **env)

    def cut(self, one: str, *others: str) -> None:
        """From now on nothing arrives between a machine and others, and nobody is told."""
        for here, there in _pairs(one, others):
            _run("ip", "-n", host(here), "neigh", "replace", address(there), "lladdr", NOBODY, "dev", "eth0")

    def join(self, one: str, *others: str) -> None:
        """The opposite of `cut`."""
        for here, there in _pairs(one, others):
            command = ["ip", "-n", host(here), "neigh", "del", address(there), "dev", "eth0"]
            subprocess.run(command, capture_output=True, check=False)

    def open(self) -> None:
        """From now on `GATEWAY` passes connections on to the head's port for jobs."""
        if self._gateway is not None:
            return
        program = (sys.executable, str(Path(__file__).with_name("gateway.py")))
        ends = (f"{GATEWAY}:{JOBS_PORT}", f"{address(HEAD)}:{JOBS_PORT}")
        self._gateway = subprocess.Popen(
            ["ip", "netns", "exec", SWITCH, *program, *ends],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        if self._gateway.stdout is None or self._gateway.stdout.readline() != "ready\n":
            self.shut()
            raise RuntimeError("the gateway does not listen")

    def shut(self) -> None:
        """The opposite of `open`: connections that there are break off, and new ones are refused."""
        if self._gateway is not None:
            self._gateway.kill()
            self._gateway.communicate()
            self._gateway = None

    def limit(self, name: str, rate: str) -> None:
        """Limit what a machine sends, such as to ``"20mbit"``."""
        shape = ("tbf", "rate", rate, "burst", "64kb", "latency", "400ms")
        _run("ip", "netns", "exec", host(name), "tc", "qdisc", "replace", "dev", "eth0", "root", *shape)

    def num_sent_bytes(self, name: str) -> int:
        """Bytes that a machine has sent to others so far, as its port of the bridge counts them."""
        path = f"/sys/class/net/{host(name)}/statistics/rx_bytes"
        return int(_run("ip", "netns", "exec", SWITCH, "cat", path))

    def heal(self) -> None:
        """Bring the nodes back to what they were: all there, with Ray, and nothing between them.

        The laptop's firewall stays as it is; the gateway is open.
        """
        self.open()
        for name in [each for each in self._first if each not in (*self._nodes, LAPTOP)]:
            self.remove(name)
        for name in self._nodes:
            self.join(name, *(each for each in self._nodes if each != name))
            if not any("raylet" in line.split(" ")[0] for line in self.processes(name)):
                self._start_ray(name)

    def processes(self, name: str) -> list[str]:
        """Command lines of all that runs on a machine, but for its first process."""
        found = map(_command_line, self._processes(name))
        return [line for line in found if line and not line.startswith("sleep 1000")]

    def _processes(self, name: str) -> list[psutil.Process]:
        return psutil.Process(self._init(name)).children(recursive=True)

    def memory_files(self, name: str) -> list[str]:
        """What lies in a machine's ``/dev/shm``."""
        return os.listdir(f"/proc/{self._init(name)}/root/dev/shm")

    def num_memory_bytes(self, name: str) -> int:
        """Bytes of a machine's ``/dev/shm`` that are in use, files without a name included."""
        return shutil.disk_usage(f"/proc/{self._init(name)}/root/dev/shm").used

    def _init(self, name: str) -> int:
        first = self._first[name].pid
        if first not in self._inits:  # below unshare, which waits for it
            self._inits[first] = psutil.Process(first).children()[0].pid
        return self._inits[first]

    def _within(self, name: str) -> list[str]:
        return ["nsenter", "-t", str(self._init(name)), "-m", "-u", "-i", "-n", "-p", "--"]

    def _make(self, name: str) -> None:
        disk, ns, with_address = self.disk(name), host(name), f"{address(name)}/24"
        (disk / "home" / ".ray").mkdir(parents=True, exist_ok=True)
        (disk / "work").mkdir(exist_ok=True)
        token = disk / "home" / ".ray" / "auth_token"
        token.touch(0o600)
        token.write_text(self._token)
        _run("ip", "netns", "add", ns)
        _run("ip", "-n", SWITCH, "link", "add", ns, "type", "veth", "peer", "name", "eth0", "netns", ns)
        _run("ip", "-n", SWITCH, "link", "set", ns, "master", "br0", "up")
        _run("ip", "-n", ns, "address", "add", with_address, "dev", "eth0")
        _run("ip", "-n", ns, "link", "set", "eth0", "up")
        _run("ip", "-n", ns, "link", "set", "lo", "up")
        apart = ("--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
        first = subprocess.Popen(
            ["ip", "netns", "exec", ns, "unshare", *apart, "bash", "-ec", _FIRST, "bash", disk, ns, self._shared or ""],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._first[name] = first
        if first.stdout is None or first.stdout.readline().strip() != "ready":
            first.kill()
            raise RuntimeError(f"{ns} did not come up: {first.communicate()[0]}")

    def _start_ray(self, name: str, **env: str) -> None:
        place = (
            ("--head", f"--port={RAY_PORT}", "--dashboard-host=0.0.0.0")
            if name == HEAD
            else (f"--address={address(HEAD)}:{RAY_PORT}",)
        )
        room = (
            f"--num-cpus={self._head_cpus if name == HEAD else self._cpus}",
            f"--object-store-memory={self._store_bytes}",
        )
        options = (f"--node-ip-address={address(name)}", "--disable-usage-stats", *room, *place)
        started = self.python(name, "-m", "ray.scripts.scripts", "start", *options, **env)
        if started.wait(START_S):
            raise RuntimeError(f"Ray did not start on {host(name)}:\n{started.text}")

    def _env(self) -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/tmp/home",
            "TMPDIR": "/tmp",
            "LANG": "C.UTF-8",
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
            "START_TIMEOUT_S": str(300 * SLOW),
        }


def _command_line(process: psutil.Process) -> str:
    """Its arguments; empty for one that has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def _pairs(one: str, others: Iterable[str]) -> list[tuple[str, str]]:
    return [pair for other in others for pair in ((one, other), (other, one))]


def _remove_namespaces() -> None:
    """Those of an earlier test, too, that was killed."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        name = line.split(" ")[0]
        if not name.startswith(PREFIX):
            continue
        pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout
        for pid in pids.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)[:300]} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout
