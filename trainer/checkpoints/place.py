"""A place where checkpoints lie: a folder on any file system of ``pyarrow.fs``, and what its errors say.

A location may hold credentials, and so may the texts of a file system's errors: no message shows them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.fs as pafs
from heliostat.data.remote.filesystem import hide, is_uri, opened_here, shown_uri

from ..errors import CheckpointError, DamagedCheckpointError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOST = (errno.ENOENT, errno.ENOTDIR, errno.EIO)


def shown_place(location: str) -> str:
    """A place of checkpoints without credentials, for messages."""
    return shown_uri(location) if is_uri(location) else location


class Place:
    """A folder that need not exist yet.

    Attributes:
        location: as it was given, a local path made absolute.
        shown: the same without credentials, for messages.
        filesystem: where it is.
        root: its path there.

    Args:
        location: a local path, or a URI for ``pyarrow.fs.FileSystem.from_uri`` (s3://, gs://, hdfs://, file://).

    Raises:
        CheckpointError: there is no such file system, it cannot be reached, or the location is a file.
    """

    def __init__(self, location: str | Path) -> None:
        text = os.fspath(location)
        self._is_uri = is_uri(text)
        self.location = text if self._is_uri else str(Path(text).expanduser().absolute())
        self.shown = shown_place(self.location)
        try:
            if self._is_uri:
                self.filesystem, root = opened_here(self.location) or pafs.FileSystem.from_uri(self.location)
            else:
                self.filesystem, root = pafs.LocalFileSystem(), self.location
            self.root = root.rstrip("/")
            kind = self.filesystem.get_file_info(root).type
        except (OSError, pa.ArrowException) as error:
            raise CheckpointError(
                f"Checkpoints cannot be kept at {self.shown}: {self._hidden(str(error))} "
                "Give a local path or a URI that pyarrow can open, with the credentials it needs."
            ) from None  # the cause's text may hold credentials
        if kind == pafs.FileType.File:
            raise CheckpointError(f"Checkpoints cannot be kept at {self.shown}: it is a file. Give a folder.")

    @property
    def is_local(self) -> bool:
        """Whether it is on a disk of this machine, as far as the location tells."""
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def below(self, folder: str) -> str:
        """The location of a folder in this one."""
        if not self._is_uri:
            return str(Path(self.location) / folder)
        place, *options = self.location.split("?", 1)  # a URI's options stand behind its path
        return "?".join([f"{place.rstrip('/')}/{folder}", *options])

    def opened_to_write(self, path: str) -> IO[bytes]:
        """A new file. One on the driver's disk takes memory as it is: pyarrow's streams copy it on its way."""
        handler = getattr(self.filesystem, "handler", None)
        opened = getattr(handler, "open_writer", None)
        found: IO[bytes] = (
            self.filesystem.open_output_stream(path, compression=None) if opened is None else opened(path)
        )
        return found

    def flush(self, path: str) -> None:
        """Put a local file on the disk; object stores have done so on closing."""
        if self.is_local:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @contextmanager
    def errors(self, verb: str, *names: str) -> Iterator[None]:
        """Turn what a file system raises into a CheckpointError."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            number = getattr(error, "errno", None)
            # What is gone or cannot be read any more is damaged; what may not be read now, or not be reached, is not.
            lost = verb == "read" and (number in _LOST or isinstance(error, FileNotFoundError))
            hint = " The storage is full or a limit is reached: make room." if number in _FULL else ""
            hint += " Earlier checkpoints are as they were." if verb == "write" else ""
            reason = f"{os.strerror(number)} (errno {number})" if number else str(error)
            text = self._hidden(reason)
            raise (DamagedCheckpointError if lost else CheckpointError)(
                f"Cannot {verb} {'/'.join((self.shown, *names))}: {text}.{hint}"
            ) from (error if text == reason else None)

    def _hidden(self, text: str) -> str:
        """A text of a file system without the credentials of the location."""
        return hide(text, self.location) if self._is_uri else text
