"""The one codec: values in, JSON (or bytes) out, and the same values back, bit for bit. Nothing is ever pickled.

A value is None, a bool, int, float, str, a numpy scalar or array of the dtypes below, or a list or dict (with str keys)
of values. JSON lacks some of these, and two things are done about it:

- **tags**, the usual form: a dict of one key that begins with ``$`` stands for what JSON lacks: ``{"$float": "NaN"}``
  (also ``"Infinity"``, ``"-Infinity"``), ``{"$array": name}`` and ``{"$scalar": name}`` for what is kept apart under
  that name, ``{"$dict": {...}}`` around a dict with such keys of its own. Every value comes back as it was. Manifests
  of checkpoints and what travels between workers are written so.
- **words** (`to_line`, `from_line`), for files that people and other programs read: a float that JSON lacks is the text
  ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``, which is read back as that float wherever it stands (a text "NaN" does
  not survive), and what is no value becomes its `str`. The ``.jsonl`` files and ``run.json`` are written so.

Arrays stand apart in a dict (`encode`, `decode`: a checkpoint puts them among its tensors), or inside, behind the JSON,
in bytes with a checksum (`pack`, `unpack`: what the chief tells the others). What is read may come from a damaged file
or another version, so it is bounded before it is believed: nesting by `MAX_DEPTH`, integers by `MAX_INT_BITS`, and
lengths of arrays by the bytes that are there.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import xxhash
from heliostat.cluster.vectors import joined

from ..errors import DamagedStateError, ValueNotCarriedError

Json: TypeAlias = "bool | int | float | str | list[Any] | dict[str, Any] | None"
Value: TypeAlias = "Json | np.generic | np.ndarray"

MAX_DEPTH = 40  # of nested lists and dicts; ends a list that holds itself, too
MAX_STATE_DEPTH = 32  # of a callback's state, which is put into other values
MAX_INT_BITS = 8192  # Python refuses to read longer ones from text
_PLAIN = (type(None), bool, int, float, str)
_NUMPY_DTYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"
DTYPES: Mapping[str, np.dtype] = {name: np.dtype(name) for name in _NUMPY_DTYPES.split()} | {
    np.dtype(kind).name: np.dtype(kind) for kind in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
}

_MAGIC, _VERSION = b"HCBS", 2
_PREFIX = struct.Struct("<4sB3xQ")  # magic, version, bytes of the header; then a digest of all else, header, arrays
_DIGEST_BYTES = 16


def encode(value: Value, arrays: dict[str, np.ndarray] | None, where: str) -> Json:
    """A value as strict JSON (no NaN), in tags.

    Args:
        value: see the module.
        arrays: takes the value's arrays and numpy scalars (as arrays of no dimension, so that they keep their dtype)
            under new names; they are not copied where they need not be. None: arrays are refused, and numpy scalars
            become plain numbers.
        where: what the value is, for messages: ``"extra"`` gives ``extra['best'][3] is ...``.

    Raises:
        ValueNotCarriedError: it is, or holds, something else; names the place.
    """
    return _encode(value, arrays, where, 0)


def decode(found: Json, arrays: Mapping[str, np.ndarray]) -> Any:  # Any: what was encoded, which the caller knows
    """The value of which `encode` made this; its arrays are those in `arrays`, which may hold others.

    Raises:
        ValueError, KeyError, TypeError: `encode` made no such JSON, or an array is missing.
    """
    return _decode(found, arrays, 0)


def encode_state(value: Value, arrays: dict[str, np.ndarray], where: str) -> Json:
    """`encode` for what will be put into other values: of at most `MAX_STATE_DEPTH`."""
    return _encode(value, arrays, where, MAX_DEPTH - MAX_STATE_DEPTH)


def copied(value: Value, where: str) -> Any:  # Any: of the type of `value`
    """A copy of a value of at most `MAX_STATE_DEPTH`, as it comes back from `decode`; raises ValueNotCarriedError."""
    arrays: dict[str, np.ndarray] = {}
    found = encode_state(value, arrays, where)
    return decode(found, {name: array.copy() for name, array in arrays.items()})


# -- arrays inside ------------------------------------------------------------------------------------------------


def pack(value: Value) -> memoryview:
    """A value as bytes: a checksum, one JSON header, raw arrays in the host's byte order.

    Raises:
        ValueNotCarriedError: see `encode`.
    """
    arrays: dict[str, np.ndarray] = {}
    found = encode(value, arrays, "value")
    table = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    header = json.dumps({"value": found, "arrays": table}, allow_nan=False).encode()
    prefix = _PREFIX.pack(_MAGIC, _VERSION, len(header))
    raw = [_bytes_of(array) for array in arrays.values()]
    return joined([prefix, _digest(prefix, header, *raw), header, *raw])


def unpack(payload: bytes | memoryview) -> Any:  # Any: what was packed, which the caller knows
    """The value of `pack`, in new, writable arrays. Lengths are only compared with the payload's own.

    Raises:
        DamagedStateError: the payload is truncated, damaged or of another version.
    """
    begin = _PREFIX.size + _DIGEST_BYTES
    if len(payload) < begin or payload[:4] != _MAGIC:
        raise DamagedStateError(f"{len(payload)} bytes that begin with {bytes(payload[:4])!r}")
    _, version, header_bytes = _PREFIX.unpack_from(payload)
    if version != _VERSION:
        raise DamagedStateError(f"format version {version}, this is {_VERSION}")
    body = memoryview(payload)[begin:]
    if payload[_PREFIX.size : begin] != _digest(payload[: _PREFIX.size], body) or header_bytes > len(body):
        raise DamagedStateError(f"the checksum of its {len(payload)} bytes is wrong")
    try:
        header = json.loads(bytes(body[:header_bytes]))
        return decode(header["value"], _read_arrays(header["arrays"], body[header_bytes:]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedStateError(f"{type(error).__name__}: {error}") from error


# -- for people ---------------------------------------------------------------------------------------------------


def to_words(value: object) -> Json:
    """A value as JSON for people: floats that JSON lacks as words, keys and whatever is no value as text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return _word(value)
    if isinstance(value, Mapping):
        return {str(name): to_words(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_words(each) for each in value]
    return value if isinstance(value, _PLAIN) else str(value)


def from_words(found: Json) -> Json:
    """The opposite of `to_words`, as far as there is one."""
    if isinstance(found, dict):
        return {name: from_words(each) for name, each in found.items()}
    if isinstance(found, list):
        return [from_words(each) for each in found]
    return _WORDS.get(found, found) if isinstance(found, str) else found


def to_line(value: object, indent: int | None = None) -> str:
    """A value as JSON text for people: one line, or indented ones."""
    return json.dumps(to_words(value), indent=indent, allow_nan=False)


def from_line(text: str | bytes) -> Json:
    """What `to_line` wrote; raises ValueError for what is no JSON, or nested too deeply."""
    try:
        return from_words(json.loads(text))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


# -- in small -----------------------------------------------------------------------------------------------------

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _encode(value: Value, arrays: dict[str, np.ndarray] | None, where: str, depth: int) -> Json:
    if arrays is None and isinstance(value, np.generic):
        value = _native(value, where).item()
    if arrays is not None and isinstance(value, np.generic | np.ndarray):
        name = str(len(arrays))
        arrays[name] = _native(value, where)
        return {"$array" if isinstance(value, np.ndarray) else "$scalar": name}
    if type(value) is float and not math.isfinite(value):
        return {"$float": _word(value)}
    if type(value) is int and value.bit_length() > MAX_INT_BITS:
        raise ValueNotCarriedError(where, f"an int of {value.bit_length()} bits; at most {MAX_INT_BITS} are carried")
    if isinstance(value, _PLAIN) and type(value) in _PLAIN:
        return value
    if type(value) in (list, dict) and depth == MAX_DEPTH:
        raise ValueNotCarriedError(where, f"nested more than {MAX_DEPTH} deep, or holds itself")
    if type(value) is list:
        return [_encode(each, arrays, f"{where}[{i}]", depth + 1) for i, each in enumerate(value)]
    if type(value) is dict and all(type(key) is str for key in value):
        encoded = {key: _encode(each, arrays, f"{where}[{key!r}]", depth + 1) for key, each in value.items()}
        return {"$dict": encoded} if any(key.startswith("$") for key in encoded) else encoded
    raise _not_carried(value, where)


def _decode(found: Json, arrays: Mapping[str, np.ndarray], depth: int) -> Value:
    if depth > 2 * MAX_DEPTH:  # tags nest, too
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    if isinstance(found, list):
        return [_decode(each, arrays, depth + 1) for each in found]
    if not isinstance(found, dict):
        return found
    if not any(key.startswith("$") for key in found):
        return {key: _decode(each, arrays, depth + 1) for key, each in found.items()}
    ((tag, content),) = found.items()
    if tag == "$dict":
        return {key: _decode(each, arrays, depth + 1) for key, each in content.items()}
    if tag == "$float":
        return _WORDS[content]
    if tag == "$array":
        return arrays[content]
    if tag == "$scalar" and arrays[content].ndim == 0:
        return arrays[content][()]
    raise ValueError(f"unknown value {tag}: {content!r}")


def _native(value: np.generic | np.ndarray, where: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.name not in DTYPES:
        raise _not_carried(value, where)
    return array.astype(DTYPES[array.dtype.name], order="C", copy=False)


def _bytes_of(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


def _read_arrays(table: list[Any], raw: memoryview) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    at = 0
    for name, dtype_name, shape in table:
        dtype = DTYPES[dtype_name]
        if not all(type(length) is int and length >= 0 for length in shape):
            raise ValueError(f"array {name} has the shape {shape}")
        num_bytes = math.prod(shape) * dtype.itemsize
        if num_bytes > len(raw) - at:
            raise ValueError(f"array {name} needs {num_bytes} bytes, {len(raw) - at} are left")
        arrays[name] = np.empty(shape, dtype)
        _bytes_of(arrays[name])[:] = np.frombuffer(raw[at : at + num_bytes], np.uint8)
        at += num_bytes
    if at != len(raw):
        raise ValueError(f"{len(raw) - at} bytes belong to no array")
    return arrays


def _digest(*parts: bytes | memoryview | np.ndarray) -> bytes:
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(part)
    return digest.digest()


def _not_carried(value: object, where: str) -> ValueNotCarriedError:
    if isinstance(value, np.generic | np.ndarray):
        return ValueNotCarriedError(where, f"a {type(value).__name__} of {value.dtype}")
    what = "a dict whose keys are not all str" if type(value) is dict else f"a {type(value).__name__}"
    return ValueNotCarriedError(where, what)
