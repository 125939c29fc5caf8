"""A folder of a job's own, on the machine of its driver, in which data lie that came with it.

Ray unpacks a job's code into a folder that is named by its hash, and may give the same one to another job. Data that
came beside the code must not get in there: the other job may have brought others. So a job with data runs in a copy of
that folder, and has its data there. It is deleted at the end; one that was left by a driver that was killed is, by the
next job: a lock says whether somebody is in there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_BEGINNING = "heliostat-job-"


@contextlib.contextmanager
def job_folder(session_dir: Path, copied: Path | None = None) -> Iterator[Path]:
    """Make a folder, which is deleted after the block.

    Args:
        session_dir: where it is made: the folder of Ray's session.
        copied: what is in it at first; None for nothing.

    Raises:
        OSError: it cannot be made.
    """
    _sweep(session_dir)
    folder, lock = _made(session_dir)
    try:
        if copied is not None:
            shutil.copytree(copied, folder, dirs_exist_ok=True, symlinks=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _made(session_dir: Path) -> tuple[Path, int]:
    """A new folder, and a file descriptor by which it is locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_BEGINNING, dir=session_dir))
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_SH)
        if folder.exists():
            return folder, lock
        os.close(lock)  # another job has taken it away before it was locked


def _sweep(session_dir: Path) -> None:
    """Delete what was left by jobs that were killed."""
    for left in session_dir.glob(f"{_BEGINNING}*"):
        with contextlib.suppress(OSError):
            lock = os.open(left, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)
