"""Tensors as bytes: what a checkpoint says about each, and the file they stand in, in the safetensors format.

Why the format is written and read here, and not by the package safetensors: its `save_file` writes to a path, so that
an object store would need a temporary file as large as the state on the worker's disk, where this streams from the
arrays to the storage, without a second copy of the state and without the interpreter lock; and its numpy module writes
float8 but cannot load it (0.8.0), where this does every dtype that a Keras model or a callback may hold. The file is a
plain one: safetensors reads it (a test does), and its header follows from the manifest, so that reading is comparing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import xxhash

from ..errors import CheckpointError, DamagedCheckpointError

# numpy's name of a dtype: its code in a safetensors header.
DTYPE_CODES: Mapping[str, str] = {
    "bool": "BOOL",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "bfloat16": "BF16",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
MAX_DIMENSIONS = 64  # numpy's
_CHUNK_BYTES = 2**26  # object stores send each write as a part: not too small, and at most 5 GB


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """One tensor of a checkpoint: name, shape, numpy name of its dtype, xxh3_128 (hex) of its raw bytes in C order.

    Raises CheckpointError for a dtype that safetensors does not know, or another value that makes no sense.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    xxh3: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name in ("", "__metadata__") or not _is_unicode(self.name):
            raise CheckpointError(f"A tensor is named {self.name!r}; a name is text, and not '__metadata__'.")
        if not isinstance(self.dtype, str) or self.dtype not in DTYPE_CODES:
            raise CheckpointError(
                f"Tensor {self.name!r} has dtype {self.dtype}; a checkpoint holds {', '.join(DTYPE_CODES)}."
            )
        if not isinstance(self.shape, tuple) or not all(is_count(size) for size in self.shape):
            raise CheckpointError(f"Tensor {self.name!r} has shape {self.shape!r}; a shape is a tuple of sizes.")
        if len(self.shape) > MAX_DIMENSIONS or self._addressed_bytes >= 2**63:
            raise CheckpointError(
                f"Tensor {self.name!r} has shape {self.shape!s:.200}; an array has at most {MAX_DIMENSIONS} "
                "dimensions and 2**63 bytes."
            )
        if not isinstance(self.xxh3, str) or not re.fullmatch("[0-9a-f]{32}", self.xxh3):
            raise CheckpointError(f"Tensor {self.name!r} has hash {self.xxh3!r}; a hash is 32 hexadecimal digits.")

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor."""
        return numpy_dtype(self.dtype).itemsize * math.prod(self.shape)

    @property
    def _addressed_bytes(self) -> int:
        """What numpy bounds: a size of 0 counts as 1."""
        return numpy_dtype(self.dtype).itemsize * math.prod(max(1, size) for size in self.shape)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The dtype of this name, numpy's or ml_dtypes's (bfloat16, float8)."""
    return np.dtype(getattr(ml_dtypes, name, name))


def state_layout(entries: Sequence[TensorEntry]) -> tuple[bytes, list[TensorEntry]]:
    """The header of a state.safetensors with these tensors, and the order of their data behind it, without gaps.

    The file follows from the manifest, so a header is read by comparing it. Wide dtypes go first and the header's
    length is a multiple of 64 bytes: every tensor is aligned to its elements when the file is mapped.
    """
    ordered = sorted(entries, key=lambda entry: -numpy_dtype(entry.dtype).itemsize)
    content, at = {}, 0
    for entry in ordered:
        end = at + entry.num_bytes
        content[entry.name] = {
            "dtype": DTYPE_CODES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [at, end],
        }
        at = end
    raw = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-(len(raw) + 8) % 64)
    return len(raw).to_bytes(8, "little") + raw, ordered


def tensor_entry(name: str, array: np.ndarray) -> TensorEntry:
    """What a checkpoint says about this array. Raises CheckpointError for one that it cannot hold."""
    if not isinstance(array, np.ndarray):
        raise CheckpointError(f"Tensor {name!r} is a {type(array).__name__}; a checkpoint holds numpy arrays.")
    if array.dtype.name not in DTYPE_CODES or not array.dtype.isnative:
        raise CheckpointError(
            f"Tensor {name!r} has dtype {array.dtype.name} ({array.dtype.str}); a checkpoint holds "
            f"{', '.join(DTYPE_CODES)}, in native byte order."
        )
    digest = xxhash.xxh3_128_hexdigest(_raw(array))
    return TensorEntry(name=name, shape=array.shape, dtype=array.dtype.name, xxh3=digest)


def _raw(array: np.ndarray) -> np.ndarray:
    """The bytes of an array in C order: shape (nbytes,), uint8; its own memory where that is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def write_tensor(file: pa.NativeFile, array: np.ndarray) -> None:
    """Append an array's bytes to a file. Raises what the file raises."""
    raw = _raw(array)
    for at in range(0, len(raw), _CHUNK_BYTES):
        file.write(raw[at : at + _CHUNK_BYTES])


def read_tensor(file: pa.NativeFile, entry: TensorEntry, shown: str) -> np.ndarray:
    """The next tensor of a file, in a new array.

    Args:
        file: a stream that stands where the tensor begins.
        entry: which tensor it must be.
        shown: the file's name in messages.

    Raises:
        DamagedCheckpointError: it is cut short, or its hash is another; and what the file raises.
    """
    try:
        array = np.empty(entry.shape, numpy_dtype(entry.dtype))
    except MemoryError:
        raise DamagedCheckpointError(
            f"Tensor {entry.name!r} in {shown} is said to have {entry.num_bytes} bytes, more than there is memory."
        ) from None
    raw, at = _raw(array), 0
    while at < len(raw):
        count = file.readinto(raw[at : at + _CHUNK_BYTES])
        if count == 0:
            raise DamagedCheckpointError(f"{shown} ends within tensor {entry.name!r}. It was cut short.")
        at += count
    found = xxhash.xxh3_128_hexdigest(raw)
    if found != entry.xxh3:
        raise DamagedCheckpointError(
            f"Tensor {entry.name!r} in {shown} was altered: expected xxh3_128 {entry.xxh3}, found {found}."
        )
    return array


def is_count(value: object) -> bool:
    """Whether this is an integer of at least 0, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
