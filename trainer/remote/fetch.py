"""Bringing the run folders of a job here, file by file, through links in the cluster's log folder.

The job tells at its end which files its run folders hold, with their hashes, and makes links to the folders where the
job server reads files from (`links`); so a file is one request, of any size, and comes as it is. Where it could not
tell (its driver was killed, the cluster's Ray is another one by now, or it still runs) a small job is asked to list
them. A file is written beside its name, compared with its hash, and renamed; what is here already with the right hash
is not fetched again, so whoever is interrupted goes on where he was. ``run.json`` comes last: a folder that has it is
whole.

Where a script made several run folders, the n-th lands beside the first, with ``-n`` behind its name, as they do for
every trainer; a folder that holds another run is left alone, and the next number taken.

What was not done: an archive (a copy of everything on the cluster's disk, and begun anew after an interruption), and
deleting files here that are not there any more: an older checkpoint does no harm.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import xxhash
from heliostat.cluster.errors import JobServerError
from heliostat.cluster.head.api import Head
from heliostat.data.format.files import flush_folder

from ..driver.display import Display
from ..driver.run_folder import RUN_FILE
from ..driver.run_paths import numbered_run_path
from ..errors import FetchError, StorageError
from ..storage_thread import telling
from .follow import Told, told_until_now
from .handle import Handle
from .links import FileMark
from .listing import list_folders
from .wire import Files

_PIECE_BYTES = 4 << 20
_TRIES = 3  # of a folder whose files change meanwhile


def fetch(head: Head, handle: Handle, to: Path, screen: Display, told: Told | None = None) -> list[Path]:
    """Bring the run folders of a job here.

    Args:
        head: the cluster.
        handle: the job.
        to: where its first run folder is to be.
        screen: what the user sees.
        told: what the job's log has told, if that is known.

    Returns:
        The folders here, in the order in which the job opened its own.

    Raises:
        FetchError: it has none, or files cannot be brought here as they are there.
        ClusterError: the cluster does not answer, or refuses.
        StorageError: a file cannot be written here.
    """
    if told is None:
        _, told = told_until_now(head, handle)
    wanted = list(dict.fromkeys([*handle.runs, *told.folders]))
    if not wanted:
        raise FetchError.no_folder(handle.submission_id)
    found = dict(told.files)
    if unknown := [path for path in wanted if path not in found]:
        found |= list_folders(head, handle, unknown, screen)
    there = [path for path in wanted if path in found and found[path].link]
    if not there:
        raise FetchError.not_there(wanted)
    taken: list[Path] = []
    for path in there:
        taken.append(_fetch_folder(head, handle, found[path], to, taken, screen))
    return taken


def _fetch_folder(head: Head, handle: Handle, files: Files, to: Path, taken: list[Path], screen: Display) -> Path:
    """Bring one run folder here; where files have changed meanwhile, or links are gone, they are listed anew."""
    tries = 0
    while True:
        try:
            target = _target_of(_run_id(head, files), to, taken)
            _fetch_files(head, files, target, screen)
            return target
        except (FetchError, JobServerError):
            tries += 1
            if tries == _TRIES:
                raise
            files = list_folders(head, handle, [files.path], screen).get(files.path, files)
            if not files.link:
                raise FetchError.not_there([files.path]) from None


def _fetch_files(head: Head, files: Files, target: Path, screen: Display) -> None:
    """Bring the files of one folder here that are not here yet."""
    wanted = {name: mark for name, mark in files.files.items() if not _is_here(_place(target, name), mark)}
    all_bytes, done_bytes = sum(mark.size for mark in wanted.values()), 0
    if not wanted:
        screen.say(f"{target} holds all {len(files.files)} files already")
        return

    def tell(seconds: float) -> None:
        screen.say(f"fetching {target}: {done_bytes / 1e6:,.1f} of {all_bytes / 1e6:,.1f} MB in {seconds:.0f} s")

    began_s = time.monotonic()
    with telling(tell):
        for name in sorted(wanted, key=_turn):
            for size in _fetch_file(head, files, name, wanted[name], _place(target, name)):
                done_bytes += size
    seconds = time.monotonic() - began_s
    screen.say(f"fetched {len(wanted)} file(s), {all_bytes / 1e6:,.1f} MB, in {seconds:.1f} s: {target}")


def _fetch_file(head: Head, files: Files, name: str, mark: FileMark, path: Path) -> Iterator[int]:
    """Bring one file here; gives the bytes of every piece. What is not as it is told to be is not kept."""
    unfinished, digest, size = path.with_name(f".{path.name}.fetching"), xxhash.xxh3_128(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            for piece in head.read(files.node_id, f"{files.link}/{name}"):
                file.write(piece)
                digest.update(piece)
                size += len(piece)
                yield len(piece)
            file.flush()
            os.fsync(file.fileno())
        if (size, digest.hexdigest()) != (mark.size, mark.digest):
            raise FetchError.changed(f"{files.path}/{name}", mark.size, size)
        unfinished.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        raise StorageError(path.absolute(), error) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def _is_here(path: Path, mark: FileMark) -> bool:
    """Whether a file is here as it is there."""
    try:
        if path.stat().st_size != mark.size:
            return False
        with path.open("rb") as file:
            digest = xxhash.xxh3_128()
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
    except OSError:
        return False
    return digest.hexdigest() == mark.digest


def _place(target: Path, name: str) -> Path:
    """Where a file of a run folder belongs here; raises FetchError if that is not in the folder."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or PurePosixPath(name).is_absolute() or "\0" in name:
        raise FetchError.bad_name(name)
    return target.joinpath(*parts)


def _turn(name: str) -> tuple[int, str]:
    """By what files are sorted: those by which others count come after them."""
    return (name == RUN_FILE) * 2 + name.endswith("/manifest.json"), name


def _run_id(head: Head, files: Files) -> str | None:
    """What the run in a folder of the cluster is called; None if its record does not tell."""
    if RUN_FILE not in files.files:
        return None
    return _id_in(b"".join(head.read(files.node_id, f"{files.link}/{RUN_FILE}")))


def _target_of(run_id: str | None, to: Path, taken: list[Path]) -> Path:
    """The first folder, of ``to``, ``to-2`` ..., that no other run has."""
    number = len(taken) + 1
    while True:
        folder = numbered_run_path(to, number)
        try:
            there = _id_in((folder / RUN_FILE).read_bytes())
        except OSError:
            there = None
        if folder not in taken and there in (None, run_id):
            return folder
        number += 1


def _id_in(record: bytes) -> str | None:
    try:
        found = json.loads(record)
    except ValueError:
        return None
    name = found.get("id") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None
