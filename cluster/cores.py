"""How many cores workers may use: what a process is granted, and how a group's machines are divided among its workers.

A worker's number of threads decides its bits, so it is one number for the whole group, chosen once, when a run begins.
How many cores a scheduler sets aside for a worker decides nothing but speed, so that number may be smaller elsewhere.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine that workers can be placed on: cores that it can use, and cores that its scheduler gives away."""

    usable: int
    granted: int


def affine_cores() -> int:
    """Cores that this process may be scheduled on; TensorFlow by itself starts so many threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores(own: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: as its affinity and the quotas of its control groups allow, at least one.

    Args:
        own: the kernel's list of this process's control groups.
        mounted: where they are mounted, of version 1 or 2.
    """
    return max(1, math.floor(min(affine_cores(), *_quotas(own, mounted))))


def cores_per_worker(usable: Sequence[int], num_workers: int) -> int:
    """Cores for each worker where they are spread over machines: of the smallest machine with the most workers.

    Args:
        usable: cores of every machine.
        num_workers: the most workers there can be.
    """
    most_on_one = -(-num_workers // len(usable))
    return max(1, min(usable) // most_on_one)


def cores_to_ask(wanted: int, granted: Sequence[int], num_workers: int) -> int:
    """The most cores, up to `wanted`, that machines can set aside for each of so many workers; at least one.

    Args:
        wanted: threads of a worker.
        granted: cores that the scheduler gives away on every machine.
        num_workers: how many workers must find room.
    """
    fitting = (each for each in range(wanted, 1, -1) if sum(cores // each for cores in granted) >= num_workers)
    return next(fitting, 1)


def _quotas(own: Path, mounted: Path) -> Iterator[float]:
    """Cores' worth of time that each control group around this process may take; infinity is always among them."""
    yield math.inf
    try:
        groups = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:  # no Linux
        return
    for _, controllers, path in groups:
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mounted / "cpu" if controllers else mounted
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):  # a quota above counts as well
            if group.is_relative_to(root):
                yield _quota(group)


def _quota(group: Path) -> float:
    """Cores' worth of time of one control group; infinity where it is not limited, or cannot be read."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # version 2 writes "max" for no limit
        return math.inf
