"""How a machine that has workers reaches what lies on the driver's disk."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import fs

from .served import SCHEME, TOKEN

if TYPE_CHECKING:
    from .disk import Disk  # which loads Ray; who has one has loaded it

SCRATCH = "scratch"
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
    """The folder of this machine in which everything lies that belongs to a driver's disk which it does not see.

    Raises:
        PermissionError: see `own_folder`.
    """
    return own_folder(SCRATCH) / disk_id


def own_folder(what: str) -> Path:
    """A folder among temporary files, the same for all processes of this user, which nobody else may write to.

    Raises:
        PermissionError: somebody has made it who may put there what he likes.
    """
    folder = _path_of(what)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if why := why_not_own(what):
        raise PermissionError(errno.EACCES, why, str(folder))
    return folder


def why_not_own(what: str) -> str:
    """Why `own_folder` cannot be used; empty if it can, or is not there yet."""
    try:
        about = _path_of(what).lstat()
    except (FileNotFoundError, NotADirectoryError):  # who makes it is told
        return ""
    if not stat.S_ISDIR(about.st_mode):
        return "it is no folder"
    if about.st_uid != os.geteuid():
        return "it is another user's"
    return "others may write to it" if about.st_mode & 0o022 else ""


def _path_of(what: str) -> Path:
    return Path(tempfile.gettempdir(), f"heliostat-{os.geteuid()}-{what}")


@functools.cache  # a disk's id is never used again, and who makes a reach for every task shall not wait each time
def _has_token(folder: Path, token: str) -> bool:
    if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(_path_of(SCRATCH))):
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
