"""What has changed in a folder since a copy of it was last like it: the folder in which the chief's callbacks work.

**The idea.** The chief looks at its folder after every hook that may have written. A file whose size, times and number
on the disk are as before is not opened. One that has changed is read once, from its beginning: if it still begins with
all that the copy has, by a hash of that, only the rest travels; so rows of a CSVLogger and events of a TensorBoard cost
what is new of them, and nobody has to say which files are appended to. All else travels whole. What was looked at
counts once the copy has it (`keep`): what could not be sent is found again the next time.

Times of files have steps of some milliseconds, so that a file can change twice within one. As version control does, a
file that was changed just before it was looked at is read again the next time.

**What was not done.** Watching by the kernel's word (inotify): it forgets events when there are many, and sees nothing
of network disks. Sending only the pieces of a file that differ, as rsync does: Keras writes its files anew.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import xxhash
from heliostat.cluster.disk.served import PIECE_BYTES

_RACY_NS = 100_000_000  # a file changed so shortly before it was looked at may change again unseen
_Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What makes a copy of the folder like it again, for one path.

    Attributes:
        kind: "file": these are the bytes from `at` on, the file ends with them; "folder": it is there; "gone": neither.
        path: relative to the folder, with slashes.
        at: how many bytes of the file the copy has.
        pieces: the bytes; to be read once, to the end, before the next change is asked for.
        size: how many bytes they were when they were counted.
    """

    kind: Literal["file", "folder", "gone"]
    path: str
    at: int = 0
    pieces: Iterator[bytes] = field(default_factory=lambda: iter(()))
    size: int = 0


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it was read: see `_stamp_of`; all its bytes; whether a later change must show in the stamp."""

    stamp: _Stamp
    size: int
    digest: bytes
    is_sure: bool


class WatchedFolder:
    """A folder, and what a copy of it has.

    Attributes:
        left_out: paths that no copy can be made of, and why.

    Args:
        root: the folder; a copy has nothing of it.
        refused: of a path in it, why no copy is made of it; empty where one is.
    """

    def __init__(self, root: Path, refused: Callable[[str], str] = lambda path: "") -> None:
        self._root, self._refused = root, refused
        self._files: Mapping[str, _Seen] = {}
        self._folders: frozenset[str] = frozenset()
        self._next: tuple[Mapping[str, _Seen], frozenset[str]] = self._files, self._folders
        self.left_out: dict[str, str] = {}

    def changes(self) -> Iterator[Change]:
        """What has changed, in the order in which it must be done to the copy; raises OSError.

        Files that are being written may be in it as they are at the moment; they are found changed again then.
        """
        files, folders = self._look()
        seen: dict[str, _Seen] = {}
        self._next = seen, frozenset(folders)
        for path in sorted(set(self._files) - set(files)):
            yield Change("gone", path)
        for path in sorted(self._folders - folders, reverse=True):  # what is inside of another goes first
            yield Change("gone", path)
        for path in sorted(folders - self._folders):
            yield Change("folder", path)
        for path, stamp in sorted(files.items()):
            before = self._files.get(path)
            if before is not None and before.is_sure and before.stamp == stamp:
                seen[path] = before
                continue
            try:
                file = (self._root / path).open("rb")
            except FileNotFoundError:  # gone since the folder was looked at
                if before is not None:
                    yield Change("gone", path)
                continue
            except OSError as error:
                self.left_out[path] = f"it cannot be opened: {error.strerror}"
                continue
            with file:
                yield from self._read(path, file, before, seen)

    def keep(self) -> None:
        """The copy has all that the last `changes` gave, which was read to its end."""
        self._files, self._folders = self._next

    def forget(self, path: str) -> None:
        """The copy may have something else in place of a file."""
        self._files = {each: seen for each, seen in self._files.items() if each != path}

    def _look(self) -> tuple[dict[str, _Stamp], set[str]]:
        """The files that are there now, by path, and the folders."""
        files: dict[str, _Stamp] = {}
        folders: set[str] = set()
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            try:
                entries = list(os.scandir(self._root / folder))
            except FileNotFoundError:
                continue
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                why = self._refused(path)
                if not why and entry.is_dir(follow_symlinks=False):
                    folders.add(path)
                    waiting.append(path)
                elif why := why or _add(files, path, entry):
                    self.left_out[path] = why
        return files, folders

    def _read(self, path: str, file: BinaryIO, before: _Seen | None, seen: dict[str, _Seen]) -> Iterator[Change]:
        """The change of a file that may have changed; notes what was read in `seen`."""
        about = os.fstat(file.fileno())
        is_sure = time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) > _RACY_NS
        digest, at = xxhash.xxh3_128(), 0
        is_new = before is None
        if before is not None:
            if about.st_size >= before.size:
                at = sum(len(piece) for piece in _hashed(file, before.size, digest))
            if at < before.size or digest.digest() != before.digest:
                file.seek(0)
                digest, at, is_new = xxhash.xxh3_128(), 0, True
        if is_new or at < about.st_size:
            yield Change("file", path, at, _hashed(file, about.st_size - at, digest), about.st_size - at)
        seen[path] = _Seen(_stamp_of(about), file.tell(), digest.digest(), is_sure)


def _add(files: dict[str, _Stamp], path: str, entry: os.DirEntry[str]) -> str:
    """Note a file; returns why it is left out, if it is."""
    try:
        path.encode()
        about = entry.stat()
    except UnicodeEncodeError:
        return "its name is no UTF-8"
    except FileNotFoundError:  # gone already, or a link to nothing
        return ""
    except OSError as error:  # a link to itself
        return f"it cannot be looked at: {error.strerror}"
    if stat.S_ISREG(about.st_mode):
        files[path] = _stamp_of(about)
        return ""
    return "it is a link to a folder" if stat.S_ISDIR(about.st_mode) else "it is no file"


def _stamp_of(about: os.stat_result) -> _Stamp:
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


def _hashed(file: BinaryIO, size: int, digest: xxhash.xxh3_128) -> Iterator[bytes]:
    """The next bytes of a file in pieces, `size` in all if it has them; each goes into the digest."""
    while size > 0 and (piece := file.read(min(size, PIECE_BYTES))):
        digest.update(piece)
        size -= len(piece)
        yield piece
