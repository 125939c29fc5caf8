"""What callbacks wrote on a machine that does not see the run folder, on its way into the run folder.

::

    <run folder>/.callbacks/0000000300000007      changes of version 7, made in generation 3: packed, small files inside
    <run folder>/.callbacks/0000000300000007.2    the bytes of its third change, which were many

**The idea.** The chief's hooks have run, and nobody knows yet whether they count: if the chief dies before another
worker has heard of them, they run again elsewhere. So what they wrote is put *beside* its place first, under a version
that the chief tells the others together with the callbacks' states. Once all have heard it, it is taken in: files are
renamed, rows are appended. A new chief takes in what it has heard of and drops the rest, so that the run folder is as
of the last agreement, whatever the last chief had begun. Versions grow over generations and runs.

**It may be done twice.** A chief can die while it takes a version in, and the next one begins anew. A rename that has
been done finds nothing to rename, what is gone stays gone, and of rows those are left out that are there already, since
a change says where they begin.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs
from heliostat.cluster.disk.served import PIECE_BYTES

from ..checkpoints.values import pack, unpack
from .watched_folder import Change

STAGING = ".callbacks"
INLINE_BYTES = 4 << 20  # of a version's files lie inside of its changes
_DIGITS = 16


class StagedFiles:
    """The files of callbacks in a run folder, and those that wait beside it.

    Args:
        filesystem: of the machine with the run folder.
        run_dir: the run folder there.
    """

    def __init__(self, filesystem: pafs.FileSystem, run_dir: str) -> None:
        self._filesystem, self._run_dir, self._staging = filesystem, run_dir, f"{run_dir}/{STAGING}"

    def stage(self, version: int, changes: Iterable[Change]) -> bool:
        """Put changes beside their place; returns whether there were any.

        Args:
            version: greater than all before.
            changes: all since the version before.

        Raises:
            OSError: they cannot be read or written. What was written of them counts for nothing.
        """
        told: list[dict[str, Any]] = []
        room = INLINE_BYTES
        for change in changes:
            if not told:
                self._filesystem.create_dir(self._staging, recursive=True)
            size, inline = 0, None
            if change.kind == "file" and change.size <= room:
                inline = np.frombuffer(b"".join(change.pieces), np.uint8)
                size, room = inline.size, room - inline.size
            elif change.kind == "file":
                size = self._write(self._name(version, len(told)), change.pieces)
            told.append({"kind": change.kind, "path": change.path, "at": change.at, "size": size, "inline": inline})
        if told:
            self._write(self._name(version), [pack(told)])
        return bool(told)

    def take_in(self, upto: int) -> list[str]:
        """Let what waits count, up to a version, in order.

        Returns:
            Files that somebody else has changed there, so that rows could not be appended.

        Raises:
            OSError: something cannot be written; it waits on, with all after it.
        """
        odd: list[str] = []
        for version in self._versions():
            if version > upto:
                break
            with contextlib.suppress(FileNotFoundError):  # somebody else has taken it in
                told = unpack(b"".join(self._read(self._name(version))))
                odd += [change["path"] for n, change in enumerate(told) if not self._do(self._name(version, n), change)]
                self._filesystem.delete_file(self._name(version))
        return odd

    def clear(self) -> None:
        """Drop all that waits; raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_dir(self._staging)

    def fetch(self, into: Path, refused: Callable[[str], str]) -> list[str]:
        """Copy the run folder's files.

        Args:
            into: an empty folder of this machine.
            refused: of a path in the run folder, why it is not copied; empty where it is.

        Returns:
            Paths that may not be read: links lead out of what is served there.

        Raises:
            OSError: others cannot be read, or this machine's disk does not take them.
        """
        waiting, closed = [""], list[str]()
        while waiting:
            folder = waiting.pop()
            here = pafs.FileSelector(f"{self._run_dir}/{folder}".rstrip("/"), allow_not_found=True)
            try:
                infos = self._filesystem.get_file_info(here)
            except PermissionError:
                if not folder:
                    raise
                closed.append(folder)
                continue
            (into / folder).mkdir(exist_ok=True)
            for info in infos:
                path = f"{folder}/{info.base_name}".lstrip("/")
                if refused(path):
                    continue
                if info.type == pafs.FileType.Directory:
                    waiting.append(path)
                elif info.type == pafs.FileType.File and not self._copied(path, into / path):
                    closed.append(path)
        return closed

    def _copied(self, path: str, to: Path) -> bool:
        """Copy a file of the run folder; False if it may not be read."""
        try:
            pieces = self._read(f"{self._run_dir}/{path}")
            first = next(pieces, b"")
        except PermissionError:
            return False
        with to.open("wb") as file:
            file.write(first)
            file.writelines(pieces)
        return True

    # -- one change ---------------------------------------------------------------------------------------------------

    def _do(self, staged: str, change: Mapping[str, Any]) -> bool:
        """Do one change, unless it is done; False if the file is not as it was when rows were added to it."""
        path = f"{self._run_dir}/{change['path']}"
        if change["kind"] == "folder":
            self._filesystem.create_dir(path, recursive=True)
        elif change["kind"] == "gone":
            self._remove(path)
        elif change["at"]:
            return self._append(path, staged, change)
        else:
            if change["inline"] is not None:
                self._write(staged, [change["inline"]])
            self._move(staged, path)
        return True

    def _remove(self, path: str) -> None:
        """Remove a file, or a folder that nothing is left in: the run's own files may lie there, too."""
        with contextlib.suppress(FileNotFoundError):
            kind = self._filesystem.get_file_info(path).type
            if kind == pafs.FileType.File:
                self._filesystem.delete_file(path)
            elif kind == pafs.FileType.Directory and not self._filesystem.get_file_info(pafs.FileSelector(path)):
                self._filesystem.delete_dir(path)

    def _move(self, staged: str, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # it has been moved
            try:
                self._filesystem.move(staged, path)
            except FileNotFoundError:  # or somebody has removed the folder
                self._filesystem.create_dir(path.rpartition("/")[0], recursive=True)
                self._filesystem.move(staged, path)

    def _append(self, path: str, staged: str, change: Mapping[str, Any]) -> bool:
        about = self._filesystem.get_file_info(path)
        done = -1 if about.size is None else about.size - change["at"]
        if not 0 <= done <= change["size"]:
            return False
        if done == change["size"]:
            return True
        inline = change["inline"]
        pieces = _without(done, self._read(staged) if inline is None else iter([inline.tobytes()]))
        with self._filesystem.open_append_stream(path, compression=None) as stream:
            for piece in pieces:
                stream.write(piece)
        return True

    # -- files --------------------------------------------------------------------------------------------------------

    def _name(self, version: int, number: int | None = None) -> str:
        """Where a version's changes lie, or the bytes of one of them."""
        return f"{self._staging}/{version:0{_DIGITS}x}{'' if number is None else f'.{number}'}"

    def _versions(self) -> list[int]:
        found = self._filesystem.get_file_info(pafs.FileSelector(self._staging, allow_not_found=True))
        return sorted(int(info.base_name, 16) for info in found if len(info.base_name) == _DIGITS)

    def _write(self, path: str, pieces: Iterable[Any]) -> int:
        """Write a file; returns how many bytes."""
        with self._filesystem.open_output_stream(path, compression=None) as stream:
            for piece in pieces:
                stream.write(piece)
            return int(stream.tell())

    def _read(self, path: str) -> Iterator[bytes]:
        """A file's bytes in pieces; raises OSError."""
        with self._filesystem.open_input_stream(path, compression=None) as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece


def _without(count: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces without the first `count` bytes."""
    for piece in pieces:
        yield piece[count:]
        count = max(0, count - len(piece))
