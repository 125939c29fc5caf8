"""How the files of a job leave the machine of its driver: by links in the log folder of its Ray session.

The job server hands out any file below that folder, and follows links in it. So a job makes a link to each of its run
folders there, ``heliostat-JOB-1``, ``heliostat-JOB-2`` ..., as soon as it opens one, and whoever has a token reads the
files behind it as they are: nothing is copied, nothing is packed, and only the link is to be deleted. The links are
also the job's list of its run folders, which outlives a driver that was killed (`linked`), and in which only folders
stand that the job has made (whoever deletes looks there).

Links go with Ray's session. After a restart of the head others are made, for paths that the handle of the job knows.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import xxhash
from heliostat.cluster.disk.served import TOKEN

from ..driver.lease import LEASE_FILE, Lease
from ..driver.run_folder import RUN_FILE
from ..errors import ConfigurationError, StorageError
from ..events import Lines
from ..worker.staged_files import STAGING

_PIECE_BYTES = 4 << 20
_NOT_OF_THE_RUN = {LEASE_FILE, TOKEN, STAGING}  # what drivers keep there while they run


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMark(Lines):
    """By which a file is known: its size in bytes, and the xxh3_128 of them, hexadecimal."""

    size: int
    digest: str


def prefix_of(log_dir: Path, job: str) -> Path:
    """What the links of a job begin with; `log_dir` is the log folder of the session, `job` the submission id."""
    return log_dir / f"heliostat-{job}"


def link(prefix: Path, run_dir: Path) -> str:
    """Make a link to a run folder unless the job has one.

    Args:
        prefix: of the job's links.
        run_dir: the folder; absolute.

    Returns:
        The link's name in the log folder.

    Raises:
        OSError: it cannot be made.
    """
    taken = linked(prefix)
    for name, path in taken.items():
        if path == run_dir:
            return name
    number = 1 + max((_number_of(name) for name in taken), default=0)
    while True:
        made = Path(f"{prefix}-{number}")
        try:
            made.symlink_to(run_dir)
            return made.name
        except FileExistsError:  # another process of the job was faster
            number += 1


def linked(prefix: Path) -> dict[str, Path]:
    """The run folders of a job by the names of their links, in the order in which they were opened."""
    found: dict[str, Path] = {}
    for made in prefix.parent.glob(f"{glob.escape(prefix.name)}-*"):
        if made.name[len(prefix.name) + 1 :].isdecimal():  # else another job's, whose name begins with this one's
            with contextlib.suppress(OSError):
                found[made.name] = Path(os.readlink(made))
    return {name: found[name] for name in sorted(found, key=_number_of)}


def unlink(prefix: Path, run_dir: Path) -> None:
    """Take a job's link to a folder away, if there is one. Raises OSError."""
    for name, path in linked(prefix).items():
        if path == run_dir:
            prefix.with_name(name).unlink()


def remove(prefix: Path, run_dir: Path) -> None:
    """Delete a run folder of a job, and its link; one that is gone already is no mistake.

    Args:
        prefix: of the job's links.
        run_dir: the folder; absolute.

    Raises:
        ConfigurationError: it is no run folder; LeaseHeldError: a driver is at work there.
        StorageError: it cannot be deleted.
    """
    if run_dir.exists() and run_dir not in linked(prefix).values() and not (run_dir / RUN_FILE).is_file():
        raise ConfigurationError(f"{str(run_dir)!r} is no run folder: it is not deleted.")
    try:
        if run_dir.is_dir():
            with Lease(run_dir, take_over=False):
                shutil.rmtree(run_dir)
        unlink(prefix, run_dir)
    except OSError as error:
        raise StorageError(run_dir, error) from error


def marks_of(run_dir: Path) -> dict[str, FileMark]:
    """The files of a run folder by their paths in it, with slashes; what cannot be read is left out.

    Folders that lie elsewhere, behind a link, belong to it; what a driver keeps there while it runs does not.
    """
    found: dict[str, FileMark] = {}
    for path in _files_below(run_dir, ()):
        with contextlib.suppress(OSError):  # it has gone meanwhile, or belongs to somebody else
            found[path.relative_to(run_dir).as_posix()] = mark_of(path)
    return found


def bytes_of(run_dir: Path) -> int:
    """How large the files are that `marks_of` reads."""
    found = 0
    for path in _files_below(run_dir, ()):
        with contextlib.suppress(OSError):
            found += path.stat().st_size
    return found


def _number_of(name: str) -> int:
    """The number at the end of a link's name."""
    return int(name.rpartition("-")[2])


def _files_below(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """The files below a folder; `above` are the folders on the way to it, so that a link back leads nowhere."""
    try:
        about = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    here = (about.st_dev, about.st_ino)
    if here in above:
        return
    for entry in entries:
        if not above and entry.name in _NOT_OF_THE_RUN:
            continue
        with contextlib.suppress(OSError):
            mode = entry.stat().st_mode
            if stat.S_ISDIR(mode):
                yield from _files_below(Path(entry.path), (*above, here))
            elif stat.S_ISREG(mode):
                yield Path(entry.path)


def mark_of(path: Path) -> FileMark:
    """By which a file is known; raises OSError."""
    digest, size = xxhash.xxh3_128(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return FileMark(size=size, digest=digest.hexdigest())
