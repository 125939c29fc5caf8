"""Text files as blocks of whole rows: packed or not, a bounded number of bytes at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from ..errors import SourceError

MAX_ROW_BYTES = 1 << 28
"""A larger row is refused: a small packed file may hold one without end."""
_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def blocks(path: Path, what: str, block_bytes: int, end: Callable[[bytes], int]) -> Iterator[tuple[bytes, int]]:
    """Whole rows of a file, unpacked as its ending says, and the bytes of the file that were read up to their end.

    Args:
        path: The file.
        what: What it is read as, for errors.
        block_bytes: About so many bytes at once; a larger row is read whole.
        end: Where the last whole row of some bytes ends that begin with a row; 0 if there is no end.

    Raises SourceError.
    """
    try:
        with pa.OSFile(str(path)) as raw:
            codec = _CODECS.get(path.suffix.lower())
            stream = raw if codec is None else pa.CompressedInputStream(raw, codec)
            rest = stream.read(max(block_bytes, len(_BYTE_ORDER_MARK))).removeprefix(_BYTE_ORDER_MARK)
            while data := stream.read(max(block_bytes, len(rest))):
                length = end(rest)
                if length:
                    yield rest[:length], raw.tell()
                rest = rest[length:] + data
                if len(rest) > max(MAX_ROW_BYTES, 2 * block_bytes) and not end(rest):
                    raise SourceError(
                        f"{path} has a line of more than {MAX_ROW_BYTES} bytes, which is no {what}. Probably a "
                        "quotation mark or a line break is missing.",
                        path=path,
                    )
            if end(rest + b"\n") <= len(rest):
                raise SourceError(f"{path} cannot be read as {what}: it ends inside of quotation marks.", path=path)
            if rest:
                yield rest, raw.tell()
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path} cannot be read as {what}: {error}", path=path) from error
