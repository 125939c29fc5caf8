"""Columns of Arrow tables of any program as columns of a dataset: what they become, and their values as that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import BadColumnError
from ..format.arrow_values import column_of_arrow, missing_error, values_of_arrow
from ..format.columns import Column
from ..format.shards import Values
from .requested import RequestedColumn

_types = pa.types


def plain_arrays(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """The columns of a batch without wrapping, by name: fields of a struct as `struct.field`, extension types as what
    they are stored as, and an encoded image or sound (a struct of `bytes` and `path`) as its bytes."""
    found: dict[str, pa.Array] = {}
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        _add_plain(found, name, array)
    return found


def _add_plain(found: dict[str, pa.Array], name: str, array: pa.Array) -> None:
    if isinstance(array, pa.ExtensionArray) and not isinstance(array.type, pa.FixedShapeTensorType):
        array = _unwrapped(name, array)
    if not _types.is_struct(array.type):
        found[name] = array
        return
    names = [array.type.field(number).name for number in range(array.type.num_fields)]
    # `flatten` makes the fields of a missing struct missing.
    fields = dict(zip(names, array.flatten(), strict=True))
    if set(fields) == {"bytes", "path"}:
        found[name] = fields["bytes"]
    else:
        for field, values in fields.items():
            _add_plain(found, f"{name}.{field}", values)


def _unwrapped(name: str, array: pa.ExtensionArray) -> pa.Array:
    storage = array.storage
    if not _types.is_struct(storage.type) or {"data", "shape"} != {field.name for field in storage.type}:
        return storage
    # Ray's tensors of different shapes.
    lengths = storage.field("shape").value_lengths().to_numpy(zero_copy_only=False)
    if (lengths != 1).any():
        raise BadColumnError(
            f"Column {name!r} has arrays of {lengths.max()} dimensions whose shapes differ; rows of different lengths "
            "have one dimension. Flatten them, or make their shapes equal.",
            column=name,
        )
    return storage.field("data")


def tensor_shapes(schema: pa.Schema) -> dict[str, RequestedColumn]:
    """The shapes of columns whose extension type knows one that its storage does not show (Ray's tensors)."""
    return {
        field.name: RequestedColumn(kind="tensor", shape=tuple(field.type.shape))
        for field in schema
        if isinstance(field.type, pa.BaseExtensionType)
        and not isinstance(field.type, pa.FixedShapeTensorType)
        and isinstance(getattr(field.type, "shape", None), tuple | list)
        and all(isinstance(size, int) for size in field.type.shape)
    }


def column_of(name: str, kind: pa.DataType, wanted: RequestedColumn | None) -> Column:
    """The column that a plain Arrow type becomes; raises BadColumnError."""
    if wanted is None:
        return column_of_arrow(name, kind)
    return wanted.column(name, _nearest(name, kind, wanted))


def _nearest(name: str, kind: pa.DataType, wanted: RequestedColumn) -> Column:
    try:
        return column_of_arrow(name, kind)
    except BadColumnError:
        inside = kind
        while _is_nested(inside):
            inside = inside.value_type
        if _types.is_null(inside) and wanted.dtype is None and wanted.kind not in ("string", "bytes"):
            raise
        if _is_number(inside):
            return Column(name=name, dtype=np.dtype(inside.to_pandas_dtype()), kind="list")
        if wanted.dtype is None and wanted.kind not in ("string", "bytes"):
            raise
        return Column(name=name, dtype=np.dtype(np.uint8), kind="string")


def _is_number(kind: pa.DataType) -> bool:
    return bool(_types.is_integer(kind) or _types.is_floating(kind) or _types.is_boolean(kind))


def _is_nested(kind: pa.DataType) -> bool:
    return bool(_types.is_list(kind) or _types.is_large_list(kind) or _types.is_fixed_size_list(kind))


def values_as(column: Column, array: pa.Array, *, first_row: int = 0, fill: Any = None) -> Values:
    """The rows of a plain Arrow array as values of the column, converted if they are something else.

    Numbers are converted only if they keep their values, lists to a tensor if all have its number of elements, bytes to
    numbers if they are as many as a row has. Raises BadColumnError, which counts rows from `first_row` on.
    """
    if _types.is_null(array.type):
        array = _typed_nulls(column, array)
    if _column_or_none(column.name, array.type) == column:
        return values_of_arrow(column, array, first_row=first_row, fill=fill)
    if _types.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        return _converted(column, array, first_row, fill)
    except (pa.ArrowException, ValueError, TypeError) as error:
        if isinstance(error, BadColumnError):
            raise
        raise BadColumnError(
            f"Column {column.name!r} ({array.type}) cannot become {_text(column)} in rows {first_row} to "
            f"{first_row + len(array) - 1}: {error}.",
            column=column.name,
        ) from error


def _typed_nulls(column: Column, array: pa.Array) -> pa.Array:
    kinds: Mapping[str, pa.DataType] = {"string": pa.large_string(), "bytes": pa.large_binary()}
    value_type = kinds.get(column.kind, pa.from_numpy_dtype(column.dtype))
    return pa.nulls(len(array), pa.large_list(value_type) if column.kind == "list" else value_type)


def _column_or_none(name: str, kind: pa.DataType) -> Column | None:
    try:
        return column_of_arrow(name, kind)
    except BadColumnError:
        return None


def _converted(column: Column, array: pa.Array, first_row: int, fill: Any) -> Values:
    if column.kind in ("string", "bytes"):
        wanted = pa.large_string() if column.kind == "string" else pa.large_binary()
        if column.kind == "bytes" and not (_types.is_string(array.type) or _types.is_large_string(array.type)):
            array = array.cast(pa.large_string()) if not _is_bytes(array.type) else array
        return values_of_arrow(column, array.cast(wanted), first_row=first_row, fill=fill)
    value_type = pa.from_numpy_dtype(column.dtype)
    if column.kind == "list":
        wanted = pa.large_list(pa.list_(value_type, math.prod(column.shape)) if column.shape else value_type)
        flat = Column(
            name=column.name,
            dtype=column.dtype,
            shape=(math.prod(column.shape),) if column.shape else (),
            kind="list",
        )
        found = values_of_arrow(flat, array.cast(wanted), first_row=first_row, fill=fill)
        return _reshaped(found, column)
    if _is_bytes(array.type):
        return _numbers_of_bytes(column, array, first_row)
    if not _is_nested(array.type):
        if column.shape:
            raise ValueError(f"its rows are single values, not of shape {column.shape}")
        return values_of_arrow(column, array.cast(value_type), first_row=first_row, fill=fill)
    if array.null_count:
        raise missing_error(column.name, array, first_row)
    numbers = _flat_numbers(column, array, first_row)
    return np.asarray(numbers.cast(value_type).to_numpy(zero_copy_only=False), column.dtype).reshape(
        len(array), *column.shape
    )


def _reshaped(found: Values, column: Column) -> Values:
    from ..format.ragged import Ragged

    if not isinstance(found, Ragged) or not column.shape:
        return found
    return Ragged(found.values.reshape(-1, *column.shape), found.row_splits, "list")


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(_types.is_binary(kind) or _types.is_large_binary(kind) or _types.is_fixed_size_binary(kind))


def _flat_numbers(column: Column, array: pa.Array, first_row: int) -> pa.Array:
    """All numbers inside of nested lists, after a look whether every row has as many as the shape."""
    ends: npt.NDArray[np.int64] = np.arange(len(array) + 1, dtype=np.int64)
    while _is_nested(array.type):
        if array.null_count:
            raise missing_error(column.name, array, first_row, int(np.flatnonzero(array.is_null())[0]))
        if _types.is_fixed_size_list(array.type):
            ends = ends * array.type.list_size
            array = array.flatten()
        else:
            offsets = array.offsets.to_numpy()
            ends = offsets[ends] - offsets[0]
            array = array.flatten()
    counts, expected = np.diff(ends), math.prod(column.shape)
    wrong = np.flatnonzero(counts != expected)
    if wrong.size:
        raise BadColumnError(
            f"Column {column.name!r} has {counts[wrong[0]]} numbers in row {first_row + wrong[0]}; a row of shape "
            f"{column.shape} has {expected}. Leave the shape out to keep it as a list.",
            column=column.name,
        )
    if array.null_count:
        place = int(np.searchsorted(ends, int(np.flatnonzero(array.is_null())[0]), side="right")) - 1
        raise missing_error(column.name, array, first_row, place)
    return array


def _numbers_of_bytes(column: Column, array: pa.Array, first_row: int) -> npt.NDArray[Any]:
    raw = Column(name=column.name, dtype=np.dtype(np.uint8), kind="bytes")
    rows: Any = values_of_arrow(raw, array, first_row=first_row)
    expected = column.row_bytes
    wrong = np.flatnonzero(rows.lengths != expected)
    if wrong.size:
        raise BadColumnError(
            f"Column {column.name!r} has {rows.lengths[wrong[0]]} bytes in row {first_row + wrong[0]}; a row as "
            f"{_text(column)} has {expected}.",
            column=column.name,
        )
    return np.ascontiguousarray(rows.values).view(column.dtype).reshape(len(rows), *column.shape)


def _text(column: Column) -> str:
    if column.kind in ("string", "bytes"):
        return column.kind
    return f"{column.kind} of {column.dtype.name} {'×'.join(map(str, column.shape)) or 'scalar'}"
