"""Flat Arrow arrays (numbers, text, decimals, times) as numbers of a column's dtype: exactly, or the row is named.

This is the row-by-row half of `as_stored`: it knows where in the source a value lies, what takes the place of missing
ones, and the account. Values lie flat, one after the other, whatever lists they came in; a function `row_of` leads
from places there to rows, and is called only when there is something to tell.

Numbers go through `exact`. Text is parsed by Arrow, at once to the dtype's widest relative, because it refuses what it
cannot parse; but as float64 it reads 9007199254740993 as ...992, and decimals are rounded without a word, so for both
the digits are compared with what came of them. Python's `float` of every text was not taken: it finds the same, one
object after the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import BadColumnError
from .account import Account
from .arrow_types import is_number, is_text
from .columns import Column
from .exact import exactly, why_wrong
from .python_values import arrow_of

_types = pa.types
Numbers = npt.NDArray[Any]
Places = npt.NDArray[np.int64]
_WHOLE = re.compile(r"(-?[0-9]+)(?:\.0*)?")
_INFINITE = ("inf", "infinity")
RowOf = Callable[[Places], Places]
"""The places of the rows that hold the values at these places."""


@dataclass(frozen=True, slots=True)
class Cast:
    """A column to make, and how to tell about its rows: where they are in the source, their fill, the account."""

    column: Column
    first_row: int
    row_numbers: Places | None
    fill: object
    account: Account | None

    def rows(self, places: Places) -> Places:
        """The rows in the source of the rows at these places."""
        return places + self.first_row if self.row_numbers is None else self.row_numbers[places]

    def row(self, places: Places) -> int:
        """The row in the source of the first of these places."""
        return int(self.rows(places[:1])[0])

    def error(self, what: str) -> BadColumnError:
        """An error that begins with the column's name."""
        return BadColumnError(f"Column {self.column.name!r} {what}", column=self.column.name)

    def bad_fill(self, why: str) -> BadColumnError:
        """The error for a fill that is no value of the column."""
        return self.error(f"has missing values that cannot be filled with {self.fill!r}: it {why}.")

    def take_missing(self, array: pa.Array, row_of: RowOf | None = None, instead: object = None) -> Places:
        """The places of missing values, which are noted with what they get, the fill or what is said; raises
        BadColumnError without a fill."""
        places = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
        rows = places if row_of is None else row_of(places)
        if self.fill is None:
            raise missing_error(self.column.name, len(places), self.row(rows))
        if self.account is not None:
            detail = f"missing, {(self.fill if instead is None else instead)!r} took the place"
            self.account.add_rows("filled", self.column.name, self.rows(rows), detail=detail)
        return places


def missing_error(name: str, count: int, row: int) -> BadColumnError:
    """The error for missing values: their number, and the row of the first."""
    return BadColumnError(
        f"Column {name!r} has {count} missing value{'s' * (count != 1)}, the first in row {row}. "
        f"Fill them with fill_nulls={{{name!r}: value}} (--fill-null {name}=VALUE), or leave these rows out.",
        column=name,
    )


def cast_numbers(task: Cast, array: pa.Array, row_of: RowOf) -> Numbers:
    """A flat array in the column's dtype, missing values filled; `row_of` gives the row of a value."""
    if not array.null_count:
        return _exact(task, array, row_of)
    places = task.take_missing(array, row_of)
    values = np.full(len(array), fill_number(task), task.column.dtype)
    # The others are cast by themselves, so a place among them is led back to one among all.
    kept = np.delete(np.arange(len(array)), places)
    values[kept] = _exact(task, array.drop_null(), lambda found: row_of(kept[found]))
    return values


def fill_number(task: Cast) -> Any:
    """The fill in the column's dtype: it obeys what every value obeys."""
    found = arrow_of(task.column.name, [task.fill])
    if not is_number(found.type):
        is_list = task.column.kind == "list"
        hint = " in lists: give a number, or [] if only whole lists are missing" if is_list else ""
        raise task.bad_fill(f"is {task.column.dtype.name}{hint}")
    cast, wrong, _ = exactly(found.to_numpy(zero_copy_only=False), task.column.dtype)
    if wrong.size:
        raise task.bad_fill(f"is {task.column.dtype.name}, and {task.fill!r} {why_wrong(task.fill, cast.dtype)}")  # type: ignore[arg-type]
    return cast[0]


def _exact(task: Cast, array: pa.Array, row_of: RowOf) -> Numbers:
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
        row = task.row(row_of(wrong[:1]))
        raise task.error(
            f"has {value!r} in row {row}, which {why_wrong(value, column.dtype)}: {len(wrong)} of the values so far "
            f"cannot be {column.dtype.name}. Declare a wider type (columns=, --column {column.name}=TYPE), such as "
            "int64, uint64, float64 or string, or change the values before."
        )
    places = np.union1d(rounded, lost) if lost.size else rounded
    if places.size and task.account is not None:
        detail = f"fractions, to {column.dtype.name} as asked"
        task.account.add_rows("rounded", column.name, task.rows(row_of(places)), detail=detail)
    return cast


def _parsed(task: Cast, array: pa.Array, row_of: RowOf) -> tuple[Numbers, Places]:
    """Text, decimals and times as numbers that hold them, and the places of fractions that were rounded for that."""
    kind, column = array.type, task.column
    is_integer = column.dtype.kind in "iu"
    target = pa.float64()
    if is_integer:
        target = pa.uint64() if column.dtype.kind == "u" else pa.int64()
    elif column.dtype.kind == "b":
        target = pa.bool_()
    if is_text(kind):
        # Arrow's parser knows neither blanks around a number nor a plus sign.
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
    # Up to there every whole number is a float64 of its own.
    for place in np.flatnonzero(np.abs(numbers) >= 2.0**53):
        text, places = array[int(place)].as_py(), row_of(np.array([place]))
        whole = _WHOLE.fullmatch(text)
        if np.isinf(numbers[place]):
            if text.lstrip("-").lower() not in _INFINITE:
                raise task.error(
                    f"has {text:.60} in row {task.row(places)}, which would become {numbers[place]}: it is beyond "
                    f"float64. Declare it as string (columns=, --column {task.column.name}=string), or change the "
                    "value before."
                )
        elif whole is not None and int(whole[1]) != int(numbers[place]):
            raise _not_whole(task, text, places)
    return numbers, np.empty(0, np.int64)


def _rounded_decimals(task: Cast, array: pa.Array, numbers: Numbers, row_of: RowOf) -> Places:
    """The places of decimals whose digits a float64 does not give back."""
    lost = []
    for place, (value, number) in enumerate(zip(array.to_pylist(), numbers.tolist(), strict=True)):
        if value == int(value):
            if int(number) != int(value):
                raise _not_whole(task, str(value), row_of(np.array([place])))
        elif f"{number:.{array.type.scale}f}" != f"{value:f}":
            lost.append(place)
    return np.array(lost, np.int64)


def _not_whole(task: Cast, digits: str, places: Places) -> BadColumnError:
    row = task.row(places)
    return task.error(
        f"has {digits} in row {row}, a whole number that {task.column.dtype.name} does not hold. Declare it as int64, "
        f"uint64 or string (columns=, --column {task.column.name}=TYPE)."
    )


def _unparsed(
    task: Cast, array: pa.Array, target: pa.DataType, row_of: RowOf, error: pa.ArrowException
) -> BadColumnError:
    """The error that names the first value that is no number."""
    for place in range(len(array)):
        try:
            array.slice(place, 1).cast(target)
        except pa.ArrowException:
            row = task.row(row_of(np.array([place])))
            value = str(array[place].as_py())
            return task.error(
                f"has {value[:60]!r} in row {row}, which is no {task.column.dtype.name}. Declare another type "
                f"(columns=, --column {task.column.name}=TYPE; string keeps it as it is), or change the value before."
            )
    return task.error(f"({array.type}) cannot become {task.column.dtype.name}: {error}.")
