"""How a machine that has workers reaches what lies on the driver's disk."""

from __future__ import annotations

import functools
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import fs

from .served import SCHEME, TOKEN

if TYPE_CHECKING:
    from .disk import Disk  # which loads Ray; who has one has loaded it

# Network file systems show new files late; what is not there at all is sooner taken for another disk.
_TOKEN_WITHIN_S, _FOLDER_WITHIN_S, _LOOK_S = 5.0, 1.0, 0.1


class Reach:
    """How this machine reaches paths of the driver's machine: in place where it has the same folders, else through it.

    For any number of threads.

    Args:
        disk: the driver's; None where all machines are the driver's own, and everything is in place.
    """

    def __init__(self, disk: Disk | None) -> None:
        self.disk = disk

    def sees(self, path: str) -> bool:
        """Whether this machine has the same file or folder at this path; what is not served is taken to be.

        What lies in no root with a token is not seen: whoever knows what it must be looks at that.
        """
        if self.disk is None:
            return True
        roots, token = self.disk.roots_of(path), self.disk.id
        return not roots or any(root.is_writable and _has_token(Path(root.path), token) for root in roots)

    def uri(self, path: str) -> str:
        """What opens a path of the driver's on this machine: itself where it is seen, else ``driver://`` before it."""
        return path if self.sees(path) else f"{SCHEME}://{path}"

    def scratch(self, path: str) -> Path:
        """Where this machine keeps what belongs to a path of the driver's that it does not see. It need not exist."""
        folder = scratch_of(self.disk.id if self.disk is not None else "here")
        return folder / os.path.abspath(path).lstrip("/")

    def filesystem(self) -> fs.FileSystem:
        """The driver's disk, or this machine's where that is the same."""
        if self.disk is None:
            return fs.LocalFileSystem()
        from .driver_files import filesystem

        return filesystem(self.disk)


def scratch_of(disk_id: str) -> Path:
    """The folder of this machine in which everything lies that belongs to a driver's disk which it does not see."""
    return cache_home() / "heliostat" / "scratch" / disk_id


def cache_home() -> Path:
    """Where this user keeps what can be made again; among temporary files where he has no home that he may write to.

    The cache of shards has the same rule (`CacheSettings.folder` of the data).
    """
    homes = (os.environ.get("XDG_CACHE_HOME") or "", os.path.expanduser("~/.cache"))
    found = next((Path(home) for home in homes if _can_be_made(home)), None)
    return found or Path(tempfile.gettempdir()) / f"heliostat-{os.getuid()}"


def _can_be_made(folder: str) -> bool:
    while folder and not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return os.path.isabs(folder) and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


@functools.cache  # a disk's id is never used again, and who makes a reach for every task shall not wait each time
def _has_token(folder: Path, token: str) -> bool:
    if Path(os.path.realpath(folder)).is_relative_to(cache_home() / "heliostat" / "scratch"):
        return False  # a link in its place (`stand_in`), of which nobody need wait for a token
    began_s = time.monotonic()
    while True:
        try:
            return (folder / TOKEN).read_text() == token
        except OSError:
            limit_s = _TOKEN_WITHIN_S if folder.is_dir() else _FOLDER_WITHIN_S
        if time.monotonic() - began_s > limit_s:
            return False
        time.sleep(_LOOK_S)
