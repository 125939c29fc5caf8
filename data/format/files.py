"""Files that appear whole: written beside their name, flushed, renamed.

A rename within one folder is atomic on every file system that matters, for readers of this and of other hosts; bytes
that were not flushed before it may be missing after a power failure although the name is there. Locks would have to be
known by every reader, and do not help against a crash.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

# So say network shares and file systems in user space of which no folder can be flushed, or not this one.
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part; raises OSError."""
    unfinished = path.with_name(f".{path.name}.writing")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):  # a full disk needs the room
            unfinished.unlink()
        raise


def flush_folder(folder: str | os.PathLike[str]) -> None:
    """Wait until the names in a folder are on the disk, if its file system can do that; raises OSError."""
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
    finally:
        if descriptor is not None:
            os.close(descriptor)
