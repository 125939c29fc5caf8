"""Why a worker's process ended, as far as Ray, its log, the kernel and the driver's own clock tell."""

from __future__ import annotations

import os
import threading
import time

from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError, RayError

from ..group.messages import Evidence
from .ray_worker import DRIVER_GONE_S

LOG_TAIL_BYTES = 20_000
REASON_CHARACTERS = 300
JUST_NOW_S = 15.0
_NO_MEMORY = "what():  std::bad_alloc"  # native code that found no memory, and ended the process
_CRASH = "Fatal Python error: "  # faulthandler writes it at a signal that native code dies of
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # it runs on while a laptop sleeps


class Absence:
    """Notices for how long this process did not run, stopped or asleep: `begin`, and `tick` every second or so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ticked_s = self._ended_s = time.clock_gettime(_CLOCK)
        self._lasted_s = 0.0

    def begin(self) -> None:
        """Nobody has ticked, for there was nothing to do: that was no absence."""
        with self._lock:
            self._ticked_s = time.clock_gettime(_CLOCK)

    def tick(self) -> None:
        """This process runs."""
        with self._lock:
            self._note()

    def last_s(self) -> float:
        """How long it did not run when it last did not, 0 unless that ended just now."""
        with self._lock:
            self._note()
            return self._lasted_s if self._ticked_s - self._ended_s < JUST_NOW_S else 0.0

    def _note(self) -> None:
        now_s = time.clock_gettime(_CLOCK)
        if now_s - self._ticked_s > JUST_NOW_S:
            self._lasted_s, self._ended_s = now_s - self._ticked_s, now_s
        self._ticked_s = now_s


def reason_of(error: RayError, absent_s: float, exit_status: int | None = None) -> str:
    """Why a worker died, in one line.

    Args:
        error: what Ray says.
        absent_s: how long the driver did not run just before.
        exit_status: with which the process ended itself; None if it did not, or nobody knows.
    """
    if absent_s > DRIVER_GONE_S:
        return (
            f"it left, since the driver was gone for {absent_s:.0f} s (stopped, asleep or cut off): workers wait "
            f"{DRIVER_GONE_S:.0f} s for it"
        )
    if exit_status is not None:
        return f"its process ended itself, with exit status {exit_status}"
    if isinstance(error, RayActorError) and error.preempted:
        return "its machine was taken away (pre-empted)"
    lines = str(error).splitlines()
    if isinstance(error, ActorDiedError) and len(lines) > 1:  # a heading, indented names of no use, and the cause
        lines = [line for line in lines[1:] if not line.startswith("\t")]
    return " ".join(" ".join(lines).split())[:REASON_CHARACTERS]


def evidence_of(error: RayError, log_path: str | None, exit_status: int | None, *, killed_here: bool) -> Evidence:
    """What is known about why a process died.

    Args:
        error: what Ray says.
        log_path: where it printed.
        exit_status: see `reason_of`.
        killed_here: whether the kernel has killed a process of the machine that it ran on for want of memory.
    """
    if exit_status is not None:
        return "exit"
    if killed_here or isinstance(error, OutOfMemoryError):
        return "out of memory"
    tail = _tail(log_path)
    return "out of memory" if _NO_MEMORY in tail else "crash" if _CRASH in tail else ""


def oom_kills() -> int:
    """How many processes of this container or machine the kernel has killed for want of memory; 0 if unknown."""
    try:
        with open("/sys/fs/cgroup/memory.events") as file:
            counts = dict(line.split() for line in file)
    except (OSError, ValueError):
        return 0
    return int(counts.get("oom_kill", 0))


def _tail(log_path: str | None) -> str:
    """The end of a worker's log, empty where there is none."""
    try:
        with open(log_path or "", "rb") as file:
            file.seek(max(0, os.path.getsize(file.fileno()) - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
