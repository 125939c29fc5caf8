"""One command at a time in the folder that stands for a run: who submits or fetches there holds it, others wait.

Two commands that watch one job (`submit` in one window, `attach` in another) both bring its files here when it ends, at
the same moment; and of two that submit with one folder, the second must find the handle of the first. The lock is one
of the folder itself, so nothing is left behind, and it ends with its process. Where a file system has none, nobody
waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import StorageError
from ..storage_thread import telling


@contextlib.contextmanager
def alone_in(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder in the block, once no other command does.

    Args:
        folder: it is made if it is missing, and taken away again if it is empty then.
        say: takes lines about a long wait.

    Raises:
        StorageError: it cannot be made.
    """
    is_new = not folder.exists()
    with telling(lambda seconds: say(f"another command is at work in {folder}, for {seconds:.0f} s: waiting for it")):
        try:
            lock = _locked(folder)
        except OSError as error:
            raise StorageError(folder.absolute(), error) from error
    try:
        yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        os.close(lock)


def _locked(folder: Path) -> int:
    """A file descriptor of the folder, locked if its file system has locks."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # whoever made it has taken it away again
            continue
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists() and os.path.samestat(os.fstat(lock), folder.stat()):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # it was taken away, and perhaps made anew, meanwhile
