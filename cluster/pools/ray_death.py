"""Why a worker's process ended, as far as Ray, its machine's keeper and the driver's own clock tell."""

from __future__ import annotations

import threading
import time

from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayActorError, RayError

from ..group.messages import Evidence
from .keeper import Remains
from .ray_worker import DRIVER_GONE_S

REASON_CHARACTERS = 300
JUST_NOW_S = 15.0
_NO_MEMORY = "what():  std::bad_alloc"  # native code that found no memory, and ended the process
_CRASH = "Fatal Python error: "  # faulthandler writes it at a signal that native code dies of
_SOCKET_CLOSED = "connection error code 2"  # Ray's word for a process that is gone; behind it stands what may be why
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


def reason_of(error: RayError, absent_s: float, remains: Remains | None) -> str:
    """Why a worker died, in one line.

    Args:
        error: what Ray says.
        absent_s: how long the driver did not run just before.
        remains: what its machine's keeper says; None if that does not answer any more.
    """
    if absent_s > DRIVER_GONE_S:
        return (
            f"it left, since the driver was gone for {absent_s:.0f} s (stopped, asleep or cut off): workers wait "
            f"{DRIVER_GONE_S:.0f} s for it"
        )
    if isinstance(error, RayActorError) and error.preempted:
        return "its machine was taken away (pre-empted)"
    if remains is None:
        return "its machine does not answer any more"
    if remains.exit_status is not None:
        return f"its process ended itself, with exit status {remains.exit_status}"
    if isinstance(error, ActorUnavailableError):  # Ray's text is of remote calls, with an address and a number
        if remains.is_running:
            return "its connection to the driver is broken, though its machine answers and its process runs"
        return _gone(remains)
    if _SOCKET_CLOSED in str(error):
        return _gone(remains)
    lines = str(error).splitlines()
    if isinstance(error, ActorDiedError) and len(lines) > 1:  # a heading, indented names of no use, and the cause
        lines = [line for line in lines[1:] if not line.startswith("\t")]
    return " ".join(" ".join(lines).split())[:REASON_CHARACTERS]


def _gone(remains: Remains) -> str:
    """Why a process may have ended that has said nothing."""
    if remains.was_killed or _NO_MEMORY in remains.tail:
        return "its process was killed: its machine had no memory left"
    if _CRASH in remains.tail:
        return "its process crashed in native code; its log has the stack"
    return "its process ended without a word: it was killed, or it crashed"


def evidence_of(error: RayError, remains: Remains | None) -> Evidence:
    """What is known about why a process died.

    Args:
        error: what Ray says.
        remains: see `reason_of`.
    """
    if remains is None:
        return ""
    if remains.exit_status is not None:
        return "exit"
    if remains.was_killed or isinstance(error, OutOfMemoryError) or _NO_MEMORY in remains.tail:
        return "out of memory"
    return "crash" if _CRASH in remains.tail else ""
