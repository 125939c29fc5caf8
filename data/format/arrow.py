"""Arrow arrays of any program as the arrays that are stored, exactly.

The currency on the way in is the Arrow record batch: what a writer is given, what a file holds and what is stored are
all Arrow arrays, and `as_stored` is the one place where values may become something else. A value that is stored
equals the one that came, or it is refused with its row, or it is an entry of the account (a fraction that was rounded,
a missing value that was filled). Arrow's own casts are leaned on where they are exact (text, dictionaries, widths of
lists); numbers are looked at value by value (`exact`), because its casts make infinity of a finite value and round
decimals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import BadColumnError
from .account import Account
from .arrow_types import (
    arrow_schema,
    arrow_type,
    column_of,
    is_binary,
    is_list,
    is_nested,
    is_number,
    is_text,
    logical_shape,
    stored_dtype,
    widened,
)
from .columns import Column
from .exact import exactly, why_wrong
from .python_values import arrow_of
from .ragged import splits_of

__all__ = ["arrow_of", "arrow_schema", "arrow_type", "as_stored", "column_of", "missing_error", "widened"]

_types = pa.types
Numbers = npt.NDArray[Any]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Task:
    """A column to make, and how to tell about rows: where they are in the source, their fill, the account."""

    column: Column
    first_row: int
    row_numbers: Places | None
    fill: object
    account: Account | None

    def rows(self, places: Places) -> Places:
        """The rows in the source of the rows at these places."""
        return places + self.first_row if self.row_numbers is None else self.row_numbers[places]

    def error(self, what: str) -> BadColumnError:
        return BadColumnError(f"Column {self.column.name!r} {what}", column=self.column.name)


RowOf = Callable[[Places], Places]
"""The places of the rows that hold the values at these places."""


def as_stored(
    column: Column,
    array: pa.Array | pa.ChunkedArray,
    *,
    first_row: int = 0,
    fill: object = None,
    account: Account | None = None,
    row_numbers: Places | None = None,
) -> pa.Array:
    """The rows of an Arrow array as the column stores them, maybe without a copy.

    Whole numbers stay themselves, finite values finite, a bool is 0 or 1, text is UTF-8; text becomes numbers and
    numbers text, nested lists become rows of the column's shape, bytes become numbers if they are as many as a row has.

    Args:
        column: what the rows should become.
        array: [rows], of any Arrow type that can stand for the column.
        first_row: the number of the first row in the source, for messages and the account.
        fill: what takes the place of missing values (a number, str or bytes); a missing list becomes empty. It obeys
            the rules of every value. Without it missing values are refused.
        account: where fractions that are rounded (the column has a narrower float dtype) and fills are noted.
        row_numbers: int64 [rows], the numbers of the rows if they do not follow one another.

    Raises BadColumnError, which names the row, for what cannot be stored exactly.
    """
    task = _Task(column, first_row, row_numbers, fill, account)
    plain = _plain(task, array)
    if column.kind in ("string", "bytes"):
        return _text(task, plain)
    return _numeric(task, plain)


def missing_error(name: str, count: int, row: int) -> BadColumnError:
    """The error for missing values: their number, and the row of the first."""
    return BadColumnError(
        f"Column {name!r} has {count} missing value{'s' * (count != 1)}, the first in row {row}. "
        f"Fill them with fill_nulls={{{name!r}: value}} (--fill-null {name}=VALUE), or leave these rows out.",
        column=name,
    )


def _plain(task: _Task, array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """An array without chunks, dictionaries, views and extension types."""
    if isinstance(array, pa.ChunkedArray):
        # Each by itself: together they may be more than 32-bit offsets can say.
        parts = [_plain(task, chunk) for chunk in array.chunks]
        large = [_large(part) for part in parts]
        return pa.concat_arrays(large) if large else pa.array([], array.type)
    if _types.is_dictionary(array.type):
        return _plain(task, array.dictionary_decode())
    if isinstance(array.type, pa.Bool8Type):
        return array.cast(pa.bool_())
    if isinstance(array.type, pa.FixedShapeTensorType):
        return _unpermuted(array)
    if isinstance(array, pa.ExtensionArray):
        raise task.error(f"has the extension type {array.type}; give its values as numbers, text or bytes.")
    if _types.is_list_view(array.type) or _types.is_large_list_view(array.type):
        # Not by a cast, whose offsets are wrong (pyarrow 26).
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        return pa.LargeListArray.from_arrays(splits_of(lengths), array.flatten(), mask=array.is_null())
    return array


def _large(array: pa.Array) -> pa.Array:
    if is_text(array.type):
        return array.cast(pa.large_string())
    if is_binary(array.type):
        return array.cast(pa.large_binary())
    return array.cast(pa.large_list(array.type.value_type)) if is_list(array.type) else array


def _unpermuted(array: pa.ExtensionArray) -> pa.Array:
    shape, order = logical_shape(array.type), array.type.permutation
    if order is None or list(order) == sorted(order):
        return array.storage
    places = np.arange(math.prod(shape)).reshape(tuple(array.type.shape)).transpose(order).reshape(-1)
    size, storage = len(places), array.storage
    values = storage.values.slice(storage.offset * size, len(storage) * size)
    taken = values.take(pa.array((np.arange(len(storage))[:, None] * size + places).reshape(-1)))
    return pa.FixedSizeListArray.from_arrays(taken, size, mask=storage.is_null())


def _first(mask: pa.Array) -> int:
    return int(np.flatnonzero(mask.to_numpy(zero_copy_only=False))[0])


# Text and bytes.


def _text(task: _Task, array: pa.Array) -> pa.Array:
    wanted = arrow_type(task.column)
    if _types.is_null(array.type):
        array = pa.nulls(len(array), wanted)
    if not (is_text(array.type) or is_binary(array.type) or is_number(array.type)):
        raise task.error(f"is {task.column.kind}, but its rows are {array.type}.")
    try:
        if is_number(array.type):
            array = array.cast(pa.large_string())
        large = array.cast(wanted)
        if task.column.kind == "string":
            large.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _not_utf8(task, array) from error
    if not large.null_count:
        return large
    nulls = large.is_null()
    if task.fill is None:
        raise missing_error(task.column.name, large.null_count, int(task.rows(np.array([_first(nulls)]))[0]))
    expected = str if task.column.kind == "string" else bytes
    if not isinstance(task.fill, expected):
        raise _bad_fill(task, f"is {task.column.kind}: give a {expected.__name__}")
    _note_fill(task, np.flatnonzero(nulls.to_numpy(zero_copy_only=False)))
    return pc.fill_null(large, pa.scalar(task.fill, wanted))


def _not_utf8(task: _Task, array: pa.Array) -> BadColumnError:
    for place, row in enumerate(array.cast(pa.large_binary())):
        try:
            (row.as_py() or b"").decode()
        except UnicodeDecodeError as error:
            number = int(task.rows(np.array([place]))[0])
            return task.error(
                f"has text in row {number} that is not UTF-8 ({error.reason} at byte {error.start}). Give it as bytes, "
                "or in the encoding that it has been read with."
            )
    return task.error("has text that is not UTF-8.")


def _bad_fill(task: _Task, why: str) -> BadColumnError:
    return task.error(f"has missing values that cannot be filled with {task.fill!r}: it {why}.")


def _note_fill(task: _Task, rows: Places) -> None:
    if task.account is not None:
        detail = f"missing, {task.fill!r} took the place"
        task.account.add_rows("filled", task.column.name, task.rows(rows), detail=detail)


# Numbers: lists are unwrapped to one flat array, which is cast and wrapped again.


def _numeric(task: _Task, array: pa.Array) -> pa.Array:
    column, num_rows = task.column, len(array)
    size = math.prod(column.shape)
    if is_binary(array.type):
        return _of_bytes(task, array)
    if column.kind == "tensor":
        flat = _unwrapped(task, array, column.shape, lambda places: places)
        values = _cast(task, flat, lambda places: places // size)
        return tensor_array(column, values)
    if _types.is_null(array.type):
        array = pa.nulls(num_rows, arrow_type(column))
    if not is_nested(array.type):
        raise task.error(f"is a list of {column.dtype.name}, but its rows are {array.type}: single values.")
    lengths, inside = _opened(task, array)
    ends = np.cumsum(lengths)

    def row_of(elements: Places) -> Places:
        return np.searchsorted(ends, elements, side="right")

    flat = _unwrapped(task, inside, column.shape, row_of)
    return list_array(column, splits_of(lengths), _cast(task, flat, lambda places: row_of(places // size)))


def _opened(task: _Task, array: pa.Array) -> tuple[Places, pa.Array]:
    """The number of elements of each list (0 for a missing one that may be filled), and the elements."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    if array.null_count:
        nulls = array.is_null()
        if task.fill is None:
            raise missing_error(task.column.name, array.null_count, int(task.rows(np.array([_first(nulls)]))[0]))
        lengths[nulls.to_numpy(zero_copy_only=False)] = 0
        _note_fill(task, np.flatnonzero(nulls.to_numpy(zero_copy_only=False)))
    return lengths, array.flatten()


def _unwrapped(task: _Task, array: pa.Array, shape: tuple[int, ...], row_of: RowOf) -> pa.Array:
    """All numbers of elements that have `shape`, given as lists of those sizes or as flat ones; missing lists as
    missing numbers. `row_of` gives the row of an element."""
    depth, inside = 0, array.type
    while is_nested(inside):
        depth, inside = depth + 1, inside.value_type
    if _types.is_null(inside) and depth < len(shape):
        return pa.nulls(len(array) * math.prod(shape))
    sizes = shape if depth == len(shape) else (math.prod(shape),) if depth == 1 else None
    if sizes is None:
        raise task.error(f"has rows of {array.type}; they cannot become rows of shape {shape}.")
    unit = 1
    for size in sizes:
        array = _opened_regular(task, array, size, unit, row_of)
        unit *= size
    return array


def _opened_regular(task: _Task, array: pa.Array, size: int, unit: int, row_of: RowOf) -> pa.Array:
    """The elements of lists that all have `size` elements; `unit` lists are of one element above."""
    counts = pc.list_value_length(array)
    if len(wrong := np.flatnonzero(pc.fill_null(pc.not_equal(counts, size), False).to_numpy(zero_copy_only=False))):
        row = int(task.rows(row_of(wrong[:1] // unit))[0])
        raise task.error(
            f"has {counts[int(wrong[0])]} values in row {row} where {size} were expected, for a row of shape "
            f"{task.column.shape}. Declare it as a list column, or make all rows alike."
        )
    flat = array.flatten()  # leaves missing lists out
    if not array.null_count:
        return flat
    is_there = np.repeat(array.is_valid().to_numpy(zero_copy_only=False), size)
    return flat.take(pa.array(np.where(is_there, np.cumsum(is_there) - 1, 0), mask=~is_there))


def _of_bytes(task: _Task, array: pa.Array) -> pa.Array:
    column = task.column
    if column.kind == "list":
        raise task.error(f"is a list of {column.dtype.name}, but its rows are bytes.")
    if array.null_count:
        raise missing_error(column.name, array.null_count, int(task.rows(np.array([_first(array.is_null())]))[0]))
    sizes = pc.binary_length(array).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(sizes != column.row_bytes)
    if wrong.size:
        raise task.error(
            f"has {sizes[wrong[0]]} bytes in row {int(task.rows(wrong[:1])[0])}; a row of {column.dtype.name} and "
            f"shape {column.shape} has {column.row_bytes}."
        )
    fixed = array.cast(pa.binary(column.row_bytes))
    raw = np.frombuffer(fixed.buffers()[1], np.uint8)[fixed.offset * column.row_bytes :][: int(sizes.sum())]
    numbers = raw.view(np.uint8 if column.dtype.kind == "b" else column.dtype)
    return tensor_array(column, _cast(task, pa.array(numbers), lambda places: places // math.prod(column.shape)))


def _cast(task: _Task, array: pa.Array, row_of: RowOf) -> Numbers:
    """Flat numbers in the column's dtype, missing ones filled."""
    nulls = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    if nulls is None:
        return _exact(task, array, row_of)
    places = np.flatnonzero(nulls)
    if task.fill is None:
        raise missing_error(task.column.name, len(places), int(task.rows(row_of(places[:1]))[0]))
    values = np.full(len(array), _fill_number(task), task.column.dtype)
    kept = np.flatnonzero(~nulls)
    values[kept] = _exact(task, array.drop_null(), lambda found: row_of(kept[found]))
    _note_fill(task, row_of(places))
    return values


def _fill_number(task: _Task) -> Any:
    found = arrow_of(task.column.name, [task.fill])
    if not is_number(found.type):
        raise _bad_fill(task, f"is {task.column.dtype.name}")
    cast, wrong, _ = exactly(found.to_numpy(zero_copy_only=False), task.column.dtype)
    if wrong.size:
        raise _bad_fill(task, f"is {task.column.dtype.name}, and {task.fill!r} {why_wrong(task.fill, cast.dtype)}")  # type: ignore[arg-type]
    return cast[0]


def _exact(task: _Task, array: pa.Array, row_of: RowOf) -> Numbers:
    """Numbers, none missing, in the column's dtype."""
    column = task.column
    if not len(array):
        return np.empty(0, column.dtype)
    if is_number(array.type):
        numbers, lost = array.to_numpy(zero_copy_only=False), np.empty(0, np.int64)
    else:
        numbers, lost = _parsed(task, array, row_of)
    cast, wrong, rounded = exactly(numbers, column.dtype)
    if wrong.size:
        value = numbers[wrong[0]].item()
        row = int(task.rows(row_of(wrong[:1]))[0])
        raise task.error(
            f"has {value!r} in row {row}, which {why_wrong(value, column.dtype)}: {len(wrong)} of the values so far "
            f"cannot be {column.dtype.name}. Declare a wider type (columns=, --column {column.name}=TYPE), such as "
            "int64, uint64, float64 or string, or change the values before."
        )
    places = np.union1d(rounded, lost)
    if places.size and task.account is not None:
        detail = f"fractions, to {column.dtype.name} as asked"
        task.account.add_rows("rounded", column.name, task.rows(row_of(places)), detail=detail)
    return cast


def _parsed(task: _Task, array: pa.Array, row_of: RowOf) -> tuple[Numbers, Places]:
    """Text, decimals and times as numbers that hold them, and the places of fractions that were rounded for that."""
    kind, column = array.type, task.column
    is_integer = column.dtype.kind in "iu"
    target = pa.float64()
    if is_integer:
        target = pa.uint64() if column.dtype.kind == "u" else pa.int64()
    elif column.dtype.kind == "b":
        target = pa.bool_()
    if is_text(kind):
        array = pc.replace_substring_regex(pc.utf8_trim_whitespace(array), r"^\+([0-9.])", r"\1")
    try:
        found = array.cast(target)
    except pa.ArrowException as error:
        raise _unparsed(task, array, target, row_of, error) from error
    numbers = found.to_numpy(zero_copy_only=False)
    if target != pa.float64():
        return numbers, np.empty(0, np.int64)
    if _types.is_decimal(kind):
        return numbers, _rounded_decimals(task, array, numbers, row_of)
    for place in np.flatnonzero(np.abs(numbers) >= 2.0**53):
        digits = array[int(place)].as_py()
        if digits.lstrip("-").isdigit() and int(digits) != int(numbers[place]):
            raise _not_whole(task, digits, row_of(np.array([place])))
    return numbers, np.empty(0, np.int64)


def _rounded_decimals(task: _Task, array: pa.Array, numbers: Numbers, row_of: RowOf) -> Places:
    """The places of decimals whose digits a float64 does not give back."""
    lost = []
    for place, (value, number) in enumerate(zip(array.to_pylist(), numbers.tolist(), strict=True)):
        if value == int(value):
            if int(number) != int(value):
                raise _not_whole(task, str(value), row_of(np.array([place])))
        elif f"{number:.{array.type.scale}f}" != f"{value:f}":
            lost.append(place)
    return np.array(lost, np.int64)


def _not_whole(task: _Task, digits: str, places: Places) -> BadColumnError:
    row = int(task.rows(places)[0])
    return task.error(
        f"has {digits} in row {row}, a whole number that {task.column.dtype.name} does not hold. Declare it as int64, "
        f"uint64 or string (columns=, --column {task.column.name}=TYPE)."
    )


def _unparsed(
    task: _Task, array: pa.Array, target: pa.DataType, row_of: RowOf, error: pa.ArrowException
) -> BadColumnError:
    """The error that names the first value that is no number."""
    for place in range(len(array)):
        try:
            array.slice(place, 1).cast(target)
        except pa.ArrowException:
            row = int(task.rows(row_of(np.array([place])))[0])
            value = str(array[place].as_py())
            return task.error(
                f"has {value[:60]!r} in row {row}, which is no {task.column.dtype.name}. Declare another type "
                f"(columns=, --column {task.column.name}=TYPE; string keeps it as it is), or change the value before."
            )
    return task.error(f"({array.type}) cannot become {task.column.dtype.name}: {error}.")


# Wrapping values up, without a copy.


def tensor_array(column: Column, values: Numbers) -> pa.Array:
    """The stored array of a tensor column over C-contiguous values of its dtype, without copying them."""
    flat = _flat(column, values)
    if not column.shape:
        return flat
    return pa.ExtensionArray.from_storage(
        arrow_type(column), pa.FixedSizeListArray.from_arrays(flat, math.prod(column.shape))
    )


def list_array(column: Column, row_splits: Places, values: Numbers) -> pa.Array:
    """The stored array of a list column over its values and row splits."""
    flat = _flat(column, values)
    if column.shape:
        flat = pa.FixedSizeListArray.from_arrays(flat, math.prod(column.shape))
    splits = pa.py_buffer(row_splits)
    return pa.Array.from_buffers(arrow_type(column), len(row_splits) - 1, [None, splits], children=[flat])


def _flat(column: Column, values: Numbers) -> pa.Array:
    dtype = stored_dtype(column)
    flat = np.ascontiguousarray(values, column.dtype).reshape(-1).view(dtype)
    return pa.Array.from_buffers(pa.from_numpy_dtype(dtype), flat.size, [None, pa.py_buffer(flat)])
