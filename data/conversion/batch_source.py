"""Batches of values in memory (arrays, lists, tensors, frames, rows of a generator) as a source.

Whatever a program holds comes here as batches by column; every column of a batch becomes an Arrow array, nothing
rounded or wrapped, and is cast exactly to what is stored. So there is one way in for NumPy, pandas, generators,
TensorFlow and Keras, and what is refused is refused in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any, TypeAlias

import numpy.typing as npt
import pyarrow as pa

from ..errors import BadColumnError, SourceError
from ..format.arrow import arrow_of, arrow_schema, as_stored, column_of
from ..format.arrow_types import is_nested
from ..format.columns import Column
from .sources import Source, SourceRows, check_rows_came

_MAX_ROWS = 8192
_TUPLE_NAMES = ("x", "y", "sample_weight")


Rows: TypeAlias = npt.NDArray[Any] | pa.Array
"""Rows of one column in memory, which can be cut."""


Batches: TypeAlias = tuple[int, Iterator[Any]]
"""The row of the source at which some batches begin, and the batches: values by column, or tuples (`named_values`)."""


class BatchSource(Source):
    """Batches that come one after the other; `batches` gives them from a row on, or from an earlier one.

    The columns are those of the first batch unless `columns` gives them. `fills` has the values that take the place of
    missing ones. Raises SourceError if there are no rows, BadColumnError.
    """

    def __init__(
        self,
        kind: str,
        batches: Callable[[int], Batches],
        *,
        name: str | None = None,
        columns: Sequence[Column] | None = None,
        fills: Mapping[str, object] | None = None,
        num_rows: int | None = None,
    ) -> None:
        self.kind, self.name, self.num_rows = kind, name or kind, num_rows
        self._batches, self._fills = batches, dict(fills or {})
        self._begun: Batches | None = None
        self._columns = self._first_columns() if columns is None else tuple(columns)
        self._single = {
            column.name for column in self._columns if columns is None and (column.kind, column.shape) == ("tensor", ())
        }
        self.columns = self._columns
        known = [column.name for column in self._columns]
        for key in self._fills:
            if key not in known:
                raise BadColumnError(
                    f"The {self.name} has no column {key!r} to fill; it has {', '.join(map(repr, known))}.", column=key
                )

    def _first_columns(self) -> tuple[Column, ...]:
        _, waiting = self._batches(0)
        for element in waiting:
            first = named_values(element, 0)
            if _num_rows(first):
                self._begun = 0, chain([element], waiting)
                with self._named_errors():
                    return tuple(column_of(name, arrow_of(name, values).type) for name, values in first.items())
        raise SourceError(f"The {self.name} has no rows; a dataset needs at least one.")

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except BadColumnError as error:
            raise BadColumnError(f"{self.name}: {error}", path=self.name, column=error.column) from error

    def record_batches(self, first_row: int = 0) -> Iterator[SourceRows]:  # noqa: D102
        (row, batches), self._begun = self._begun or self._batches(first_row), None
        schema = arrow_schema(self._columns)
        for element in batches:
            values = named_values(element, row)
            count = _num_rows(values)
            skipped = min(count, max(0, first_row - row))
            if skipped < count:
                with self._named_errors():
                    stored = self._stored(values, row, skipped)
                yield SourceRows(pa.RecordBatch.from_arrays(stored, schema=schema), self.bytes_until(row + count))
            row += count
        check_rows_came(self.name, row, first_row)

    def bytes_until(self, row: int) -> int:
        """Bytes of the source before this row; 0 where nobody knows."""
        del row
        return 0

    def _stored(self, values: Mapping[str, Any], row: int, skipped: int) -> list[pa.Array]:
        """The rows of a batch, of which the first one is `row`, without those that are skipped."""
        names = [column.name for column in self._columns]
        check_names(self.name, names, values, row)
        arrays = {name: _arrow_of(name, values[name], row) for name in names}
        for name, array in arrays.items():
            if len(array) != len(arrays[names[0]]):
                raise BadColumnError(
                    f"Column {name!r} has {len(array)} rows and column {names[0]!r} has {len(arrays[names[0]])} from "
                    f"row {row} on; all columns need the same number.",
                    column=name,
                )
            if name in self._single and is_nested(array.type):  # not even [1] for 1
                raise BadColumnError(
                    f"Column {name!r} has lists from row {row} on, and single values before. Give all rows as lists, "
                    "or all as single values.",
                    column=name,
                )
        return [
            as_stored(
                column,
                arrays[column.name].slice(skipped),
                first_row=row + skipped,
                fill=self._fills.get(column.name),
                account=self.account,
            )
            for column in self._columns
        ]


class ArraySource(BatchSource):
    """Arrays of equal length (NumPy, mapped or in memory; Arrow) as columns, cut into batches.

    `columns` gives columns that should be something else than their array; see `BatchSource`.
    """

    def __init__(
        self,
        kind: str,
        arrays: Mapping[str, Rows],
        *,
        name: str,
        columns: Sequence[Column] = (),
        fills: Mapping[str, object] | None = None,
    ) -> None:
        self._arrays, num_rows = arrays, common_rows(name, arrays)
        self._row_bytes = sum(getattr(array, "nbytes", 1024 * num_rows) for array in arrays.values()) / num_rows
        given = {column.name: column for column in columns}
        for key in given:
            if key not in arrays:
                raise BadColumnError(
                    f"{name} has no column {key!r}; it has {', '.join(map(repr, arrays))}.", column=key
                )
        self.name = name
        with self._named_errors():
            known = [given.get(key) or column_of(key, arrow_of(key, array[:1]).type) for key, array in arrays.items()]
        super().__init__(kind, self._cut, name=name, columns=known, fills=fills, num_rows=num_rows)
        self.num_bytes = int(num_rows * self._row_bytes)

    def bytes_until(self, row: int) -> int:  # noqa: D102
        return int(row * self._row_bytes)

    def _cut(self, first_row: int) -> Batches:
        step = min(_MAX_ROWS, self.rows_per_piece(self._row_bytes))
        starts = range(first_row, self.num_rows or 0, step)
        return first_row, ({name: array[low : low + step] for name, array in self._arrays.items()} for low in starts)


def named_values(element: Any, row: int) -> Mapping[str, Any]:
    """A row or batch by column: a dict as it is, (x, y, sample_weight) under these names, dicts inside by their own.

    A named tuple has names of its own. Raises SourceError.
    """
    if isinstance(element, tuple) and type(element) is not tuple:
        of_class: Any = element
        with suppress(AttributeError):  # another class than those of named tuples
            element = of_class._asdict()
    if isinstance(element, Mapping) and element:
        return element
    if isinstance(element, tuple) and 0 < len(element) <= len(_TUPLE_NAMES):
        named: dict[str, Any] = {}
        for name, part in zip(_TUPLE_NAMES, element, strict=False):
            for inner, value in part.items() if isinstance(part, Mapping) else [(name, part)]:
                if inner in named:
                    raise SourceError(f"Row {row} has two columns {inner!r}; give them different names.")
                named[inner] = value
        if named:
            return named
    raise SourceError(
        f"Row {row} is {type(element).__name__}: {element!r:.60}. A row is a dict of columns, or a tuple (x, y) or "
        "(x, y, sample_weight)."
    )


def check_names(name: str, expected: Sequence[str], given: Mapping[str, object], row: int) -> None:
    """Raise SourceError if rows have other columns than those before."""
    if set(given) != set(expected):
        raise SourceError(
            f"The {name} yields the columns {', '.join(map(repr, given))} in row {row} and "
            f"{', '.join(map(repr, expected))} before. Every row needs the same columns."
        )


def common_rows(name: str, arrays: Mapping[str, Sized]) -> int:
    """The number of rows that all arrays have; raises SourceError if there are none, BadColumnError."""
    if not arrays:
        raise SourceError(f"{name} holds no arrays.", path=name)
    first, num_rows = next((key, len(array)) for key, array in arrays.items())
    for key, array in arrays.items():
        if len(array) != num_rows or not num_rows:
            other = f" and column {first!r} has {num_rows}; all columns need the same number" if num_rows else ""
            raise BadColumnError(
                f"Column {key!r} of {name} has {len(array)} rows{other or '; a dataset needs at least one'}. Choose "
                "columns that go together with features= (--feature NAME).",
                path=name,
                column=key,
            )
    return num_rows


def _num_rows(values: Mapping[str, Any]) -> int:
    name, first = next(iter(values.items()))
    try:
        return len(first)
    except TypeError as error:
        raise BadColumnError(
            f"Column {name!r} of a batch is a single value ({first!r:.60}); it has one entry per row.", column=name
        ) from error


def _arrow_of(name: str, values: Rows, row: int) -> pa.Array:
    """Values of the rows from this one on; messages of `arrow_of` count from the first of these."""
    try:
        return arrow_of(name, values)
    except BadColumnError as error:
        where = f" (in the rows from {row} on)" if row else ""
        raise BadColumnError(f"{error}{where}", column=error.column) from error
