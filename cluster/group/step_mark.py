"""The step at which a worker is, where it outlives the worker: a few bytes of a mapped file beside its log.

The kernel keeps what was written into a map when the process is killed, so the driver learns the exact step of a death;
a worker's heartbeat may be a second old. Writing it costs a microsecond and no system call.
"""

from __future__ import annotations

import contextlib
import mmap
import os

_DIGITS = 20


def mark_path(log_path: str) -> str:
    """The file beside a worker's log."""
    return f"{log_path.removesuffix('.log')}.step"


class StepMark:
    """Where a worker notes its step; raises OSError if the file cannot be made."""

    def __init__(self, path: str) -> None:
        self._path = path
        with open(path, "wb+") as file:
            file.write(b" " * _DIGITS)
            file.flush()
            self._map = mmap.mmap(file.fileno(), _DIGITS)

    def note(self, step: int | None) -> None:
        """This worker is at `step` from now on; None for no step."""
        self._map[:] = b" " * _DIGITS if step is None else b"%020d" % step

    def close(self) -> None:
        """The task is over: remove the file."""
        self._map.close()
        with contextlib.suppress(OSError):
            os.remove(self._path)


def take_mark(log_path: str) -> int | None:
    """The last step that a dead worker noted, None where there is none; removes the file."""
    path = mark_path(log_path)
    try:
        with open(path, "rb") as file:
            text = file.read(_DIGITS).strip()
        os.remove(path)
        return int(text) if text else None
    except (OSError, ValueError):
        return None
