"""Rows as they are given to a writer: whether they go with the dataset's columns.

The first rows make the columns, if none are declared, and all others must be of them. Whether float64 may be given for
a column of int64 depends on who gives it. A numpy array, a table, a frame say their dtype, and another one than before
is a mistake that is told at once, before some value happens not to fit. A list of Python's numbers says nothing: 1 and
1.5 come in any order, so there the values decide (`as_stored` refuses the one that is no whole number). Nor does an
array say anything that has no elements, or one of objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import BadColumnError
from ..format.arrow import column_of
from ..format.arrow_types import arrow_type, innermost
from ..format.columns import Column


def all_empty(rows: Mapping[str, Any]) -> bool:
    """Whether rows of all columns were given, and none in any."""
    return bool(rows) and all(_num_rows(values) == 0 for values in rows.values())


def _num_rows(values: object) -> int | None:
    try:
        return len(values)  # type: ignore[arg-type]
    except TypeError:  # no rows, which is told later: a number, an array without dimensions
        return None


def check_different(names: Sequence[str]) -> None:
    """Raise BadColumnError for columns of one name."""
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated:
        raise BadColumnError(
            f"Rows were given with several columns named {', '.join(map(repr, repeated))}. Rename all but one.",
            column=repeated[0],
        )


def first_column(name: str, array: pa.Array, values: object) -> Column:
    """The column that the first rows make."""
    shape = values.shape[1:] if isinstance(values, np.ndarray) else ()
    if 0 in shape:
        raise BadColumnError(f"Column {name!r} has rows of shape {shape}, which hold no value.", column=name)
    return column_of(name, array.type)


def check_alike(column: Column, array: pa.Array, values: object) -> None:
    """Raise BadColumnError for rows of another kind, and of another dtype or shape if those who gave them know it."""
    if pa.types.is_null(innermost(array.type)) or array.type == arrow_type(column):
        return  # nothing but missing values and empty lists, or just what is stored
    found = column_of(column.name, array.type)
    if not _says_its_dtype(values):
        # Python's numbers say nothing about their width, nor do rows that happen to be of one length.
        is_alike = {found.kind, column.kind} <= {"tensor", "list"} or found.kind == column.kind
        has_shape = column.kind != "tensor" or found.shape == column.shape
    else:
        # A column of lists takes an array too, whose rows are lists of one length.
        is_alike = found == column or (
            (column.kind, found.kind, column.dtype, column.shape) == ("list", "tensor", found.dtype, found.shape[1:])
            and bool(found.shape)
        )
        has_shape = is_alike or found.kind != column.kind or found.dtype != column.dtype or column.kind != "tensor"
    if not has_shape:
        raise BadColumnError(
            f"Column {column.name!r} has rows of shape {column.shape}, but rows of shape {found.shape} were given. If "
            "their length differs, declare it in columns= as a list column.",
            column=column.name,
        )
    if not is_alike:
        raise BadColumnError(
            f"Column {column.name!r} is {_text(column)}, but rows of {_text(found)} were given. Every write needs the "
            "same columns: convert these values before.",
            column=column.name,
        )


def _says_its_dtype(values: object) -> bool:
    """Whether it was somebody's decision which dtype these rows have."""
    if isinstance(values, list | tuple):
        return any(isinstance(row, np.ndarray) and row.size and row.ndim and row.dtype != object for row in values)
    return not isinstance(values, np.ndarray) or values.dtype != object


def _text(column: Column) -> str:
    """A column in words: its kind, or its dtype and shape."""
    if column.kind in ("string", "bytes"):
        return column.kind
    shape = "×".join(map(str, column.shape)) or "scalar"
    return f"{'list of ' if column.kind == 'list' else ''}{column.dtype.name} {shape}"


def check_names(known: Mapping[str, Column], given: Mapping[str, object]) -> None:
    """Raise BadColumnError if other columns were given than the dataset has."""
    missing, unknown = [n for n in known if n not in given], [n for n in given if n not in known]
    if missing or unknown:
        text = "; ".join(
            [*(f"column {name!r} is missing" for name in missing), *(f"column {name!r} is unknown" for name in unknown)]
        )
        raise BadColumnError(
            f"Rows were given with other columns than the dataset has: {text}. It has {', '.join(map(repr, known))}.",
            column=str((missing or unknown)[0]),
        )
