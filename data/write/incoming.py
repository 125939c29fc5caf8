"""What a writer may be given (arrays, lists, text, bytes, ragged rows, Arrow) as columns and values of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import BadColumnError
from ..format.arrow_values import column_of_arrow, values_of_arrow
from ..format.columns import Column
from ..format.ragged import Ragged
from ..format.shards import Values

_ARROW = (pa.Array, pa.ChunkedArray)


def incoming_column(name: str, values: Any) -> Column:
    """The column that values stand for.

    Arrays of numbers are tensors; str, bytes and rows of different lengths (nested lists, arrays, `Ragged`) become
    columns of those kinds. Raises BadColumnError.
    """
    values = _plain(values)
    if isinstance(values, _ARROW):
        return column_of_arrow(name, values.type)
    if isinstance(values, Ragged):
        return Column(
            name=name, dtype=values.values.dtype.newbyteorder("="), shape=values.values.shape[1:], kind=values.kind
        )
    first = _first_row(values)
    if isinstance(first, str):
        return Column(name=name, dtype=np.dtype(np.uint8), kind="string")
    if isinstance(first, bytes | bytearray | memoryview):
        return Column(name=name, dtype=np.dtype(np.uint8), kind="bytes")
    array = _regular(name, values)
    if array is not None:
        return Column(name=name, dtype=array.dtype.newbyteorder("="), shape=array.shape[1:])
    if isinstance(first, pa.Scalar) or not hasattr(first, "__len__"):
        return column_of_arrow(name, _through_arrow(name, values).type)
    ragged = _ragged_rows(name, values, Column(name=name, dtype=np.dtype(np.float64), kind="list"), None)
    return Column(name=name, dtype=ragged.values.dtype.newbyteorder("="), shape=ragged.values.shape[1:], kind="list")


def incoming_values(column: Column, values: Any, *, first_row: int = 0, fill: Any = None) -> Values:
    """`values` as values of a known column, without a copy where that is possible.

    `fill` takes the place of missing values. Raises BadColumnError for values of another kind, dtype or shape, and for
    missing ones without `fill`; it counts rows from `first_row` on.
    """
    values = _plain(values)
    if isinstance(values, Ragged):
        return _checked(column, values)
    if isinstance(values, np.ma.MaskedArray):
        values = _unmasked(column, values, fill)
    if not isinstance(values, _ARROW) and _has_none(values):
        values = _narrowed(column, _through_arrow(column.name, values))
    if isinstance(values, _ARROW):
        found = column_of_arrow(column.name, values.type) if not pa.types.is_null(values.type) else column
        _check_alike(column, found)
        return values_of_arrow(column, values, first_row=first_row, fill=fill)
    if column.kind in ("string", "bytes"):
        return _text_rows(column, values, first_row)
    if column.kind == "list":
        return _ragged_rows(column.name, values, column, column.dtype)
    array = _regular(column.name, values)
    if array is None:
        raise BadColumnError(
            f"Column {column.name!r} is no regular array from row {first_row} on: its rows should all be "
            f"{_text(column)}. For rows of different lengths declare it as a list column.",
            column=column.name,
        )
    return _checked(column, array if isinstance(values, np.ndarray) else _cast(array, column.dtype))


def _cast(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Numbers of a Python list, which say nothing about their width, in the column's dtype if they fit it."""
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        fits = not array.size or (int(array.min()) >= limits.min and int(array.max()) <= limits.max)
    else:
        fits = np.can_cast(array.dtype, dtype, "same_kind")
    return array.astype(dtype, copy=False) if fits else array


def _narrowed(column: Column, array: pa.Array) -> pa.Array:
    if column.is_variable or column.shape or pa.types.is_null(array.type):
        return array
    try:
        return array.cast(pa.from_numpy_dtype(column.dtype))
    except pa.ArrowException:
        return array


def _checked(column: Column, values: Values) -> Values:
    if isinstance(values, Ragged):
        found = Column(
            name=column.name,
            dtype=values.values.dtype.newbyteorder("="),
            shape=values.values.shape[1:],
            kind=values.kind,
        )
    else:
        found = Column(name=column.name, dtype=values.dtype.newbyteorder("="), shape=values.shape[1:])
    _check_alike(column, found)
    return values


def _check_alike(column: Column, found: Column) -> None:
    if found != column and found.kind == column.kind == "tensor" and found.dtype == column.dtype:
        raise BadColumnError(
            f"Column {column.name!r} has rows of shape {column.shape}, but rows of shape {found.shape} were given. If "
            "their length differs, declare it in columns= as a list column.",
            column=column.name,
        )
    if found != column:
        raise BadColumnError(
            f"Column {column.name!r} is {_text(column)}, but rows of {_text(found)} were given. Every write needs the "
            "same columns: convert these values before.",
            column=column.name,
        )


def _text(column: Column) -> str:
    if column.kind in ("string", "bytes"):
        return column.kind
    shape = "×".join(map(str, column.shape)) or "scalar"
    return f"{'list of ' if column.kind == 'list' else ''}{column.dtype.name} {shape}"


def _plain(values: Any) -> Any:
    """Values of a kind that is known here: others (tensors, series) as arrays."""
    return values if isinstance(values, (list, tuple, np.ndarray, Ragged, *_ARROW)) else np.asarray(values)


def _first_row(values: Any) -> Any:
    """The first row that is not missing, None if there is none."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values[0] if values.ndim and len(values) and values.dtype.kind in "UST" else None
    return next((row for row in values if row is not None), None) if _is_rows(values) else None


def _is_rows(values: Any) -> bool:
    return isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.ndim > 0)


def _has_none(values: Any) -> bool:
    if isinstance(values, np.ndarray):
        return values.dtype == object and values.ndim == 1 and any(row is None for row in values)
    return isinstance(values, list | tuple) and any(row is None for row in values)


def _regular(name: str, values: Any) -> npt.NDArray[Any] | None:
    """Values as one array of numbers, None if their rows differ in shape or are objects."""
    try:
        array = np.asarray(values.data if isinstance(values, np.ma.MaskedArray) else values)
    except (ValueError, TypeError):
        return None
    if array.ndim == 0:
        raise BadColumnError(f"Column {name!r} is a single value; a column has one entry per row.", column=name)
    return None if array.dtype == object else array


def _ragged_rows(name: str, values: Any, column: Column, dtype: np.dtype[Any] | None) -> Ragged:
    try:
        shape = column.shape if dtype is not None else _inner_shape(values)
        ragged = Ragged.from_rows(values, "list", None, shape)
    except (ValueError, TypeError) as error:
        raise BadColumnError(
            f"Column {name!r} is no regular array and no list of arrays: {error}", column=name
        ) from error
    found = ragged.values.dtype
    if dtype is not None and found != dtype:
        # Nested Python lists say nothing about their width; an array says what it is.
        cast = ragged.values if _holds_arrays(values) else _cast(ragged.values, dtype)
        if not cast.size or cast.dtype == dtype:
            return Ragged(cast.astype(dtype, copy=False), ragged.row_splits, "list")
        _check_alike(column, Column(name=name, dtype=found.newbyteorder("="), shape=column.shape, kind="list"))
    return ragged


def _inner_shape(values: Any) -> tuple[int, ...]:
    return next((np.shape(row)[1:] for row in values if np.size(row)), ())


def _holds_arrays(values: Any) -> bool:
    return any(isinstance(row, np.ndarray) for row in values)


def _text_rows(column: Column, values: Any, first_row: int) -> Ragged:
    rows = values.tolist() if isinstance(values, np.ndarray) else list(values)
    wanted = str if column.kind == "string" else (bytes, bytearray, memoryview)
    for place, row in enumerate(rows):
        if not isinstance(row, wanted):
            raise BadColumnError(
                f"Column {column.name!r} is {column.kind}, but row {first_row + place} is {row!r:.60} "
                f"({type(row).__name__}).",
                column=column.name,
            )
    return Ragged.from_rows(rows, column.kind)


def _unmasked(column: Column, values: np.ma.MaskedArray[Any, Any], fill: Any) -> npt.NDArray[Any]:
    if np.ma.is_masked(values) and fill is None:
        raise BadColumnError(
            f"Column {column.name!r} is a masked array with missing values; fill them first, or give "
            f"fill_nulls={{{column.name!r}: value}}.",
            column=column.name,
        )
    return np.asarray(values.filled(fill) if fill is not None else values.data)


def _through_arrow(name: str, values: Any) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise BadColumnError(
            f"Column {name!r} has dtype object and its rows are no numbers, text or lists of one kind ({error}).",
            column=name,
        ) from error


def check_names(known: Mapping[str, Column], given: Mapping[str, Any]) -> None:
    """Raise BadColumnError if a write brings other columns than the dataset has."""
    missing, unknown = [n for n in known if n not in given], [n for n in given if n not in known]
    if missing or unknown:
        text = "; ".join(
            [*(f"column {name!r} is missing" for name in missing), *(f"column {name!r} is unknown" for name in unknown)]
        )
        raise BadColumnError(
            f"Rows were given with other columns than the dataset has: {text}. It has {', '.join(map(repr, known))}.",
            column=str((missing or unknown)[0]),
        )
