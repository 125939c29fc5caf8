"""Values of Python, numpy, pandas and others as Arrow arrays: nothing is rounded or wrapped.

Whoever gives rows knows best what they are, so the ways in are tried from the surest to the vaguest: Arrow data is
taken as it is, an array of numbers has a dtype, others offer Arrow's own protocols (`__arrow_array__`, and
`__arrow_c_stream__` of frames and series), and what is left is a sequence that is looked at row by row.

There, lists are flattened one level at a time until only numbers, texts or arrays are left, which are converted
together, and wrapped up again: in lists of a fixed size where all have one length, else in lists. So a regular nested
list is the tensor that it looks like, and one longer row makes it a list column, without an array of objects between.

`numpy.asarray` of a list is not asked, because it makes floats of large integers beside others (2^63 beside -1, 2^53 +
1 beside 0.5) and text of numbers beside text; Arrow's conversion raises instead. Only uint64 has to be asked of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import BadColumnError
from .arrow_types import is_number
from .columns import Column
from .exact import exactly
from .memory import splits_of
from .ragged import Ragged
from .stored_arrays import fixed, listed, ragged_array

_NO_ROWS = (str, bytes, bytearray, memoryview)
_PLAIN = {type(None), bool, int, float, str, bytes, list}


def arrow_of(name: str, values: object) -> pa.Array | pa.ChunkedArray:
    """The rows of a column as an Arrow array of the type that they have; missing ones (None, masked) stay missing.

    Args:
        name: of the column, for messages.
        values: a numpy array [rows, *shape] (also masked), `Ragged`, a pandas series or array, Arrow data, anything
            that numpy can read, or a sequence of numbers, str, bytes, arrays or nested sequences.

    Raises BadColumnError for values that no type holds exactly, and for those that no column has.
    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, Ragged):
        return ragged_array(name, values)
    if isinstance(values, np.ndarray):
        return _of_numpy(name, values)
    dtype = getattr(values, "dtype", None)
    if dtype is not None and not isinstance(dtype, np.dtype) and hasattr(values, "array"):
        return _through_arrow(name, values.array)  # a pandas series of a dtype that numpy does not have
    # A categorical of pandas has no protocol, but pyarrow knows it.
    if hasattr(values, "__arrow_array__") or type(values).__name__ == "Categorical":
        return _through_arrow(name, values)
    if hasattr(values, "__arrow_c_stream__") and not isinstance(dtype, np.dtype):
        return pa.chunked_array(values)
    if isinstance(values, Sequence) and not isinstance(values, _NO_ROWS):
        return _of_rows(name, list(values))
    return _of_numpy(name, np.asarray(values))


def _through_arrow(name: str, values: object) -> pa.Array | pa.ChunkedArray:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError, ValueError, UnicodeEncodeError) as error:
        raise BadColumnError(
            f"Column {name!r} cannot be stored as it is: its values are no text, bytes, or numbers of one type that "
            f"holds them all exactly, nor lists of those ({error}). Convert them before, or leave the column out.",
            column=name,
        ) from error


def _of_numpy(name: str, array: npt.NDArray[Any]) -> pa.Array:
    """An array of numpy: numbers without a copy if they lie as Arrow wants them, others one by one."""
    mask = np.ma.getmaskarray(array) if isinstance(array, np.ma.MaskedArray) else None
    array = np.asarray(array)
    if array.ndim == 0:
        raise BadColumnError(f"Column {name!r} is a single value; a column has one entry per row.", column=name)
    if array.dtype.kind not in "biuf":
        return _of_rows(name, _objects(name, array, mask))
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    shape = native.shape[1:]
    if shape == (0,):  # rows of a list column that are all empty
        return listed(pa.array(native.reshape(-1)), np.zeros(len(native) + 1, np.int64))
    Column(name=name, dtype=native.dtype, shape=shape)  # what cannot be one is refused here
    flat = pa.array(native.reshape(-1), mask=None if mask is None else mask.reshape(-1))
    return flat if not shape else _tensor(flat, shape)


def _objects(name: str, array: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None) -> list[Any]:
    """The rows of an array that holds no numbers, one by one."""
    if array.dtype.kind not in "OSUT":
        raise BadColumnError(
            f"Column {name!r} has dtype {array.dtype}; a dataset holds bools, integers, floats of up to 64 bits, text "
            "and bytes. Turn dates and categories into numbers, and records into columns of their own, before.",
            column=name,
        )
    if array.dtype.kind == "S":
        _check_padding(name, array)
    missing = getattr(array.dtype, "na_object", None)  # of numpy's own variable-length text
    if mask is not None:
        array = array.astype(object)
        array[mask] = None
    rows: list[Any] = array.tolist()
    return rows if missing is None else [None if row is missing else row for row in rows]


def _check_padding(name: str, array: npt.NDArray[np.bytes_]) -> None:
    """Refuse bytes that are no text where a row ends in zero: numpy cannot tell that zero from its padding."""
    width = array.dtype.itemsize
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(-1, width)
    ends_in_zero = raw[:, -1] == 0
    if not ends_in_zero.any():
        return
    texts = b"\n".join(array.reshape(-1).tolist())
    try:
        texts.decode()
        is_text = b"\0" not in texts
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        row = int(np.flatnonzero(ends_in_zero)[0])
        raise BadColumnError(
            f"Column {name!r} has dtype {array.dtype}, and row {row} ends in zero bytes, which numpy takes for padding "
            "and leaves out. Give a list of bytes, or the bytes as numbers (uint8 [rows, length]).",
            column=name,
        )


def _of_rows(name: str, rows: list[Any]) -> pa.Array:
    """Rows one by one: texts, arrays, lists (whose elements come here again) or scalars; None is missing."""
    if not set(map(type, rows)) <= _PLAIN:
        rows = [_plain_row(row) for row in rows]
    kinds = set(map(type, rows)) - {type(None)}
    if any(issubclass(kind, str | bytes) for kind in kinds):
        return _of_text(name, rows)
    if np.ndarray in kinds:
        return _of_arrays(name, rows)
    if list in kinds:
        lengths = [_length(name, place, row) for place, row in enumerate(rows)]
        return _wrapped(_of_rows(name, list(chain.from_iterable(filter(None, rows)))), lengths)
    return _of_scalars(name, rows, kinds)


def _plain_row(row: object) -> object:
    """A row as None, a number, str, bytes, a list, or an array of numbers with dimensions."""
    if row is None or isinstance(row, int | float | str | bytes | list | np.generic | pa.Scalar):
        return row.item() if isinstance(row, np.str_ | np.bytes_) else row
    if isinstance(row, bytearray | memoryview):
        return bytes(row)
    if isinstance(row, tuple | range):
        return list(row)
    if isinstance(row, np.ma.MaskedArray):
        return row.tolist()
    if isinstance(row, np.ndarray) or hasattr(row, "__array__"):
        array = np.asarray(row)
        if array.ndim == 0:
            return array[()]
        return array if array.dtype.kind in "biuf" else array.tolist()
    return row


def _length(name: str, place: int, row: object) -> int | None:
    if row is None or isinstance(row, list):
        return None if row is None else len(row)
    raise BadColumnError(
        f"Column {name!r} has {row!r:.60} among rows that are lists (entry {place}); its rows are no regular array and "
        "no lists of numbers.",
        column=name,
    )


def _of_text(name: str, rows: list[Any]) -> pa.Array:
    """Rows that are str, or bytes, not both: which of them a column would be depended on the rows of one write."""
    rows = [None if isinstance(row, float) and math.isnan(row) else row for row in rows]  # so pandas says missing
    kind = next(str if isinstance(row, str) else bytes for row in rows if isinstance(row, str | bytes))
    wrong = next((place for place, row in enumerate(rows) if row is not None and not isinstance(row, kind)), None)
    if wrong is not None:
        raise BadColumnError(
            f"Column {name!r} is {'string' if kind is str else 'bytes'}, but row {wrong} of those given is "
            f"{rows[wrong]!r:.60} ({type(rows[wrong]).__name__}).",
            column=name,
        )
    try:
        return pa.array(rows, pa.large_string() if kind is str else pa.large_binary())
    except (UnicodeEncodeError, pa.ArrowException) as error:
        raise BadColumnError(f"Column {name!r} has text that cannot be UTF-8 ({error}).", column=name) from error


def _of_scalars(name: str, rows: list[Any], kinds: set[type]) -> pa.Array:
    """Numbers and bools (and what is neither, which Arrow refuses); numpy's keep their dtype if they are of one."""
    if any(issubclass(kind, np.generic) for kind in kinds):
        if len(kinds) == 1 and None not in rows:
            return _of_numpy(name, np.array(rows))
        rows = [row.item() if isinstance(row, np.generic) else row for row in rows]
        kinds = set(map(type, rows)) - {type(None)}
    if kinds == {int} and max(row for row in rows if row is not None) >= 1 << 63:
        try:
            return pa.array(rows, pa.uint64())
        except (pa.ArrowException, OverflowError):
            pass  # so says the next line, with the reason
    return _through_arrow(name, rows)


def _of_arrays(name: str, rows: list[Any]) -> pa.Array:
    """Rows of which some are arrays of numbers: together in the dtype that they all need."""
    parts = [
        row if isinstance(row, np.ndarray) or row is None else _part(name, place, row) for place, row in enumerate(rows)
    ]
    filled = [(place, part) for place, part in enumerate(parts) if part is not None and part.size]
    # What is empty has a say only where nothing else has one.
    heard = [part for _, part in filled] or [row for row in rows if isinstance(row, np.ndarray)]
    shape = heard[0].shape[1:]
    dtype = np.result_type(*(part.dtype for part in heard)).newbyteorder("=")
    if dtype.kind == "f" and all(part.dtype.kind != "f" for part in heard):
        given = sorted({part.dtype.name for part in heard})
        raise BadColumnError(
            f"Column {name!r} has arrays of {' and '.join(given)}, of which no whole numbers hold both. Convert "
            "them before.",
            column=name,
        )
    values = []
    for place, part in filled:
        if part.shape[1:] != shape:
            raise BadColumnError(
                f"Column {name!r} is no regular array and no list of arrays: entry {place} has shape {part.shape}; its "
                f"elements should have shape {shape}.",
                column=name,
            )
        cast = exactly(part.reshape(-1), dtype)
        if cast.wrong.size:
            raise BadColumnError(
                f"Column {name!r} has arrays of different dtypes, and {part.reshape(-1)[cast.wrong[0]]} of entry "
                f"{place} ({part.dtype}) is none of {dtype}, which they need together. Convert them before.",
                column=name,
            )
        values.append(cast.numbers)
    flat = pa.array(np.concatenate(values) if values else np.empty(0, dtype))
    return _wrapped(fixed(flat, shape), [None if part is None else len(part) for part in parts])


def _part(name: str, place: int, row: list[Any]) -> npt.NDArray[Any]:
    """A list among arrays as an array."""
    _length(name, place, row)
    shape, flat = _unfixed(_of_rows(name, row))
    if not len(flat):
        return np.empty(0)
    if flat.null_count or not is_number(flat.type):
        raise BadColumnError(
            f"Column {name!r} has a missing value or no number in {row!r:.60}, among arrays (entry {place}).",
            column=name,
        )
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(-1, *shape)


# Wrapping up.


def _wrapped(inside: pa.Array, lengths: list[int | None]) -> pa.Array:
    """Rows of these lengths over their elements: of a fixed size if all are alike and of numbers, else lists."""
    size = lengths[0]
    if size and is_number(_unfixed(inside)[1].type) and all(length == size for length in lengths):
        return pa.FixedSizeListArray.from_arrays(inside, size)
    missing = np.array([length is None for length in lengths], bool)
    splits = splits_of(np.array([length or 0 for length in lengths], np.int64))
    return listed(inside, splits, missing if missing.any() else None)


def _unfixed(array: pa.Array) -> tuple[tuple[int, ...], pa.Array]:
    """The shape and the values of lists of fixed sizes."""
    shape = []
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.values
    return tuple(shape), array


def _tensor(flat: pa.Array, shape: tuple[int, ...]) -> pa.Array:
    storage = pa.FixedSizeListArray.from_arrays(flat, math.prod(shape))
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(flat.type, shape), storage)
