"""The driver's disk as a file system of pyarrow: ``driver:///absolute/path``.

Everything that reads or writes files elsewhere does so by `pyarrow.fs`, so the driver's disk is one of those, and no
other part has to know of it. Bytes travel in pieces, as objects of Ray: a writer puts a piece into shared memory, hands
over its reference, and waits for the oldest when two are under way, so that a large file never fills the memory that
Ray shares; a reader asks for the next piece while one is used. What lies in that memory is mostly pieces that are read
already (`served.PIECE_BYTES`).

What was not done: pushing data to all machines before the first step (a machine reads what its workers' rows lie in,
ahead of them), and sending through a tree of machines (each byte leaves the driver's once per machine; that is counted
by `scripts/benchmarks/reach.py`).
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from pyarrow import fs

from .disk import LIMIT_S, Disk, fetched
from .served import PIECE_BYTES, SCHEME, Found

UNDER_WAY = 2
_TYPES = {"file": fs.FileType.File, "folder": fs.FileType.Directory, "nothing": fs.FileType.NotFound}


def filesystem(disk: Disk) -> fs.FileSystem:
    """The driver's disk for pyarrow; paths are the driver's."""
    return fs.PyFileSystem(DriverFiles(disk))


class DriverWriter(io.RawIOBase):
    """A file on the driver's disk, written to its end; it is on the disk when it is closed.

    Memory of more than a piece goes into Ray's as it is, without another copy.

    Args:
        disk: the driver's.
        path: of the file.
        at: where to begin, at the end of a file that is there; 0 for a new one.
    """

    def __init__(self, disk: Disk, path: str, at: int = 0) -> None:
        self._disk, self._path = disk, path
        self._pending = bytearray()
        self._offset = at
        self._under_way: deque[ray.ObjectRef] = deque()
        if not at:
            self._send(np.empty(0, np.uint8))  # there from now on, as a file that is opened is

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:  # Any: a buffer, which has a type from Python 3.12 on
        """Take bytes, and wait while two pieces are under way; raises OSError, also for those before."""
        view = memoryview(data).cast("B")
        rest = view
        while len(self._pending) + len(rest) >= PIECE_BYTES:
            if self._pending:
                num_bytes = PIECE_BYTES - len(self._pending)
                self._pending += rest[:num_bytes]
                self._send(np.frombuffer(self._pending, np.uint8))
                self._pending = bytearray()
            else:
                num_bytes = PIECE_BYTES
                self._send(np.frombuffer(rest[:num_bytes], np.uint8))
            rest = rest[num_bytes:]
        self._pending += rest
        return len(view)

    def tell(self) -> int:
        """Bytes of the file so far."""
        return self._offset + len(self._pending)

    def close(self) -> None:
        """Wait until all is on the driver's disk; raises OSError."""
        if self.closed:
            return
        try:
            if self._pending:
                self._send(np.frombuffer(self._pending, np.uint8))
            while self._under_way:
                fetched(self._under_way.popleft(), None)
            fetched(self._disk.asked("sync", self._path), None)
        finally:
            super().close()

    def _send(self, piece: np.ndarray) -> None:
        while len(self._under_way) >= UNDER_WAY:
            fetched(self._under_way.popleft(), None)
        is_first = self._offset == 0 and not piece.size
        self._under_way.append(self._disk.asked("write", self._path, self._offset, ray.put(piece), is_first=is_first))
        if is_first:
            fetched(self._under_way.popleft(), None)  # else the next piece could come before
        self._offset += piece.size


class DriverReader(io.RawIOBase):
    """A file on the driver's disk, read anywhere in it; what follows is asked for ahead where it is read in order."""

    def __init__(self, disk: Disk, path: str, num_bytes: int) -> None:
        self._disk, self._path, self._num_bytes = disk, path, num_bytes
        self._at = self._end = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._num_bytes}[whence]
        return self._at

    def tell(self) -> int:
        """The place."""
        return self._at

    def size(self) -> int:
        """Bytes of the file."""
        return self._num_bytes

    def read(self, count: int | None = -1) -> bytes:
        """Up to so many bytes (-1, None: all) from here on, fewer at the end of the file; raises OSError."""
        rest = max(0, self._num_bytes - self._at)
        count = rest if count is None or count < 0 else min(count, rest)
        return b"".join(self._pieces(count))

    def _pieces(self, count: int) -> Sequence[bytes]:
        asked: deque[ray.ObjectRef] = deque()
        pieces, requested, came = [], 0, 0
        while came < count:
            while requested < count and len(asked) < UNDER_WAY:
                num_bytes = min(PIECE_BYTES, count - requested)
                asked.append(self._disk.asked("read", self._path, self._at + requested, num_bytes))
                requested += num_bytes
            piece = fetched(asked.popleft(), LIMIT_S)
            pieces.append(piece.tobytes())
            came += min(PIECE_BYTES, count - came)
            if piece.size == 0:
                break
        self._at += sum(map(len, pieces))
        return pieces


class DriverFiles(fs.FileSystemHandler):
    """What pyarrow asks of a file system, on the driver's disk. Everything raises OSError."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DriverFiles) and self.disk.id == other.disk.id

    def __hash__(self) -> int:
        return hash(self.disk.id)

    def get_type_name(self) -> str:  # noqa: D102
        return SCHEME

    def normalize_path(self, path: str) -> str:  # noqa: D102
        return path

    def get_file_info(self, paths: Sequence[str]) -> list[fs.FileInfo]:  # noqa: D102
        return [_info(found) for found in self.disk.call("info", list(paths))]

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:  # noqa: D102
        try:
            return [_info(found) for found in self.disk.call("list", selector.base_dir, is_deep=selector.recursive)]
        except (FileNotFoundError, NotADirectoryError):
            if selector.allow_not_found:
                return []
            raise

    def create_dir(self, path: str, recursive: bool) -> None:  # noqa: D102
        del recursive  # those above it are made in any case
        self.disk.call("make_folder", path)

    def delete_dir(self, path: str) -> None:  # noqa: D102
        self.disk.call("remove_folder", path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:  # noqa: D102
        try:
            self.disk.call("remove_folder", path, keep=True)
        except FileNotFoundError:
            if not missing_dir_ok:
                raise

    def delete_root_dir_contents(self) -> None:
        """Never: the root of all is nobody's to empty."""
        raise PermissionError("the driver's disk is not emptied")

    def delete_file(self, path: str) -> None:  # noqa: D102
        self.disk.call("remove", path)

    def move(self, src: str, dest: str) -> None:  # noqa: D102
        self.disk.call("move", src, dest)

    def copy_file(self, src: str, dest: str) -> None:  # noqa: D102
        self.disk.call("copy", src, dest)

    def open_input_stream(self, path: str) -> pa.NativeFile:  # noqa: D102
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pa.NativeFile:  # noqa: D102
        (found,) = self.disk.call("info", [path])
        if found.kind != "file":
            error = IsADirectoryError if found.kind == "folder" else FileNotFoundError
            raise error(f"driver://{path}: there is {found.kind}, and no file")
        return pa.PythonFile(DriverReader(self.disk, path, found.num_bytes), mode="r")

    def open_output_stream(self, path: str, metadata: object = None) -> pa.NativeFile:  # noqa: D102
        del metadata
        return pa.PythonFile(DriverWriter(self.disk, path), mode="w")

    def open_writer(self, path: str) -> DriverWriter:
        """A new file, for large memory: what is written to it is not copied on its way, as pyarrow's streams do."""
        return DriverWriter(self.disk, path)

    def open_append_stream(self, path: str, metadata: object = None) -> pa.NativeFile:
        """The file's end as it is now: whatever somebody else appends meanwhile is written over."""
        del metadata
        (found,) = self.disk.call("info", [path])
        return pa.PythonFile(DriverWriter(self.disk, path, found.num_bytes), mode="w")


def _info(found: Found) -> fs.FileInfo:
    kind = _TYPES.get(found.kind, fs.FileType.Unknown)
    if kind == fs.FileType.NotFound:
        return fs.FileInfo(found.path, kind)
    changed = datetime.fromtimestamp(found.changed_ns / 1e9, UTC)
    size = found.num_bytes if found.kind == "file" else None
    return fs.FileInfo(found.path, kind, mtime=changed, size=size)
