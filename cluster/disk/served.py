"""What the driver's machine lets other machines do with its disk: read and write below a few folders, the roots.

A worker's process runs the user's code, and others of the cluster may call an actor whose name they know. So nothing
is served but what the run needs, and paths are believed as little as those of a web server: each is resolved, with all
symbolic links in it, and what it then is must lie below a root; only some roots can be written to. Errors are those of
the operating system, with their numbers, so that "not found" and "disk full" mean far away what they mean here.

What was not done: descriptors that stay open between calls (whoever opened one may be gone, and nobody would close it;
opening a file takes microseconds, a call a millisecond), and locks (the driver decides who writes what).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

# The file in a root that tells which disk it is on.
TOKEN = ".heliostat-driver"
# Of URIs of the driver's disk.
SCHEME = "driver"
# In pieces of so many bytes files are read, and go to the driver's disk and from it. Ray takes away what nobody refers
# to any more a hundred objects at a time, or once a second: so a fast disk has a hundred pieces in the memory that Ray
# shares, beside those under way. With 4 MB that was 445 MB; 2 MB take a fourth more of processor time.
PIECE_BYTES = 2 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A folder, or a file, of the driver's that is served.

    Attributes:
        path: absolute.
        is_writable: whether others may change what is below it. Such a root has a token (`TOKEN`), by which a machine
            that has the same folder at the same path finds that out.
    """

    path: str
    is_writable: bool = False

    def holds(self, path: str) -> bool:
        """Whether a path is the root or below it, by its name."""
        return path == self.path or path.startswith(self.path.rstrip("/") + "/")


class Found(NamedTuple):
    """What lies at a path: "file", "folder", "other" or "nothing"; bytes, and when it was changed, of files."""

    path: str
    kind: str
    num_bytes: int = 0
    changed_ns: int = 0


class ServedDisk:
    """Files and folders below some roots. Everything raises OSError; PermissionError outside of the roots.

    All that it knows are its roots. The driver keeps them, too, so that Ray can start another process in place of one
    that has died (`disk.start_disk`), which then serves what that one has served.

    Args:
        memo: a file in which the driver keeps them, as JSON.
    """

    def __init__(self, memo: str) -> None:
        self._roots = _remembered(memo)  # never changed in place: others read it meanwhile

    def serve(self, roots: Sequence[Root], token: str) -> tuple[str, str] | None:
        """Serve these roots from now on and no others; those that can be written to have this token.

        Returns:
            A path that hinders it, and why: then all stays as it was. Else None.
        """
        for root in roots:
            try:
                if root.is_writable and Path(root.path, TOKEN).read_text() != token:
                    return root.path, "another folder is there"
                os.stat(root.path)
            except OSError as error:
                return root.path, error.strerror or str(error)
        self._roots = tuple(roots)
        return None

    def info(self, paths: Sequence[str]) -> list[Found]:
        """What lies at these paths."""
        return [_found(path, self._real(path)) for path in paths]

    def list(self, folder: str, *, is_deep: bool) -> list[Found]:
        """What is in a folder, with `is_deep` also below it; links to folders are not gone into."""
        real, found = self._real(folder), []
        for base, folders, files in os.walk(real, onerror=_raise):
            shown = folder.rstrip("/") + base[len(real) :]
            found += [_found(f"{shown}/{name}", f"{base}/{name}") for name in sorted(folders + files)]
            if not is_deep:
                break
        return found

    def read(self, path: str, offset: int, count: int) -> np.ndarray:
        """Up to `count` bytes of a file from `offset` on, uint8; fewer at its end."""
        with open(self._real(path), "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            piece = np.empty(max(0, min(count, size - offset)), np.uint8)
            memory, done = memoryview(piece.data), 0
            while done < len(piece) and (got := os.preadv(file.fileno(), [memory[done:]], offset + done)):
                done += got
        return piece[:done]

    def write(self, path: str, offset: int, piece: np.ndarray, *, is_first: bool) -> None:
        """Write bytes at `offset`; `is_first` makes the file anew, or empties it."""
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if is_first else 0)
        descriptor = os.open(self._real(path, writes=True), flags, 0o644)
        try:
            rest = memoryview(np.ascontiguousarray(piece).data).cast("B")
            while rest:
                written = os.pwrite(descriptor, rest, offset)
                rest, offset = rest[written:], offset + written
        finally:
            os.close(descriptor)

    def sync(self, path: str) -> None:
        """Wait until the bytes of a file are on the disk."""
        descriptor = os.open(self._real(path, writes=True), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_folder(self, path: str) -> None:
        """Make a folder and those above it, unless they are there."""
        os.makedirs(self._real(path, writes=True), exist_ok=True)

    def remove(self, path: str) -> None:
        """Delete a file, or a link."""
        folder, name = os.path.split(path)
        os.unlink(os.path.join(self._real(folder, writes=True), name))

    def remove_folder(self, path: str, *, keep: bool = False) -> None:
        """Delete a folder and all in it; with `keep` only what is in it. A root itself stays."""
        real = self._real(path, writes=True)
        if keep or any(real == os.path.realpath(root.path) for root in self._roots):
            for each in os.scandir(real):
                shutil.rmtree(each.path) if each.is_dir(follow_symlinks=False) else os.unlink(each.path)
        else:
            shutil.rmtree(real)

    def move(self, source: str, target: str) -> None:
        """Rename a file or folder; a file at the target is replaced at once."""
        os.replace(self._real(source, writes=True), self._real(target, writes=True))

    def copy(self, source: str, target: str) -> None:
        """Copy a file."""
        shutil.copyfile(self._real(source), self._real(target, writes=True))

    def _real(self, path: str, *, writes: bool = False) -> str:
        """Where a path leads to; raises PermissionError unless that is below a root, which can be written to."""
        real = os.path.realpath(path)
        for root in self._roots:
            if (root.is_writable or not writes) and Root(path=os.path.realpath(root.path)).holds(real):
                return real
        may = "written to" if writes else "read"
        raise PermissionError(
            errno.EACCES, f"The driver lets workers reach its run folder and data; {may} may not be", path
        )


def as_memo(roots: Sequence[Root]) -> bytes:
    """Roots as the driver keeps them."""
    return json.dumps([asdict(root) for root in roots]).encode()


def _remembered(memo: str) -> tuple[Root, ...]:
    """The roots in a file; none where it cannot be read, or nothing was ever served."""
    try:
        found = Path(memo).read_bytes()
    except OSError:
        return ()
    return tuple(Root(**root) for root in json.loads(found or b"[]"))


def _found(path: str, real: str) -> Found:
    try:
        status = os.stat(real)
    except (FileNotFoundError, NotADirectoryError):
        return Found(path, "nothing")
    if os.path.isfile(real):
        return Found(path, "file", status.st_size, status.st_mtime_ns)
    return Found(path, "folder" if os.path.isdir(real) else "other", 0, status.st_mtime_ns)


def _raise(error: OSError) -> None:
    raise error
