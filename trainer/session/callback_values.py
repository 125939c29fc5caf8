"""States of callbacks as bytes, or as JSON and named arrays: values in, the same values out, nothing pickled.

A value is None, a bool, int, float, str, a numpy scalar or array, or a list or dict with str keys of values. What JSON
lacks (NaN, infinities, arrays) stands in it as a dict of one key that begins with $.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import xxhash

from ..errors import CallbackStateError, ConfigurationError

State = dict[str, Any]
Json = Any

_MAGIC, _VERSION = b"HCBS", 1
_PREFIX = struct.Struct("<4sB3xQ")  # magic, version, bytes of the header; then a digest of all else, header, arrays
_DIGEST_BYTES = 16
_MAX_DEPTH = 32  # of nested lists and dicts; ends a list that holds itself, too
_MAX_INT_BITS = 8192  # Python refuses to read longer ones from text
_PLAIN = (type(None), bool, int, float, str)
_NUMPY_DTYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"
_DTYPES: Mapping[str, np.dtype] = {name: np.dtype(name) for name in _NUMPY_DTYPES.split()} | {
    np.dtype(kind).name: np.dtype(kind) for kind in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
}


def snapshot(value: Any, where: str, depth: int = 0) -> Any:
    """A copy of a value made of what can be carried; ConfigurationError for anything else."""
    if isinstance(value, np.generic):
        return _native(value, where)[()]
    if type(value) is np.ndarray:
        return np.array(_native(value, where), order="C")
    if type(value) is int and value.bit_length() > _MAX_INT_BITS:
        raise ConfigurationError(
            f"{where} is an int of {value.bit_length()} bits; at most {_MAX_INT_BITS} are carried."
        )
    if type(value) in _PLAIN:
        return value
    if type(value) in (list, dict) and depth == _MAX_DEPTH:
        raise ConfigurationError(f"{where} is nested more than {_MAX_DEPTH} deep, or holds itself.")
    if type(value) is list:
        return [snapshot(each, f"{where}[{i}]", depth + 1) for i, each in enumerate(value)]
    if type(value) is dict and all(type(key) is str for key in value):
        return {key: snapshot(each, f"{where}[{key!r}]", depth + 1) for key, each in value.items()}
    raise _not_carried(value, where)


def split_states(states: Sequence[State]) -> tuple[Json, dict[str, np.ndarray]]:
    """States as strict JSON (no NaN) and named arrays, for a checkpoint file.

    Numpy scalars become arrays of no dimension, so that they keep their dtype. Names are ``callback/{number of the
    callback}/{number of the array}``; arrays are not copied where they need not be.

    Raises:
        ConfigurationError: a state holds something else than JSON values and arrays.
    """
    arrays: dict[str, np.ndarray] = {}
    values = []
    for index, state in enumerate(states):
        own: dict[str, np.ndarray] = {}
        values.append(_encode(state, own, f"callback/{index}", "state"))
        arrays |= own
    return values, arrays


def join_states(values: Json, arrays: Mapping[str, np.ndarray]) -> list[State]:
    """Put together what `split_states` took apart; arrays of other names are left alone.

    Raises:
        CallbackStateError: the JSON is none of `split_states`, or an array is missing.
    """
    try:
        states = [_decode(value, arrays) for value in values]
        if type(values) is not list or not all(type(state) is dict for state in states):
            raise ValueError("it is no list of states")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(f"{type(error).__name__}: {error}") from error
    return states


def pack_states(states: Sequence[State]) -> bytes:
    """States as bytes: a checksum, one JSON header, raw arrays in the host's byte order.

    Raises:
        ConfigurationError: a state holds something else than JSON values and arrays.
    """
    values, arrays = split_states(states)
    table = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    header = json.dumps({"states": values, "arrays": table}, allow_nan=False).encode()
    prefix = _PREFIX.pack(_MAGIC, _VERSION, len(header))
    raw = [_bytes_of(array).data for array in arrays.values()]
    return b"".join([prefix, _digest(prefix, header, *raw), header, *raw])


def unpack_states(payload: bytes) -> list[State]:
    """States from `pack_states`, in new, writable arrays. Lengths are only compared with the payload's own.

    Raises:
        CallbackStateError: the payload is truncated, damaged or of another version.
    """
    begin = _PREFIX.size + _DIGEST_BYTES
    if len(payload) < begin or payload[:4] != _MAGIC:
        raise _damaged(f"{len(payload)} bytes that begin with {payload[:4]!r}")
    _, version, header_bytes = _PREFIX.unpack_from(payload)
    if version != _VERSION:
        raise _damaged(f"format version {version}, this is {_VERSION}")
    body = memoryview(payload)[begin:]
    if payload[_PREFIX.size : begin] != _digest(payload[: _PREFIX.size], body) or header_bytes > len(body):
        raise _damaged(f"the checksum of its {len(payload)} bytes is wrong")
    try:
        header = json.loads(bytes(body[:header_bytes]))
        arrays = _read_arrays(header["arrays"], body[header_bytes:])
        values = header["states"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(f"{type(error).__name__}: {error}") from error
    return join_states(values, arrays)


def _encode(value: Any, arrays: dict[str, np.ndarray], prefix: str, where: str) -> Json:
    """JSON of a value; its arrays are added to `arrays` under new names."""
    if isinstance(value, np.generic | np.ndarray):
        name = f"{prefix}/{len(arrays)}"
        arrays[name] = _native(value, f"{prefix}: {where}")
        return {"$array" if isinstance(value, np.ndarray) else "$scalar": name}
    if type(value) is float and not math.isfinite(value):
        return {"$float": repr(value)}
    if type(value) in _PLAIN:
        return value
    if type(value) is list:
        return [_encode(each, arrays, prefix, f"{where}[{i}]") for i, each in enumerate(value)]
    if type(value) is dict and all(type(key) is str for key in value):
        encoded = {key: _encode(each, arrays, prefix, f"{where}[{key!r}]") for key, each in value.items()}
        return {"$dict": encoded} if any(key.startswith("$") for key in encoded) else encoded
    raise _not_carried(value, f"{prefix}: {where}")


def _decode(value: Json, arrays: Mapping[str, np.ndarray]) -> Any:
    if type(value) is list:
        return [_decode(each, arrays) for each in value]
    if type(value) is not dict:
        return value
    if not any(key.startswith("$") for key in value):
        return {key: _decode(each, arrays) for key, each in value.items()}
    ((tag, content),) = value.items()
    if tag == "$dict":
        return {key: _decode(each, arrays) for key, each in content.items()}
    if tag == "$float" and content in ("nan", "inf", "-inf"):
        return float(content)
    if tag == "$array":
        return arrays[content]
    if tag == "$scalar" and arrays[content].ndim == 0:
        return arrays[content][()]
    raise ValueError(f"unknown value {tag}: {content!r}")


def _native(value: Any, where: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.name not in _DTYPES:
        raise _not_carried(value, where)
    return array.astype(_DTYPES[array.dtype.name], order="C", copy=False)


def _bytes_of(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


def _read_arrays(table: Json, raw: memoryview) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    at = 0
    for name, dtype_name, shape in table:
        dtype = _DTYPES[dtype_name]
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


def _digest(*parts: Any) -> bytes:
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(part)
    return digest.digest()


def _not_carried(value: Any, where: str) -> ConfigurationError:
    if isinstance(value, np.generic | np.ndarray):
        what = f"a {type(value).__name__} of {value.dtype}"
    else:
        what = "a dict whose keys are not all str" if type(value) is dict else f"a {type(value).__name__}"
    return ConfigurationError(
        f"{where} is {what}, which cannot be carried to another worker. A callback's state consists of None, bool, "
        f"int, float, str, numpy scalars and arrays ({', '.join(_DTYPES)}), lists of them, dicts with str keys. "
        "Convert it in get_state() and back in set_state()."
    )


def _damaged(reason: str) -> CallbackStateError:
    return CallbackStateError(
        f"A state of callbacks cannot be read: {reason}. It was damaged or cut on its way, or comes from another "
        "version of Heliostat. Start from an earlier checkpoint, or without one."
    )
