"""The one table of types: which column an Arrow type becomes, which Arrow type a column is stored as, and which type
holds every value of two others.

Everything that is not a row in memory is named by an Arrow type: files of other programs, record batches on their way
into a dataset, shards. pyarrow's own unification (`unify_schemas`) was not taken for widening: it makes int64 of int64
and uint64 and double of int64 and double, and values change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ..errors import BadColumnError
from .columns import Column

_types = pa.types
_INTEGERS = (pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64())
_FLOATS = (pa.float16(), pa.float32(), pa.float64())
_FLOAT_BITS = {16: 11, 32: 24, 64: 53}  # of whole numbers that it holds exactly


def is_text(type: pa.DataType) -> bool:
    """Whether values are text."""
    return bool(_types.is_string(type) or _types.is_large_string(type) or _types.is_string_view(type))


def is_binary(type: pa.DataType) -> bool:
    """Whether values are bytes."""
    fixed = _types.is_fixed_size_binary(type)
    return bool(fixed or _types.is_binary(type) or _types.is_large_binary(type) or _types.is_binary_view(type))


def is_list(type: pa.DataType) -> bool:
    """Whether values are lists of any length."""
    views = _types.is_list_view(type) or _types.is_large_list_view(type)
    return bool(views or _types.is_list(type) or _types.is_large_list(type))


def is_nested(type: pa.DataType) -> bool:
    """Whether values are lists of any or of one length."""
    return is_list(type) or bool(_types.is_fixed_size_list(type))


def is_number(type: pa.DataType) -> bool:
    """Whether values are numbers that a dataset holds, or bools."""
    return bool(_types.is_integer(type) or _types.is_floating(type) or _types.is_boolean(type))


def innermost(type: pa.DataType) -> pa.DataType:
    """The type of what is inside of lists of lists; the type itself if there are none."""
    while is_nested(type):
        type = type.value_type
    return type


def column_of(name: str, type: pa.DataType) -> Column:
    """The column that an Arrow type becomes.

    Numbers and bools are scalars, (nested) fixed-size lists and fixed-shape tensors have a shape (a permuted tensor the
    one that its reader sees), lists of numbers (or of fixed-size lists of them) are lists, text is "string", binary is
    "bytes", a dictionary is what it stands for. Raises BadColumnError for other types.
    """
    if _types.is_dictionary(type):
        return column_of(name, type.value_type)
    if is_text(type) or is_binary(type):
        return Column(name=name, dtype=np.dtype(np.uint8), kind="string" if is_text(type) else "bytes")
    value_type, shape = _element(type.value_type if is_list(type) else type)
    if not is_number(value_type):
        raise BadColumnError(_why_not(name, type), column=name)
    dtype = np.dtype(value_type.to_pandas_dtype())
    return Column(name=name, dtype=dtype, shape=shape, kind="list" if is_list(type) else "tensor")


def _why_not(name: str, type: pa.DataType) -> str:
    if _types.is_null(innermost(type)):
        return (
            f"Column {name!r} has Arrow type {type}: only missing values or empty lists, which say nothing about their "
            "numbers. Declare it (columns=), fill it, or leave it out."
        )
    return (
        f"Column {name!r} has Arrow type {type}; a dataset holds numbers, bools, text, bytes and lists of numbers. "
        "Turn dates and decimals into numbers, and structs into columns of their own, before."
    )


def _element(type: pa.DataType) -> tuple[pa.DataType, tuple[int, ...]]:
    """The value type inside of fixed-size lists or a tensor type, and their shape."""
    if isinstance(type, pa.FixedShapeTensorType):
        return type.value_type, logical_shape(type)
    if isinstance(type, pa.Bool8Type):
        return pa.bool_(), ()
    if _types.is_fixed_size_list(type):
        value_type, shape = _element(type.value_type)
        return value_type, (type.list_size, *shape)
    return type, ()


def logical_shape(type: pa.FixedShapeTensorType) -> tuple[int, ...]:
    """The shape of a tensor as its reader sees it, which is that in memory if its axes are not permuted."""
    shape = tuple(type.shape)
    return shape if type.permutation is None else tuple(shape[axis] for axis in type.permutation)


def arrow_type(column: Column, *, bools: bool = False) -> pa.DataType:
    """The Arrow type that a column is stored as.

    A scalar column is a plain Arrow array, any other of fixed shape a fixed-shape tensor array; lists, text and bytes
    are Arrow's large (64-bit) ones. Arrow packs bools into bits, which cannot be gathered as bytes: they are stored as
    uint8, and the manifest keeps the dtype; for other programs (`bools`) they are Arrow's own.
    """
    if column.kind == "string":
        return pa.large_string()
    if column.kind == "bytes":
        return pa.large_binary()
    value_type = pa.from_numpy_dtype(column.dtype if bools else stored_dtype(column))
    if column.kind == "list":
        element = pa.list_(value_type, math.prod(column.shape)) if column.shape else value_type
        return pa.large_list(pa.field("item", element, nullable=False))
    return pa.fixed_shape_tensor(value_type, column.shape) if column.shape else value_type


def arrow_schema(columns: Sequence[Column], *, bools: bool = False) -> pa.Schema:
    """The Arrow schema of a shard with these columns (`bools` as in `arrow_type`), none of them nullable."""
    return pa.schema([pa.field(column.name, arrow_type(column, bools=bools), nullable=False) for column in columns])


def stored_dtype(column: Column) -> np.dtype[np.generic]:
    """The dtype of the column's values inside the file."""
    return np.dtype(np.uint8) if column.dtype.kind == "b" else column.dtype


def widened(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The smallest Arrow type that holds every value of both exactly, None if there is none.

    So int64 and uint64 have none, int32 and float32 have float64, int64 and float64 none, bools and numbers none; a
    dictionary counts as its values, lists of any two widths are large lists, missing values take the other's type.
    """
    if one.equals(other) or _types.is_null(other):
        return one
    if _types.is_null(one):
        return other
    if _types.is_dictionary(one) or _types.is_dictionary(other):
        return widened(*(type.value_type if _types.is_dictionary(type) else type for type in (one, other)))
    if is_text(one) and is_text(other):
        return pa.large_string()
    if is_binary(one) and is_binary(other):
        return pa.large_binary()
    if _types.is_decimal(one) and _types.is_decimal(other):
        return _wider_decimal(one, other)
    if _types.is_struct(one) and _types.is_struct(other):
        return _wider_struct(one, other)
    if is_nested(one) and is_nested(other):
        return _wider_list(one, other)
    return _wider_number(one, other)


def _wider_number(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The first of the integers, or of the floats, from small to large."""
    if not all(_types.is_integer(type) or _types.is_floating(type) for type in (one, other)):
        return None
    candidates = _FLOATS if _types.is_floating(one) or _types.is_floating(other) else _INTEGERS
    return next((type for type in candidates if _holds(type, one) and _holds(type, other)), None)


def _holds(type: pa.DataType, other: pa.DataType) -> bool:
    """Whether a number type holds every value of another one."""
    if _types.is_floating(other):
        return bool(_types.is_floating(type) and type.bit_width >= other.bit_width)
    low, high = _range(other)
    if _types.is_floating(type):
        return high <= 2 ** _FLOAT_BITS[type.bit_width]
    least, most = _range(type)
    return least <= low and high <= most


def _range(type: pa.DataType) -> tuple[int, int]:
    if _types.is_signed_integer(type):
        return -(2 ** (type.bit_width - 1)), 2 ** (type.bit_width - 1) - 1
    return 0, 2**type.bit_width - 1


def _wider_decimal(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """With as many digits before and behind the point as either has, if Arrow has so many."""
    scale = max(one.scale, other.scale)
    precision = scale + max(one.precision - one.scale, other.precision - other.scale)
    if precision > 76:
        return None
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def _wider_struct(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Field by field; others, or in another order, are another struct."""
    if [field.name for field in one] != [field.name for field in other]:
        return None
    types = [widened(mine.type, theirs.type) for mine, theirs in zip(one, other, strict=True)]
    if any(type is None for type in types):
        return None
    return pa.struct([pa.field(field.name, type) for field, type in zip(one, types, strict=True)])


def _wider_list(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    value_type = widened(one.value_type, other.value_type)
    if value_type is None:
        return None
    both_fixed = _types.is_fixed_size_list(one) and _types.is_fixed_size_list(other)
    if both_fixed and one.list_size == other.list_size:
        return pa.list_(value_type, one.list_size)
    return pa.large_list(value_type)
