"""Zip archives whose bytes depend on nothing but the files' names, contents and whether they can be run.

They are named by their hash on a cluster, so that what is there already is not sent again.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

_WHEN = (1980, 1, 1, 0, 0, 0)
_LEVEL = 1  # most time goes into the network, and data are often compressed already
_UNIX = 3


def archive(files: Mapping[str, Path], piece_bytes: int) -> tuple[bytes, ...]:
    """A zip of files, cut into pieces; none without files.

    Args:
        files: where each lies, by its name in the zip, with slashes.
        piece_bytes: how large a piece may be.

    Raises:
        OSError: one cannot be read.
    """
    if not files:
        return ()
    pieces = _Pieces(piece_bytes)
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as made:
        for name in sorted(files):
            with files[name].open("rb") as source, made.open(_entry(name, source.fileno()), "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    return pieces.all()


def _entry(name: str, file: int) -> zipfile.ZipInfo:
    about = os.fstat(file)
    entry = zipfile.ZipInfo(name, _WHEN)
    entry.create_system = _UNIX
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (stat.S_IFREG | (0o755 if about.st_mode & stat.S_IXUSR else 0o644)) << 16
    entry.file_size = about.st_size  # tells whether 32 bits are enough
    return entry


class _Pieces(io.RawIOBase):
    """What is written, as bytes objects of one size, so that an archive is in memory once."""

    def __init__(self, size: int) -> None:
        self._size, self._full, self._open = size, list[bytes](), bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: Iterable[int]) -> int:  # type: ignore[override]  # bytes-like, whatever it is
        view = memoryview(content).cast("B")  # type: ignore[arg-type]
        self._open += view
        while len(self._open) >= self._size:
            self._full.append(bytes(self._open[: self._size]))
            del self._open[: self._size]
        return len(view)

    def all(self) -> tuple[bytes, ...]:
        """The pieces, the last one with the rest."""
        return (*self._full, *([bytes(self._open)] if self._open else []))
