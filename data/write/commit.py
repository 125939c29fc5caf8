"""Folders that appear complete or not at all: a folder in the making beside its target, and the rename at the end.

POSIX can replace a file by a rename, but not a folder that is not empty. So the old dataset gets another name for the
moment between two renames, and its name back if the second one fails; a process that dies between them leaves no
dataset at the target, and whoever opens it is told where the old one is. Readers that have the old files mapped go on
with them. Linux could exchange two folders in one step (`renameat2`), but not on every file system, and Python does
not offer it.

Locks are `flock`, on folders and on the journal, because they end with the process that holds them. Where a network
file system has none, nobody is kept out: two writers of one dataset are then a mistake that is not noticed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DatasetExistsError
from ..format.files import flush_folder
from ..format.manifest import MANIFEST_NAME


def unfinished_folder(target: Path) -> Path:
    """Where the dataset of `target` is while it is written: a sibling, because only within one file system is a rename
    atomic."""
    return target.parent / f".{target.name}.writing"


def check_target(target: Path, overwrite: bool) -> None:
    """Raise DatasetExistsError if there is something at `target` that must not be replaced."""
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise DatasetExistsError(
            f"{target} exists already. Give another path, or overwrite=True to replace a dataset.", path=target
        )
    if not target.is_dir() or not (target / MANIFEST_NAME).is_file():
        raise DatasetExistsError(
            f"{target} exists and is not a dataset (it has no {MANIFEST_NAME}), so overwrite=True does not replace it. "
            "Give another path, or remove it yourself.",
            path=target,
        )


def put_in_place(folder: Path, target: Path, overwrite: bool) -> None:
    """Rename the finished folder to `target`; what was there before is removed afterwards. Raises OSError."""
    flush_folder(folder)
    # A name that nobody has: what an earlier crash left under it may be the only copy of somebody's dataset.
    replaced = target.parent / f".{target.name}.replaced-{uuid.uuid4().hex[:12]}"
    check_target(target, overwrite)
    had_old = os.path.lexists(target)
    if had_old:
        os.rename(target, replaced)
    try:
        os.rename(folder, target)
    except OSError:
        if had_old:
            os.rename(replaced, target)
        raise
    flush_folder(target.parent)
    if had_old:
        shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, waiting for it; on a file system without locks nothing is held."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try_lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, *, wait: bool = False) -> bool:
    """Lock an open file or folder until it is closed; False if another process or object holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        # Some network file systems have no locks: then nobody can be kept out.
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True
