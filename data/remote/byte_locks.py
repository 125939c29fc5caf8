"""Locks between processes of one host: single bytes of one lock file, let go of by the kernel when a process ends.

A lock belongs to the open file and not to the process (open file description locks), so that threads exclude each other
as processes do. Bytes beyond the end of a file can be locked: the file stays empty, and one descriptor holds any number
of locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ByteLocks:
    """An open lock file. Locks are held until they are released or it is closed."""

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def share(self, byte: int) -> None:
        """Take a shared lock, waiting while another one holds it alone."""
        self._set(byte, fcntl.F_RDLCK, fcntl.F_OFD_SETLKW)

    def take(self, byte: int) -> None:
        """Take a lock alone, waiting while others hold it."""
        self._set(byte, fcntl.F_WRLCK, fcntl.F_OFD_SETLKW)

    def try_take(self, byte: int) -> bool:
        """Take a lock alone; False if others hold it."""
        try:
            self._set(byte, fcntl.F_WRLCK, fcntl.F_OFD_SETLK)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def release(self, byte: int) -> None:
        """Let go of a lock."""
        self._set(byte, fcntl.F_UNLCK, fcntl.F_OFD_SETLK)

    def close(self) -> None:
        """Let go of all locks."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()

    def _set(self, byte: int, kind: int, command: int) -> None:
        # struct flock of 64-bit Linux: type, whence, start, length, process (0 for locks of an open file)
        fcntl.fcntl(self._descriptor, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0))


@contextmanager
def byte_locked(path: Path, byte: int) -> Iterator[None]:
    """Hold one lock of a lock file alone, waiting for it."""
    locks = ByteLocks(path)
    try:
        locks.take(byte)
        yield
    finally:
        locks.close()
