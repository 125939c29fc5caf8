"""What a process finds of its machine besides `cluster.preflight`, and what is said of it: the second half is pure.

Numbers come from where they are true: cores and memory as the control groups of a container leave them, GPUs from
NVIDIA's driver, from Ray and from a TensorFlow in a process of its own (`gpus`), since each of them may see others, and
that is what goes wrong. A clock is compared by asking for the time and halving the way, as NTP does: that is wrong by
half of the way at most.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from heliostat.cluster.cores import usable_cores
from heliostat.cluster.group.worker_process import MEMORY_FOLDER

from ..hardware import HARDWARE, Platform, differing, gpus_of_machine, processor_of, told
from ..preflight import MEMORY_BYTES
from .finding import Finding, fail, merged, ok, warn

LITTLE_MEMORY_BYTES = 4 * MEMORY_BYTES
LITTLE_ROOM_BYTES = 1_000_000_000
LITTLE_SHARED_BYTES = 100_000_000  # what is under way of a checkpoint and of data, and some of Ray's own
FAR_OFF_S, WRONG_S = 1.0, 60.0
LOOK_AT_GPUS_S = 120.0
_SET_CLOCK = "Set it: sudo timedatectl set-ntp true (or: sudo chronyc makestep)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """The GPUs that TensorFlow sees on a machine: how many, what they are called; and why it sees none."""

    seen: int = 0
    names: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a process finds of its machine.

    Attributes:
        cores: that this user may use.
        shared: free and all bytes of the memory that processes share; None where a system has no such folder.
        temporary: likewise, of the disk with temporary files, where Ray keeps its session; its folder.
        processor: its name, and the instructions that select kernels.
        driver_gpus: that NVIDIA's driver has.
        gpus: as TensorFlow sees them; None if that was not looked at, for there are none.
    """

    cores: int = 1
    shared: tuple[int, int] | None = None
    temporary: tuple[int, int] = (0, 0)
    temporary_folder: str = ""
    processor: tuple[str, str] = ("", "")
    driver_gpus: int = 0
    gpus: Gpus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine of the cluster.

    Attributes:
        id: Ray's.
        host: its name; `address` that by which the others reach it.
        resources: what Ray counts there.
        machine: what a process finds there; `memory_bytes` what is free of it, None where unknown.
        ahead_s: by how much its clock is ahead of the driver's, with the most that this can be wrong; None if the
            machine was not asked.
    """

    id: str
    host: str
    address: str = ""
    resources: Mapping[str, float] = field(default_factory=dict)
    machine: Machine = field(default_factory=Machine)
    memory_bytes: int | None = None
    ahead_s: tuple[float, float] | None = None

    @property
    def num_gpus(self) -> int:
        """GPUs that Ray gives away there."""
        return int(self.resources.get("GPU", 0))


def look_at_machine(*, ray_gpus: int) -> Machine:
    """What this process finds; `ray_gpus` is how many GPUs Ray counts here."""
    driver_gpus, temporary = gpus_of_machine(), tempfile.gettempdir()
    return Machine(
        cores=usable_cores(),
        shared=_room(MEMORY_FOLDER),
        temporary=_room(temporary) or (0, 0),
        temporary_folder=temporary,
        processor=processor_of(),
        driver_gpus=driver_gpus,
        gpus=_gpus_of_tensorflow() if ray_gpus or driver_gpus else None,
    )


def _room(folder: str) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = shutil.disk_usage(folder)
        return found.free, found.total
    return None


def _gpus_of_tensorflow() -> Gpus:
    """By a process of its own, which sees all of them: Ray hides GPUs from who has not asked for any."""
    env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-m", "heliostat.trainer.doctor.gpus"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=LOOK_AT_GPUS_S, check=False)
    except (subprocess.TimeoutExpired, OSError) as error:
        return Gpus(why=f"TensorFlow did not say: {error}.")
    try:
        return msgspec.json.decode("".join(done.stdout.splitlines()[-1:]), type=Gpus)
    except msgspec.MsgspecError:  # it has died, or could not be loaded
        return Gpus(why=f"TensorFlow cannot be loaded: {''.join(done.stderr.strip().splitlines()[-1:])}.")


# -- what is said of it -----------------------------------------------------------------------------------------------


def of_size(nodes: Sequence[Node]) -> Iterator[Finding]:
    """The machines, and what Ray and the system say of each."""
    for each in nodes:
        granted, usable = each.resources.get("CPU", 0), each.machine.cores
        memory = "" if each.memory_bytes is None else f", {gb(each.memory_bytes)} of memory free"
        yield ok("machine", f"{granted:g} CPU(s) for Ray, {usable} core(s){memory}, {each.num_gpus} GPU(s)", each.host)
        if granted > usable:
            what = f"Ray gives away {granted:g} CPUs, and its processes may use {usable} core(s)"
            yield warn("machine", what, f"Start Ray there with --num-cpus={usable}.", each.host)


def of_memory(nodes: Sequence[Node]) -> list[Finding]:
    """Memory that processes share; free memory where a worker just fits (`cluster.preflight` refuses less)."""
    return merged(finding for node in nodes for finding in _of_memory(node)) or [
        ok("memory", f"enough is free, and in {MEMORY_FOLDER}")
    ]


def _of_memory(node: Node) -> Iterator[Finding]:
    if node.memory_bytes is not None and MEMORY_BYTES <= node.memory_bytes < LITTLE_MEMORY_BYTES:
        what = f"{gb(node.memory_bytes)} of memory are free, and a worker with a small model takes about 1 GB"
        yield warn("memory", what, "End what takes the memory: ps aux --sort=-rss | head", node.host)
    if node.machine.shared is None:
        return
    free, total = node.machine.shared
    store = node.resources.get("object_store_memory", 0.0)
    if free < LITTLE_SHARED_BYTES and free < total:
        what = f"{MEMORY_FOLDER} has {mb(free)} of {mb(total)} left; when it is full, the kernel ends Ray's processes"
        yield fail("memory", what, f"See what lies there: du -sh {MEMORY_FOLDER}/*", node.host)
    elif total < store:
        what = f"{MEMORY_FOLDER} has {mb(total)}, so Ray keeps its {mb(store)} of shared memory on a disk"
        remedy = f"Start the container with --shm-size={round(store / 0.9e9 + 0.5)}g"
        yield warn("memory", what, remedy, node.host)


def of_disk(nodes: Sequence[Node]) -> list[Finding]:
    """Room where Ray keeps its session."""
    found = []
    for node in nodes:
        free, folder = node.machine.temporary[0], node.machine.temporary_folder
        if free < LITTLE_ROOM_BYTES:
            what = f"the disk of {folder} has {mb(free)} left; Ray's logs and what does not fit into memory go there"
            remedy = f"Free some: du -xsh {folder}/* | sort -h | tail; or start Ray with --temp-dir on another disk"
            found.append((fail if free < LITTLE_SHARED_BYTES else warn)("disk", what, remedy, node.host))
    return merged(found)


def of_clocks(nodes: Sequence[Node]) -> list[Finding]:
    """Clocks against the driver's: leases of run folders and object stores compare times of several machines."""
    found, most_s = [], 0.0
    for node in nodes:
        ahead_s, error_s = node.ahead_s or (0.0, 0.0)
        off_s = max(0.0, abs(ahead_s) - error_s)
        most_s = max(most_s, abs(ahead_s) + error_s)
        if off_s > FAR_OFF_S:
            what = f"its clock is {abs(ahead_s):,.1f} s {'ahead of' if ahead_s > 0 else 'behind'} the driver's"
            found.append((fail if off_s > WRONG_S else warn)("clocks", what, _SET_CLOCK, node.host))
    return found or [ok("clocks", f"at most {1000 * most_s:.3g} ms apart")]


def of_hardware(nodes: Sequence[Node]) -> Finding:
    """Whether the devices that workers compute on select the same kernels."""
    first, *others = nodes
    for node in others:
        if found := differing(_kernels(first), _kernels(node), HARDWARE):
            what = f"devices select other kernels, with other bits: {told(found, f'on {first.host}', 'here')}"
            return warn("hardware", what, "Use machines of one kind, or Trainer(mixed_hardware='allow')", node.host)
    return ok("hardware", " and ".join(dict.fromkeys(each.machine.processor[0] or "a processor" for each in nodes)))


def _kernels(node: Node) -> Platform:
    """What of a run's platform can be known of a machine before workers are on it."""
    gpus = node.machine.gpus
    return {"gpu": gpus.names} if gpus is not None and gpus.seen else {"instructions": node.machine.processor[1]}


def of_gpus(nodes: Sequence[Node]) -> list[Finding]:
    """GPUs as NVIDIA's driver, Ray and TensorFlow see them."""
    found = [finding for node in nodes for finding in _of_gpus(node)]
    return merged(found) or [ok("GPUs", "none: replicas are devices of processors")]


def _of_gpus(node: Node) -> Iterator[Finding]:
    gpus, granted, there = node.machine.gpus, node.num_gpus, node.machine.driver_gpus
    if gpus is None:
        return
    if gpus.seen < granted:
        why = gpus.why or "the driver or CUDA's libraries are missing or do not fit"
        what = f"Ray gives away {granted} GPU(s), and TensorFlow sees {gpus.seen}: {why}"
        yield fail("GPUs", what, "Look: nvidia-smi", node.host)
    elif not gpus.seen:
        what = f"NVIDIA's driver has {there} GPU(s), and TensorFlow sees none: {gpus.why}"
        yield warn("GPUs", what, "Look: nvidia-smi", node.host)
    elif granted < gpus.seen:
        what = f"TensorFlow sees {gpus.seen} GPU(s), and Ray gives away {granted}"
        yield warn("GPUs", what, f"Start Ray there with --num-gpus={gpus.seen}", node.host)
    else:
        yield ok("GPUs", f"{granted} for Ray, {gpus.seen} for TensorFlow: {gpus.names}", node.host)


def hosts_of(nodes: Iterable[Node]) -> str:
    """The names of machines, of many the first ones."""
    names = [each.host for each in nodes]
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"


def mb(num_bytes: float) -> str:
    """Bytes in MB."""
    return f"{num_bytes / 1e6:,.0f} MB"


def gb(num_bytes: float) -> str:
    """Bytes in GB."""
    return f"{num_bytes / 1e9:,.1f} GB"
