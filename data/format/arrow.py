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

import numpy as np
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
    widened,
)
from .casts import Cast, Places, RowOf, cast_numbers, fill_number, missing_error
from .columns import Column
from .memory import splits_of
from .python_values import arrow_of
from .stored_arrays import list_array, tensor_array

__all__ = ["arrow_of", "arrow_schema", "arrow_type", "as_stored", "column_of", "missing_error", "widened"]

_types = pa.types


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
    task = Cast(column, first_row, row_numbers, fill, account)
    plain = _plain(task, array)
    if column.kind in ("string", "bytes"):
        return _text(task, plain)
    return _numeric(task, plain)


def _plain(task: Cast, array: pa.Array | pa.ChunkedArray) -> pa.Array:
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
    """The same with 64-bit offsets."""
    if is_text(array.type):
        return array.cast(pa.large_string())
    if is_binary(array.type):
        return array.cast(pa.large_binary())
    return array.cast(pa.large_list(array.type.value_type)) if is_list(array.type) else array


def _unpermuted(array: pa.ExtensionArray) -> pa.Array:
    """The values of tensors in the order of their logical shape: Arrow may store the axes in another one."""
    shape, order = logical_shape(array.type), array.type.permutation
    if order is None or list(order) == sorted(order):
        return array.storage
    places = np.arange(math.prod(shape)).reshape(tuple(array.type.shape)).transpose(order).reshape(-1)
    size, storage = len(places), array.storage
    values = storage.values.slice(storage.offset * size, len(storage) * size)
    taken = values.take(pa.array((np.arange(len(storage))[:, None] * size + places).reshape(-1)))
    return pa.FixedSizeListArray.from_arrays(taken, size, mask=storage.is_null())


# Text and bytes.


def _text(task: Cast, array: pa.Array) -> pa.Array:
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
    task.take_missing(large)
    expected = str if task.column.kind == "string" else bytes
    if not isinstance(task.fill, expected):
        raise task.bad_fill(f"is {task.column.kind}: give a {expected.__name__}")
    return pc.fill_null(large, pa.scalar(task.fill, wanted))


def _not_utf8(task: Cast, array: pa.Array) -> BadColumnError:
    """The error that names the first row that is no text: Arrow says only that there is one."""
    for place, row in enumerate(array.cast(pa.large_binary())):
        try:
            (row.as_py() or b"").decode()
        except UnicodeDecodeError as error:
            number = task.row(np.array([place]))
            return task.error(
                f"has text in row {number} that is not UTF-8 ({error.reason} at byte {error.start}). Give it as bytes, "
                "or in the encoding that it has been read with."
            )
    return task.error("has text that is not UTF-8.")


# Numbers: lists are unwrapped to one flat array, which is cast and wrapped again.


def _numeric(task: Cast, array: pa.Array) -> pa.Array:
    """The rows of a tensor or list column."""
    column, num_rows = task.column, len(array)
    size = math.prod(column.shape)
    if is_binary(array.type):
        return _of_bytes(task, array)
    if column.kind == "tensor":
        flat = _unwrapped(task, array, column.shape, lambda places: places)
        values = cast_numbers(task, flat, lambda places: places // size)
        return tensor_array(column, values)
    if _types.is_null(array.type):
        array = pa.nulls(num_rows, arrow_type(column))
    if not is_nested(array.type):
        raise task.error(f"is a list of {column.dtype.name}, but its rows are {array.type}: single values.")
    lengths, inside = _opened(task, array)
    ends = np.cumsum(lengths)

    def row_of(elements: Places) -> Places:
        return np.searchsorted(ends, elements, side="right")

    # Where all lists are empty, their elements need not have the shape.
    flat = _unwrapped(task, inside, column.shape, row_of) if len(inside) else pa.nulls(0)
    return list_array(column, splits_of(lengths), cast_numbers(task, flat, lambda places: row_of(places // size)))


def _opened(task: Cast, array: pa.Array) -> tuple[Places, pa.Array]:
    """The number of elements of each list (0 for a missing one that may be filled), and the elements."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    if array.null_count:
        if task.fill not in (None, []):
            fill_number(task)  # what cannot stand for a number says nothing about a list
        lengths[task.take_missing(array, instead=[])] = 0
    return lengths, array.flatten()


def _unwrapped(task: Cast, array: pa.Array, shape: tuple[int, ...], row_of: RowOf) -> pa.Array:
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


def _opened_regular(task: Cast, array: pa.Array, size: int, unit: int, row_of: RowOf) -> pa.Array:
    """The elements of lists that all have `size` elements; `unit` lists are of one element above."""
    counts = pc.list_value_length(array)
    if len(wrong := np.flatnonzero(pc.fill_null(pc.not_equal(counts, size), False).to_numpy(zero_copy_only=False))):
        row = task.row(row_of(wrong[:1] // unit))
        raise task.error(
            f"has {counts[int(wrong[0])]} values in row {row} where {size} were expected, for a row of shape "
            f"{task.column.shape}. Declare it as a list column, or make all rows alike."
        )
    flat = array.flatten()  # leaves missing lists out
    if not array.null_count:
        return flat
    # They come back as so many missing numbers, which get the fill or are refused like every one.
    is_there = np.repeat(array.is_valid().to_numpy(zero_copy_only=False), size)
    return flat.take(pa.array(np.where(is_there, np.cumsum(is_there) - 1, 0), mask=~is_there))


def _of_bytes(task: Cast, array: pa.Array) -> pa.Array:
    """Bytes that are the memory of numbers, as many as a row has."""
    column = task.column
    if column.kind == "list":
        raise task.error(f"is a list of {column.dtype.name}, but its rows are bytes.")
    if array.null_count:
        raise missing_error(column.name, array.null_count, task.row(np.flatnonzero(array.is_null().to_numpy(False))))
    sizes = pc.binary_length(array).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(sizes != column.row_bytes)
    if wrong.size:
        raise task.error(
            f"has {sizes[wrong[0]]} bytes in row {task.row(wrong[:1])}; a row of {column.dtype.name} and "
            f"shape {column.shape} has {column.row_bytes}."
        )
    fixed = array.cast(pa.binary(column.row_bytes))
    raw = np.frombuffer(fixed.buffers()[1], np.uint8)[fixed.offset * column.row_bytes :][: int(sizes.sum())]
    numbers = raw.view(np.uint8 if column.dtype.kind == "b" else column.dtype)
    return tensor_array(column, cast_numbers(task, pa.array(numbers), lambda places: places // math.prod(column.shape)))
