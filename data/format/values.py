"""From what a user's function returned to the rows of a column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .columns import Column, ColumnKind
from .ragged import Ragged
from .shards import Values


def as_values(returned: Any, column: Column | None = None) -> Values:
    """Rows as an array [rows, *shape] or `Ragged`: from one of these, nested sequences, or a sequence of str or bytes.

    `column` is what is expected, if that is known; numbers are never converted. Raises ValueError, TypeError.
    """
    if isinstance(returned, Ragged):
        return returned if column is None or column.is_variable else _rectangular(returned)
    kind = _text_kind(returned) if column is None else column.kind
    if kind in ("string", "bytes"):
        return _text(list(returned), kind)
    if kind == "list":
        return _lists(list(returned), column)
    if isinstance(returned, np.ndarray) and returned.dtype != object:
        return returned
    try:
        array = np.asarray(returned)
    except ValueError:  # rows of different lengths
        array = np.empty(0, object)
    if array.dtype != object:
        return array
    if column is not None:
        raise ValueError("its rows have different shapes")
    return _lists(list(returned), None)


def as_column(name: str, values: Values) -> Column:
    """The column that these rows belong to; raises BadColumnError for a dtype that no column has."""
    if isinstance(values, Ragged):
        return Column(name=name, dtype=values.values.dtype, shape=values.values.shape[1:], kind=values.kind)
    return Column(name=name, dtype=values.dtype, shape=values.shape[1:])


def _text_kind(rows: Any) -> ColumnKind:
    if isinstance(rows, np.ndarray):
        if rows.ndim == 1 and rows.dtype.kind in "US":
            return "string" if rows.dtype.kind == "U" else "bytes"
        if rows.dtype != object:
            return "tensor"
    if not isinstance(rows, Sequence | np.ndarray) or not len(rows):
        return "tensor"
    if isinstance(rows[0], str):
        return "string"
    return "bytes" if isinstance(rows[0], bytes | bytearray) else "tensor"


def _rectangular(rows: Ragged) -> Values:
    """Rows that all have one length as an array; others as they are."""
    lengths = rows.lengths
    if rows.kind != "list" or not lengths.size or (lengths != lengths[0]).any():
        return rows
    return rows.values.reshape(len(rows), int(lengths[0]), *rows.values.shape[1:])


def _text(rows: list[Any], kind: ColumnKind) -> Ragged:
    if kind == "string" and rows and isinstance(rows[0], bytes):  # as TensorFlow gives text
        encoded = Ragged.from_rows(rows, "bytes")
        encoded.values.tobytes().decode()
        return Ragged(encoded.values, encoded.row_splits, "string")
    return Ragged.from_rows(rows, kind)


def _lists(rows: list[Any], column: Column | None) -> Ragged:
    if column is None:
        arrays = [np.asarray(row) for row in rows]
        shape = next((array.shape[1:] for array in arrays if array.size), ())
        return Ragged.from_rows(rows, "list", None, shape)
    found = Ragged.from_rows(rows, "list", None, column.shape)
    if found.values.size == 0:  # nothing tells a dtype
        return Ragged(np.empty((0, *column.shape), column.dtype), found.row_splits, "list")
    return found
