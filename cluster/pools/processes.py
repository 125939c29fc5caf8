"""Processes of this machine by number and start time: a number alone may belong to somebody else by now."""

from __future__ import annotations

import contextlib
import os
import select
import signal


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since its machine did; 0 if it has ended, or there is no ``/proc``."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *numbers = file.read().rpartition(b")")[2].split()
        return 0 if state in b"ZX" else int(numbers[18])
    except (OSError, ValueError, IndexError):
        return 0


def open_process(pid: int, started: int) -> int | None:
    """A descriptor of the process with this number and start time, for the caller to close; None if it is gone.

    What is done through it reaches that process and no other, whoever has its number by then.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except (OSError, AttributeError):  # gone; or a system without such descriptors
        return None
    if started and start_ticks(pid) == started:
        return descriptor
    os.close(descriptor)
    return None


def end_process(descriptor: int, leave_s: float) -> None:
    """Wait so many seconds for a process to end by itself, then end it; closes its descriptor."""
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        if not waiting.poll(1000 * leave_s):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def oom_kills() -> int:
    """How many processes of this container, or machine, the kernel has killed for want of memory; 0 if unknown."""
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):  # the first is there within a container
        with contextlib.suppress(OSError, ValueError, KeyError), open(path) as file:
            return int(dict(line.split() for line in file)["oom_kill"])
    return 0
