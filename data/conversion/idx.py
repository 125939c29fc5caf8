"""IDX files, the format of MNIST and Fashion-MNIST (layout: yann.lecun.com/exdb/mnist, "the IDX file format")."""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import SourceError

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_RATIO = 1032  # nothing that gzip compresses becomes smaller than by this
_MAX_DIMENSIONS = 16


def read_idx(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """The array in an IDX file, plain or compressed with gzip, in native byte order.

    Raises SourceError if the file is missing, damaged, or not IDX. Its header is believed as far as a file of that
    size can hold what it announces, and no more than that is read.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with _opened(path) as file:
            dtype, shape = _header(file, path)
            expected = math.prod(shape) * dtype.itemsize
            most = size if isinstance(file, io.BufferedReader) else size * _GZIP_RATIO
            data = b"" if expected > most else file.read(expected)
            if len(data) != expected or file.read(1):
                raise _another_length(path, dtype, shape)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{path} is a damaged gzip file ({error}): download it again.", path=path) from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", path=path) from error
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _opened(path: Path) -> io.BufferedReader | gzip.GzipFile:
    with open(path, "rb") as file:
        is_gzip = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return gzip.open(path) if is_gzip else open(path, "rb")


def _header(file: io.BufferedReader | gzip.GzipFile, path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Dtype (big-endian) and shape of the array that follows."""
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _DTYPES or not 1 <= start[3] <= _MAX_DIMENSIONS:
        raise SourceError(
            f"{path} is not an IDX file: it starts with {start.hex(' ') or 'nothing'}, IDX starts with 00 00, a type, "
            f"and the number of dimensions (1 to {_MAX_DIMENSIONS}).",
            path=path,
        )
    sizes = file.read(4 * start[3])
    if len(sizes) < 4 * start[3]:
        raise SourceError(f"{path} ends within its header: it was cut short.", path=path)
    return np.dtype(_DTYPES[start[2]]), struct.unpack(f">{start[3]}I", sizes)


def _another_length(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> SourceError:
    return SourceError(
        f"{path} does not hold what its header announces: {dtype.newbyteorder('=').name} of shape {shape}. It was "
        "probably cut short: download it again.",
        path=path,
    )
