"""Errors of a run folder that two drivers want."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from pathlib import Path

from .settings import ConfigurationError
from .storage import StorageError


class LeaseHeldError(ConfigurationError):
    """Another driver trains into the run folder.

    Two programs must not write one folder. Wait for the other, stop it, or give another run_dir; of one that is gone
    for good take it with ``fit(take_over=True)``.

    Args:
        run_dir: the run folder.
        holder: what its lease says: ``host``, ``pid``, ``since`` (seconds since 1970); None if it is being written.
        silent_s: how long that driver has not touched its lease.
        expires_s: after how long of that the lease may be taken.
    """

    def __init__(self, run_dir: Path, holder: Mapping[str, object] | None, silent_s: float, expires_s: float) -> None:
        super().__init__(run_dir, holder)
        self.run_dir, self.holder, self.silent_s, self.expires_s = run_dir, holder, silent_s, expires_s

    def __str__(self) -> str:
        is_silent = self.silent_s > self.expires_s
        seen = f"gave its last sign of life {max(0.0, self.silent_s):.0f} s ago"
        what = (
            "If it is gone for good, take the folder from it with fit(take_over=True); should it wake up, it stops "
            "before it writes anything."
            if is_silent
            else "Wait for its end, stop it, or give another run_dir. If it was on another machine and is gone, take "
            f"the folder with fit(take_over=True) when it has been silent for {self.expires_s:.0f} s."
        )
        return (
            f"The run folder {str(self.run_dir)!r} is in use by {_driver_of(self.holder)}, which {seen}. Two programs "
            f"must not write one run folder. {what}"
        )


def _driver_of(holder: Mapping[str, object] | None) -> str:
    if holder is None:
        return "another program"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(str(holder["since"]))))
    return f"process {holder['pid']} on {holder['host']} since {since}"


class LeaseLostError(StorageError):
    """Another driver has taken the run folder: this one was silent for minutes, and writes nothing there any more.

    The driver that was silent stops when it notices. Nothing is to be done: the other one goes on with the run.

    Args:
        run_dir: the run folder.
        holder: see `LeaseHeldError`.
    """

    def __init__(self, run_dir: Path, holder: Mapping[str, object] | None) -> None:
        super().__init__(run_dir, OSError(errno.EBUSY, "it is another driver's now"))
        self.holder = holder

    def __str__(self) -> str:
        return (
            f"The run folder {str(self.path)!r} was taken over by {_driver_of(self.holder)}, since this driver gave no "
            "sign of life for minutes (it was stopped, its machine slept, or its file system did not answer). It stops "
            "here and writes nothing there any more: the other one goes on with the run."
        )
