"""Bringing the run folders of a job here, file by file, through links in the cluster's log folder.

The job tells at its end which files its run folders hold, with their hashes, and makes links to the folders where the
job server reads files from (`links`); so a file is one request, of any size, and comes as it is. Where it could not
tell (its driver was killed, the cluster's Ray is another one by now, or it still runs) a small job is asked to list
them. A file is written beside its name, compared with its hash, and renamed; what is here already with the right hash
is not fetched again, so whoever is interrupted goes on where he was. ``run.json`` comes last: a folder that has it is
whole. Of a run that goes on, files come as they were when they were listed: what was appended since is not read, and
what was deleted or written anew meanwhile (an old checkpoint) is left out, which is said.

Where a script made several run folders, the n-th lands beside the first, with ``-n`` behind its name, as they do for
every trainer; a folder that holds another run, another job's handle or anything else is left alone, and the next number
taken. While files come, a hidden file says for which run the folder was taken.

What was not done: an archive (a copy of everything on the cluster's disk, and begun anew after an interruption), and
deleting files here that are not there any more: an older checkpoint does no harm.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PurePosixPath

import xxhash
from heliostat.cluster.errors import JobServerError, NoSuchJobError
from heliostat.cluster.head.api import Head
from heliostat.data.format.files import flush_folder

from ..driver.display import Display
from ..driver.doing import Doing
from ..driver.run_folder import RUN_FILE
from ..driver.run_paths import numbered_run_path
from ..errors import FetchError, StorageError
from .alone import alone_in
from .follow import Told, told_until_now
from .handle import Handle
from .links import FileMark, mark_of
from .listing import list_folders
from .wire import Files

_TAKEN_FOR = ".fetching"  # holds the path of the run's folder on the cluster
_MAX_NAMED = 5


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
    goes_on = False
    if told is None:
        told = Told()
        with contextlib.suppress(NoSuchJobError):  # Ray was started anew: the folders may be there all the same
            job, told = told_until_now(head, handle)
            goes_on = not job.is_over
    wanted = list(dict.fromkeys([*handle.runs, *told.folders]))
    if not wanted:
        raise FetchError.no_folder(handle.submission_id)
    found = {} if goes_on else dict(told.files)
    if unknown := [path for path in wanted if path not in found]:
        found |= list_folders(head, handle, unknown, screen)
    there = [path for path in wanted if path in found and found[path].link]
    if not there:
        raise FetchError.not_there(wanted)
    fetcher = _Fetcher(head, to, screen, goes_on=goes_on)
    with alone_in(to, screen.say):
        for path in there:
            try:
                fetcher.bring(found[path])
            except (FetchError, JobServerError):  # links go with Ray's session, and files may have changed since
                listed = list_folders(head, handle, [path], screen).get(path)
                if listed is None or not listed.link:
                    raise FetchError.not_there([path]) from None
                fetcher.bring(listed)
    return fetcher.folders


class _Fetcher:
    """Brings run folders here, one after another.

    Attributes:
        folders: where they are.

    Args:
        head: the cluster.
        to: where the first is to be.
        screen: what the user sees.
        goes_on: whether the job may have changed files since they were listed.
    """

    def __init__(self, head: Head, to: Path, screen: Display, *, goes_on: bool) -> None:
        self.folders: list[Path] = []
        self._head, self._to, self._screen, self._goes_on = head, to, screen, goes_on

    def bring(self, files: Files) -> None:
        """Bring one here, as far as it is not; raises what `fetch` raises."""
        target = _target_of(_run_id(self._head, files), files.path, self._to, self.folders)
        wanted = {name: mark for name, mark in files.files.items() if not _is_here(_place(target, name), mark)}
        if wanted:
            with _taken(target, files.path):
                self._bring_files(files, wanted, target)
        else:
            self._screen.say(f"{target} holds all {len(files.files)} files already")
        self.folders.append(target)

    def _bring_files(self, files: Files, wanted: Mapping[str, FileMark], target: Path) -> None:
        num_bytes, done_bytes, left_out = sum(mark.size for mark in wanted.values()), 0, list[str]()

        doing, began_s = Doing(what=f"fetching {target.name}", total=num_bytes, unit="bytes"), time.monotonic()
        self._screen.doing(doing)
        for name in sorted(wanted, key=_turn):
            try:
                for size in _fetch_file(self._head, files, name, wanted[name], _place(target, name)):
                    done_bytes += size
                    self._screen.doing(replace(doing, done=done_bytes))
            except (FetchError, JobServerError):
                if not self._goes_on:
                    raise
                left_out.append(name)
        self._screen.doing(None)
        seconds, num_files = time.monotonic() - began_s, len(wanted) - len(left_out)
        self._screen.say(f"fetched {num_files} file(s), {done_bytes / 1e6:,.1f} MB, in {seconds:.1f} s: {target}")
        if left_out:
            more = " ..." if len(left_out) > _MAX_NAMED else ""
            names = ", ".join(left_out[:_MAX_NAMED]) + more
            self._screen.say(f"not fetched, as they are gone or others by now, for the run goes on: {names}")


def _fetch_file(head: Head, files: Files, name: str, mark: FileMark, path: Path) -> Iterator[int]:
    """Bring one file here; gives the bytes of every piece. What is not as it is told to be is not kept."""
    unfinished, digest, size = path.with_name(f".{path.name}.fetching"), xxhash.xxh3_128(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file, closing(head.read(files.node_id, f"{files.link}/{name}")) as pieces:
            while size < mark.size and (piece := next(pieces, b"")):
                piece = piece[: mark.size - size]  # what was appended since it was listed is left out
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
        return path.stat().st_size == mark.size and mark_of(path) == mark
    except OSError:
        return False


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


def _target_of(run_id: str | None, there: str, to: Path, taken: list[Path]) -> Path:
    """The first folder, of ``to``, ``to-2`` ..., that is this run's already or nobody's.

    Args:
        run_id: what the run is called; None if its record does not tell.
        there: its folder on the cluster.
        to: the folder that was named for the job; without a run in it, it is the first run's, whatever else it holds.
        taken: those of the job's other runs.
    """
    number = len(taken) + 1
    while True:
        folder = numbered_run_path(to, number)
        if folder not in taken and _is_for(run_id, there, folder, is_named=number == 1):
            return folder
        number += 1


def _is_for(run_id: str | None, there: str, folder: Path, *, is_named: bool) -> bool:
    """Whether a run belongs into a folder here; see `_target_of`."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found = _id_in((folder / RUN_FILE).read_bytes())
        return found == run_id if found is not None else is_named
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return (folder / _TAKEN_FOR).read_text() == there
    if is_named or not folder.exists():
        return True
    return folder.is_dir() and not any(folder.iterdir())


@contextlib.contextmanager
def _taken(folder: Path, there: str) -> Iterator[None]:
    """Note in a folder for which run it is, until the block has brought all of it; raises StorageError."""
    note = folder / _TAKEN_FOR
    try:
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(there)
        yield
        note.unlink()
    except OSError as error:
        raise StorageError(note.absolute(), error) from error


def _id_in(record: bytes) -> str | None:
    try:
        found = json.loads(record)
    except ValueError:
        return None
    name = found.get("id") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None
