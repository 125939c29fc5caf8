"""What of an epoch's logs is kept: Keras hands callbacks a dict that takes anything; files and messages take values.

Numbers, text, None, and lists and dicts of them are kept as Keras's history keeps them, and arrays and tensors become
lists. Anything else (a figure, a model) is left out, and said once, with the callback that put it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from ..checkpoints.values import DTYPES, MAX_INT_BITS, Json
from ..errors import ValueNotCarriedError

Logs = dict[str, Any]  # of Keras, whose callbacks may put anything in

MAX_NUMBERS = 100_000  # of one value: the history of all epochs is in every checkpoint
MAX_DEPTH = 8  # of nested lists and dicts


def plain_logs(logs: Logs) -> tuple[dict[str, Json], dict[str, str]]:
    """Split logs into what is kept, as JSON values by name, and what each of the others is, by name."""
    kept: dict[str, Json] = {}
    left_out: dict[str, str] = {}
    for name, value in logs.items():
        try:
            if not isinstance(name, str):
                raise ValueNotCarriedError(str(name), f"under a key that is a {type(name).__name__}")
            kept[name] = _plain(value, name, 0)
        except ValueNotCarriedError as error:
            inside = error.where.removeprefix(str(name))
            left_out[str(name)] = f"{error.what} (at {inside})" if inside else error.what
    return kept, left_out


def _plain(value: object, where: str, depth: int) -> Json:
    if keras.ops.is_tensor(value) or isinstance(value, keras.Variable):
        value = keras.ops.convert_to_numpy(value)
    if isinstance(value, np.ndarray | np.generic):
        return _plain_array(np.asarray(value), where)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value.bit_length() <= MAX_INT_BITS:
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list | tuple | Mapping):
        if len(value) > MAX_NUMBERS:
            raise ValueNotCarriedError(where, _too_many(value, len(value)))
        if depth == MAX_DEPTH:
            raise ValueNotCarriedError(where, f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, list | tuple):
        return [_plain(each, f"{where}[{number}]", depth + 1) for number, each in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(key): _plain(each, f"{where}[{key!r}]", depth + 1) for key, each in value.items()}
    raise ValueNotCarriedError(where, f"a {type(value).__name__}")


def _plain_array(array: np.ndarray, where: str) -> Json:
    if array.dtype.kind == "U" and array.ndim == 0:
        return str(array)
    if array.dtype.name not in DTYPES:
        raise ValueNotCarriedError(where, f"an array of {array.dtype}")
    if array.size > MAX_NUMBERS:
        raise ValueNotCarriedError(where, _too_many(array, array.size))
    found: Json = (array if array.dtype.kind in "biu" else array.astype(np.float64)).tolist()
    return found


def _too_many(value: object, size: int) -> str:
    return f"a {type(value).__name__} of {size:,} values, and at most {MAX_NUMBERS:,} are kept"
