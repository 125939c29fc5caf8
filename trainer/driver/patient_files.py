"""Files of one folder that are written when they can be: what a full or forbidden disk refuses waits in memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from heliostat.data.format.files import replace_file

from ..errors import StorageError
from .lease import Lease


class PatientFiles:
    """Writes files of a folder. What cannot be written waits, and is written with what comes next for the same file.

    Attributes:
        lease: without which nothing is written; None if that is not asked for.

    Args:
        folder: where; it need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.lease: Lease | None = None
        self._waiting: dict[str, tuple[bool, bytes]] = {}  # by file: whether it is to be written anew, and what
        self._errors_wait = False

    def write(self, name: str, content: bytes, *, anew: bool) -> None:
        """Append whole lines to a file, or write it anew.

        Args:
            name: of the file.
            content: what to write.
            anew: whether it replaces what is there, and what waits.

        Raises:
            StorageError: it cannot be written now.
            LeaseLostError: it may not be written any more.
        """
        self.check_lease()
        if not anew:
            anew, before = self._waiting.pop(name, (False, b""))
            content = before + content
        try:
            if anew:
                replace_file(self._folder / name, content)
            else:
                _append(self._folder / name, content)
        except OSError as error:
            self._waiting[name] = anew, content
            if not self._errors_wait:
                raise StorageError(self._folder / name, error) from error
        else:
            self._waiting.pop(name, None)

    def check_lease(self) -> None:
        """Raise LeaseLostError if the folder is another driver's now."""
        if self.lease is not None:
            self.lease.check()

    @contextlib.contextmanager
    def all_tried(self) -> Iterator[None]:
        """In the block a file that cannot be written keeps no other from being written; all that waits is tried again.

        Raises:
            StorageError: at the end of the block, for the first file that still cannot be written.
        """
        self._errors_wait = True
        try:
            yield
        finally:
            self._errors_wait = False
        first: StorageError | None = None
        for name in list(self._waiting):
            try:
                self.write(name, b"", anew=False)
            except StorageError as error:
                first = first or error
        if first is not None:
            raise first


def _append(path: Path, content: bytes) -> None:
    """Append all of it, or nothing; a line in the middle of which somebody was stopped does not take it up."""
    with path.open("ab+", buffering=0) as file:
        size = file.tell()
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            content = b"\n" + content
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                file.truncate(size)
            raise
