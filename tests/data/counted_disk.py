"""The disk of another machine, for tests: a folder of this one behind a scheme of its own, whose reads are noted.

What is read is noted in a file, so that reads of several processes are counted together. While a file `hold` lies
beside it, reads wait after they were noted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from heliostat.data.remote.filesystem import open_with
from pyarrow import fs

SCHEME = "counted"


class CountedDisk(fs.FileSystemHandler):
    """Reads files below `root` under the paths that they have in it."""

    def __init__(self, root: Path, log: Path) -> None:
        self.base, self.log = fs.SubTreeFileSystem(str(root), fs.LocalFileSystem()), log
        self.hold = log.with_name("hold")

    def get_type_name(self):
        return SCHEME

    def normalize_path(self, path):
        return path

    def get_file_info(self, paths):
        return self.base.get_file_info(paths)

    def get_file_info_selector(self, selector):
        return self.base.get_file_info(selector)

    def open_input_file(self, path):
        return pa.PythonFile(_CountedFile(self, path), mode="r")

    def open_input_stream(self, path):
        return self.open_input_file(path)

    def note(self, path: str, count: int) -> None:
        with open(self.log, "a") as file:  # one write of a short line is one piece
            file.write(f"{count} {path}\n")
        while self.hold.exists():
            time.sleep(0.01)

    def _refuse(self, *arguments):
        raise OSError(30, "Read-only file system")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = move = copy_file = _refuse
    open_output_stream = open_append_stream = _refuse


class _CountedFile:
    def __init__(self, disk: CountedDisk, path: str) -> None:
        self._disk, self._path, self._file, self.closed = disk, path, disk.base.open_input_file(path), False

    def read(self, count=None):
        found = self._file.read(count)
        self._disk.note(self._path, len(found))
        return found

    def seek(self, offset, whence=0):
        return self._file.seek(offset, whence)

    def tell(self):
        return self._file.tell()

    def size(self):
        return self._file.size()

    def readable(self):
        return True

    def close(self):
        self.closed = True
        self._file.close()

    def flush(self):
        pass


def mounted(root: Path, log: Path) -> Callable[[str], str]:
    """Open the scheme in this process; the URI of a path."""
    log.touch()
    open_with(SCHEME, lambda: fs.PyFileSystem(CountedDisk(root, log)))
    return lambda path: f"{SCHEME}://{path}"


def bytes_read(log: Path) -> dict[str, int]:
    """Bytes that all processes have read so far, by path."""
    found: dict[str, int] = {}
    for line in log.read_text().splitlines():
        count, _, path = line.partition(" ")
        found[path] = found.get(path, 0) + int(count)
    return found
