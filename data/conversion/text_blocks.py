"""Text files in blocks of whole rows, which are the same when the file is read again.

Files are cut into blocks here and not by Arrow, whose readers infer the types of every block anew. Packed files are
unpacked while they are read; since a small one may hold a line without end, the length of a row has a bound.

The first reading keeps where each block ends and its hash (16 bytes for megabytes), so the second one need neither look
for the ends of rows nor check again what was checked: text that would end the process where it is parsed, say. A file
that changed in between is refused by the hash, not parsed.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import xxhash

from ..errors import SourceError

MAX_ROW_BYTES = 1 << 28
"""A larger row is refused: a small packed file may hold one without end."""
_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class TextBlocks:
    """The whole rows of a file, unpacked as its ending says.

    Args:
        path: The file.
        what: What it is read as, for errors.
        block_bytes: About so many bytes at once; a larger row is read whole.
        end: Where the last whole row of some bytes ends that begin with a row; 0 if there is no end.

    Raises SourceError.
    """

    def __init__(self, path: Path, what: str, block_bytes: int, end: Callable[[bytes], int]) -> None:
        self._path, self._what, self._block_bytes, self._end = path, what, block_bytes, end
        self._mark_bytes = 0
        self._lengths, self._hashes = array("Q"), array("Q")

    def first(self) -> Iterator[bytes]:
        """The blocks, which are noted: those of the first reading that goes to the end."""
        self._lengths, self._hashes = array("Q"), array("Q")
        for block in self._cut():
            self._lengths.append(len(block))
            self._hashes.append(xxhash.xxh3_64_intdigest(block))
            yield block

    def again(self) -> Iterator[bytes]:
        """The blocks as they were noted; raises SourceError if the file holds something else now."""
        with self._opened() as stream:
            stream.read(self._mark_bytes)
            for length, known in zip(self._lengths, self._hashes, strict=True):
                block = stream.read(length)
                if len(block) != length or xxhash.xxh3_64_intdigest(block) != known:
                    raise self._changed()
                yield block
            if stream.read(1):
                raise self._changed()

    def _cut(self) -> Iterator[bytes]:
        with self._opened() as stream:
            start = stream.read(max(self._block_bytes, len(_BYTE_ORDER_MARK)))
            rest = start.removeprefix(_BYTE_ORDER_MARK)
            self._mark_bytes = len(start) - len(rest)
            while data := stream.read(max(self._block_bytes, len(rest))):
                length = self._end(rest)
                if length:
                    yield rest[:length]
                rest = rest[length:] + data
                if len(rest) > max(MAX_ROW_BYTES, 2 * self._block_bytes) and not self._end(rest):
                    raise SourceError(
                        f"{self._path} has a line of more than {MAX_ROW_BYTES} bytes, which is no {self._what}. "
                        "Probably a quotation mark or a line break is missing.",
                        path=self._path,
                    )
            if self._end(rest + b"\n") <= len(rest):
                raise SourceError(
                    f"{self._path} cannot be read as {self._what}: it ends inside of quotation marks.", path=self._path
                )
            if rest:
                yield rest

    @contextmanager
    def _opened(self) -> Iterator[pa.NativeFile]:
        try:
            with pa.OSFile(str(self._path)) as raw:
                codec = _CODECS.get(self._path.suffix.lower())
                yield raw if codec is None else pa.CompressedInputStream(raw, codec)
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{self._path} cannot be read as {self._what}: {error}", path=self._path) from error

    def _changed(self) -> SourceError:
        return SourceError(
            f"{self._path} was changed while it was read. Convert it again when nobody writes to it.", path=self._path
        )
