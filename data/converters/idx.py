"""IDX files, the format of MNIST and Fashion-MNIST (layout: yann.lecun.com/exdb/mnist, "the IDX file format")."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from heliostat.data.errors import SourceError

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """The array in an IDX file, plain or compressed with gzip, in native byte order.

    Raises SourceError if the file is missing, damaged, or not IDX.
    """
    data = _read(Path(path))
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _DTYPES or data[3] < 1:
        raise SourceError(
            f"{path} is not an IDX file: it starts with {data[:4].hex(' ') or 'nothing'}, IDX "
            "starts with 00 00, a type, and the number of dimensions.",
            path=path,
        )
    dtype, num_dims = np.dtype(_DTYPES[data[2]]), data[3]
    header_bytes = 4 + 4 * num_dims
    if len(data) < header_bytes:
        raise SourceError(f"{path} ends after {len(data)} bytes, within its header: it was cut short.", path=path)
    shape = struct.unpack(f">{num_dims}I", data[4:header_bytes])
    expected = header_bytes + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise SourceError(
            f"{path} has {len(data)} bytes; its header announces {dtype.newbyteorder('=').name} of shape {shape}, "
            f"which makes {expected}. It was probably cut short: download it again.",
            path=path,
        )
    return np.frombuffer(data, dtype, offset=header_bytes).reshape(shape).astype(dtype.newbyteorder("="))


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", path=path) from error
    if not data.startswith(_GZIP_MAGIC):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} is a damaged gzip file ({error}): download it again.", path=path) from error
