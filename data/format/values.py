"""Rows in memory from what a user's function returned: arrays [rows, *shape] and `Ragged`.

What a function returns obeys the rules of what is stored, because it may be stored (a cache) or not, and rows must be
the same either way. So it takes the way into a dataset, and what comes out at its end, just not through a file.
"""

from __future__ import annotations

import numpy as np

from .arrow import arrow_of, as_stored, column_of
from .columns import Column
from .ragged import Ragged, Values
from .stored_arrays import values_of


def as_values(returned: object, column: Column | None = None) -> Values:
    """Rows of a user's function: from an array, `Ragged`, nested sequences, or a sequence of str or bytes.

    `column` is what is expected, if that is known. Arrays of numbers are handed on as they are, others follow the rules
    of what is stored. Raises BadColumnError.
    """
    if isinstance(returned, Ragged):
        return returned if column is None or column.is_variable else _rectangular(returned)
    is_tensor = column is None or column.kind == "tensor"
    if is_tensor and isinstance(returned, np.ndarray) and returned.dtype.kind in "biuf" and returned.ndim:
        return returned
    name = "output" if column is None else column.name
    array = arrow_of(name, returned)
    expected = column_of(name, array.type) if column is None else column
    return values_of(expected, as_stored(expected, array))


def as_column(name: str, values: Values) -> Column:
    """The column that these rows belong to; raises BadColumnError for a dtype that no column has."""
    if isinstance(values, Ragged):
        return Column(name=name, dtype=values.values.dtype, shape=values.values.shape[1:], kind=values.kind)
    return Column(name=name, dtype=values.dtype, shape=values.shape[1:])


def _rectangular(rows: Ragged) -> Values:
    """Rows that all have one length as an array; others as they are."""
    lengths = rows.lengths
    if rows.kind != "list" or not lengths.size or (lengths != lengths[0]).any():
        return rows
    return rows.values.reshape(len(rows), int(lengths[0]), *rows.values.shape[1:])
