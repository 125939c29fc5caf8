"""Arrow arrays of any program as columns and values of a dataset."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import BadColumnError
from .columns import Column
from .ragged import Ragged, splits_of
from .shards import Values

_types = pa.types


def column_of_arrow(name: str, kind: pa.DataType) -> Column:
    """The column that an Arrow type becomes.

    Numbers and bools are scalars, (nested) fixed-size lists and fixed-shape tensors have a shape, lists of numbers (or
    of fixed-size lists of them) are lists, text is "string", binary is "bytes", a dictionary is what it stands for.
    Raises BadColumnError for other types.
    """
    if _types.is_dictionary(kind):
        return column_of_arrow(name, kind.value_type)
    if _is_text(kind):
        return Column(name=name, dtype=np.dtype(np.uint8), kind="string")
    if _is_binary(kind):
        return Column(name=name, dtype=np.dtype(np.uint8), kind="bytes")
    is_list = _is_list(kind)
    value_type, shape = _element(kind.value_type if is_list else kind)
    if not (_types.is_integer(value_type) or _types.is_floating(value_type) or _types.is_boolean(value_type)):
        raise BadColumnError(
            f"Column {name!r} has Arrow type {kind}; a dataset holds numbers, bools, text, bytes and lists of numbers. "
            "Turn dates and decimals into numbers, and structs into columns of their own, before.",
            column=name,
        )
    dtype = np.dtype(value_type.to_pandas_dtype())
    return Column(name=name, dtype=dtype, shape=shape, kind="list" if is_list else "tensor")


def _is_text(kind: pa.DataType) -> bool:
    return bool(_types.is_string(kind) or _types.is_large_string(kind) or _types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    fixed = _types.is_fixed_size_binary(kind)
    return bool(fixed or _types.is_binary(kind) or _types.is_large_binary(kind) or _types.is_binary_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(_types.is_list(kind) or _types.is_large_list(kind))


def _element(kind: pa.DataType) -> tuple[pa.DataType, tuple[int, ...]]:
    """The value type inside of fixed-size lists or a tensor type, and their shape."""
    if isinstance(kind, pa.FixedShapeTensorType):
        # A permuted tensor lies in memory in its stored shape.
        return kind.value_type, tuple(kind.shape)
    if _types.is_fixed_size_list(kind):
        value_type, shape = _element(kind.value_type)
        return value_type, (kind.list_size, *shape)
    return kind, ()


def values_of_arrow(column: Column, array: pa.Array, *, first_row: int = 0, fill: Any = None) -> Values:
    """The rows of an Arrow array, of any type that stands for the column, as its values, maybe without a copy.

    `fill` takes the place of missing values: a number, str or bytes; a missing list becomes empty. Without it missing
    values raise BadColumnError, which counts rows from `first_row` on.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if _types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if column.kind == "list":
        return _list_values(column, array, first_row, fill)
    if column.is_variable:
        return _byte_values(column, _without_nulls(column, array, first_row, fill))
    return _tensor_values(column, array, first_row, fill).reshape(len(array), *column.shape)


def _byte_values(column: Column, array: pa.Array) -> Ragged:
    large = array.cast(pa.large_string() if column.kind == "string" else pa.large_binary())
    _, splits, data = large.buffers()
    ends = np.frombuffer(splits, np.int64)[large.offset : large.offset + len(large) + 1]
    if not len(large):
        return Ragged(np.empty(0, np.uint8), np.zeros(1, np.int64), column.kind)
    values = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]
    return Ragged(values, ends - ends[0], column.kind)


def _list_values(column: Column, array: pa.Array, first_row: int, fill: Any) -> Ragged:
    if array.null_count and fill is None:
        raise missing_error(column.name, array, first_row)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    inside = array.flatten()
    values = _tensor_values(column, inside, first_row, fill, lengths=lengths)
    return Ragged(values.reshape(len(inside), *column.shape), splits_of(lengths), column.kind)


def _tensor_values(
    column: Column, array: pa.Array, first_row: int, fill: Any, lengths: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[Any]:
    """All numbers inside, [rows × numbers per row]."""
    for size in _fixed_sizes(array.type):
        if array.null_count:
            # Flattening leaves missing rows out; they are filled number by number.
            if fill is None:
                raise missing_error(column.name, array, first_row)
            array = _filled_rows(array, size, fill)
        else:
            array = array.flatten()
    if array.null_count and fill is None and lengths is not None:
        place = int(np.searchsorted(np.cumsum(lengths), _first_null(array) // math.prod(column.shape), side="right"))
        raise missing_error(column.name, array, first_row, place)
    if array.null_count and fill is None:
        raise missing_error(column.name, array, first_row, _first_null(array) // math.prod(column.shape))
    numbers = _without_nulls(column, array, first_row, fill).to_numpy(zero_copy_only=False)
    return np.asarray(numbers, column.dtype)


def _fixed_sizes(kind: pa.DataType) -> tuple[int, ...]:
    return _element(kind)[1]


def _filled_rows(array: pa.Array, size: int, fill: Any) -> pa.Array:
    kept = np.repeat(array.is_valid().to_numpy(zero_copy_only=False), size)
    places = np.where(kept, np.cumsum(kept) - 1, -1)
    return array.flatten().take(pa.array(places, mask=~kept))


def _without_nulls(column: Column, array: pa.Array, first_row: int, fill: Any) -> pa.Array:
    if not array.null_count:
        return array
    if fill is None:
        raise missing_error(column.name, array, first_row)
    if _types.is_null(array.type):
        return pa.array([fill] * len(array))
    try:
        return pc.fill_null(array, pa.scalar(fill, array.type))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise BadColumnError(
            f"Missing values of column {column.name!r} cannot be filled with {fill!r}: its values are {array.type} "
            f"({error}).",
            column=column.name,
        ) from error


def _first_null(array: pa.Array) -> int:
    return int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])


def missing_error(name: str, array: pa.Array, first_row: int, place: int | None = None) -> BadColumnError:
    """The error for missing values in an array; `place` is the row of the first, if it is not that in the array."""
    row = first_row + (_first_null(array) if place is None else place)
    return BadColumnError(
        f"Column {name!r} has {array.null_count} missing values, the first in row {row}. "
        f"Fill them with fill_nulls={{{name!r}: value}}, or leave these rows out.",
        column=name,
    )
