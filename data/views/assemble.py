"""One batch of rows out of parts that come from several readers.

Rows of fixed width are put in their places; of variable length they are joined and then put in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dataset import Dataset
from ..errors import SelectionError
from ..format.columns import Column
from ..format.ragged import Ragged, Values
from ..order.bijection import Integers
from ..read.reader import Out, output_array

Part = tuple[Integers, Mapping[str, Any]]
"""Places in the batch [rows of the part], and the rows by column."""


def assembled(columns: Mapping[str, Column], num_rows: int, parts: Sequence[Part], out: Out | None) -> dict[str, Any]:
    """The batch of `num_rows` rows, every row from exactly one part; arrays fill `out` as `Reader.gather` says."""
    return {
        name: _ragged(column, parts) if column.is_variable else _array(column, num_rows, parts, out)
        for name, column in columns.items()
    }


def _array(column: Column, num_rows: int, parts: Sequence[Part], out: Out | None) -> npt.NDArray[Any]:
    array = output_array(column, num_rows, out)
    for places, rows in parts:
        array[places] = rows[column.name]
    return array


def _ragged(column: Column, parts: Sequence[Part]) -> Values:
    if not parts:
        return Ragged(np.empty((0, *column.shape), column.dtype), np.zeros(1, np.int64), column.kind)
    joined = Ragged.concatenate([rows[column.name] for _, rows in parts])
    return joined.take(np.argsort(np.concatenate([places for places, _ in parts]), kind="stable"))


def check_same_columns(datasets: Sequence[Dataset], what: str) -> None:
    """Raise SelectionError if the datasets differ in the names, kinds, dtypes or shapes of their columns."""
    if not datasets:
        raise SelectionError(f"{what} was given no dataset.")
    first = datasets[0]
    for other in datasets[1:]:
        for name in [*first.schema, *(name for name in other.schema if name not in first.schema)]:
            one, two = first.schema.get(name), other.schema.get(name)
            if one != two:
                raise SelectionError(
                    f"{what}: the datasets differ in column {name!r}: {_text(one)} in {first.name}, {_text(two)} in "
                    f"{other.name}. Make them alike with select_columns, rename or map.",
                    path=other.name,
                    column=name,
                )


def _text(column: Column | None) -> str:
    return "none" if column is None else f"{column.kind} {column.dtype} {column.shape}"
