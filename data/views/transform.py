"""Views that compute columns from the rows of its base, batch by batch, when they are read.

A `Transform` says which columns it reads, which it makes, and what it makes of some rows; here stands everything around
it, once: only what was asked for is computed, columns that pass by go straight into the caller's buffers, what a
function is given cannot be written to (`read_only`), what it returns is checked against the columns that were promised,
and lies where and how the trainer needs it (aligned, the caller's own). Rows are computed for every batch anew, by
whoever reads them; `cache` writes them once.

Not done: computing in processes of its own (a worker is one already, and batches are made ahead in a thread while the
step before computes), and keeping results in memory (the system's page cache does, of a `cache`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dataset import Dataset
from ..errors import TransformError
from ..format.columns import Column, ColumnStatistics
from ..format.memory import aligned, aligned_empty
from ..format.ragged import Ragged, Values
from ..order.order import RowIds
from ..read.reader import Out, Reader, output_array
from .statistics import LazyStatistics, column_statistics
from .view import View, ViewReader, chosen_columns

_NAMED_ROWS = 8


class Transform(ABC):
    """Columns computed from others; a value that pickles.

    `inputs` are the columns it reads, `outputs` those it makes (in place of ones of the same name), `content` (JSON can
    hold it) all that decides what it does, `is_random` whether that depends on the pass, `makes_new` whether the arrays
    that it returns are its caller's. `is_of_each_row` says that several batches may be computed in one call: it calls
    nothing of a user's, and takes no memory beside rows and result.
    """

    inputs: tuple[str, ...]
    outputs: Mapping[str, Column]
    is_random: bool = False
    makes_new: bool = True
    is_of_each_row: bool = False

    @property
    @abstractmethod
    def content(self) -> object:
        """What the fingerprint covers besides inputs and outputs."""

    @abstractmethod
    def apply(self, rows: Mapping[str, Values], ids: RowIds, *, seed: int, epoch: int) -> Mapping[str, Values]:
        """The new columns of at least one row; `rows` are read only. Raises TransformError."""


class TransformedDataset(View):
    """The base with the columns that a `Transform` computes.

    Statistics of these columns are computed when they are first asked for, and not known if the transform is random.
    """

    kind = "ChangedDataset"  # as it was once called

    def __init__(self, base: Dataset, transform: Transform, call: str) -> None:
        outputs = [[c.name, c.kind, c.dtype.name, c.shape] for c in transform.outputs.values()]
        super().__init__(base, call, [list(transform.inputs), outputs, transform.content])
        self.transform = transform

    @property
    def schema(self) -> Mapping[str, Column]:  # noqa: D102
        return {**self.base.schema, **self.transform.outputs}

    @property
    def is_random(self) -> bool:  # noqa: D102
        return self.base.is_random or self.transform.is_random

    @cached_property
    def statistics(self) -> Mapping[str, ColumnStatistics]:  # noqa: D102
        known, made = self.base.statistics, self.transform.outputs
        names = [name for name in self.schema if (not self.is_random if name in made else name in known)]
        return LazyStatistics(names, lambda name: column_statistics(self, name) if name in made else known[name])

    @property
    def bounds(self) -> Mapping[str, ColumnStatistics]:  # noqa: D102
        return {name: known for name, known in self.base.bounds.items() if name not in self.transform.outputs}

    def reader(self, columns: Sequence[str] | None = None) -> Reader:  # noqa: D102
        chosen = chosen_columns(self, columns)
        passed = [name for name in chosen if name not in self.transform.outputs]
        inputs = self.transform.inputs if len(passed) < len(chosen) else ()
        base = self.base.reader(list(dict.fromkeys([*passed, *inputs])))
        return _TransformingReader(base, self.name, len(self), chosen, self.transform)


class _TransformingReader(ViewReader):
    def __init__(
        self, base: Reader, name: str, num_rows: int, columns: Mapping[str, Column], transform: Transform
    ) -> None:
        self._transform = transform
        self._made = [name for name in columns if name in transform.outputs]
        self.computes = bool(self._made) and not transform.is_of_each_row
        super().__init__(base, name, num_rows, columns)
        self._seed, self._epoch = 0, 0

    def start_pass(self, *, seed: int, epoch: int) -> None:
        super().start_pass(seed=seed, epoch=epoch)
        self._seed, self._epoch = seed, epoch

    def gather_checked(self, ids: RowIds, out: Out | None) -> dict[str, Any]:
        return self._completed(self._base.gather(ids, self._base_out(ids.size, out)), ids, out)

    def gather_parts_checked(
        self, ids: RowIds, starts: RowIds, length: int, names: Collection[str], out: Out | None
    ) -> dict[str, Any]:
        used = {*self._made, *self._transform.inputs} if self._made else set()
        if not used.isdisjoint(names):  # these take whole rows
            return super().gather_parts_checked(ids, starts, length, names, out)
        base = self._base.gather_parts(ids, starts, length, names, self._base_out(ids.size, out))
        return self._completed(base, ids, out)

    def _completed(self, base: dict[str, Any], ids: RowIds, out: Out | None) -> dict[str, Any]:
        """What the base gave, and the columns that are made of it."""
        if not self._made:
            return base
        made: Mapping[str, Values] = {}
        if ids.size:
            rows = {name: read_only(base[name]) for name in self._transform.inputs}
            made = self._transform.apply(rows, ids, seed=self._seed, epoch=self._epoch)
        return {
            name: self._placed(column, made, ids.size, out) if name in self._made else base[name]
            for name, column in self._columns.items()
        }

    def _base_out(self, num_rows: int, out: Out | None) -> dict[str, npt.NDArray[Any]] | None:
        if out is None:
            return None
        return {
            name: out[name]
            if name in out and name in self._columns and name not in self._made
            else aligned_empty((num_rows, *column.shape), column.dtype)
            for name, column in self._base.columns.items()
            if not column.is_variable
        }

    def _placed(self, column: Column, made: Mapping[str, Values], num_rows: int, out: Out | None) -> Values:
        """A computed column where the caller wants it: in `out`, else in aligned memory."""
        if column.is_variable:
            found = made[column.name] if made else Ragged(_empty(column), np.zeros(1, np.int64), column.kind)
            return found if self._transform.makes_new or not isinstance(found, Ragged) else _copied(found)
        values = made[column.name] if made else _empty(column)
        if out is None and self._transform.makes_new and isinstance(values, np.ndarray):
            return aligned(values)
        array = output_array(column, num_rows, out)
        array[...] = values
        return array


def check_values(column: Column, values: Values, num_rows: int, what: str) -> None:
    """Raise TransformError unless the rows are `num_rows` rows of the column; `what` says who made them, for which."""
    if isinstance(values, Ragged):
        found: tuple[Any, ...] = (values.kind, values.values.dtype, values.values.shape[1:], len(values))
    else:
        found = ("tensor", values.dtype, values.shape[1:], len(values) if values.ndim else "no")
    expected = (column.kind, column.dtype, column.shape, num_rows)
    if found != expected:
        raise TransformError(
            f"{what} gave column {column.name!r} as {_described(*found)}; expected {_described(*expected)}. "
            "A column has one dtype and shape for all rows: those of the first rows, unless output= gives a Column.",
            column=column.name,
        )


def rows_text(ids: RowIds) -> str:
    """Row ids as messages name them: "row 7", "rows 3, 9, 4", "rows 3, 9, … (256 rows)"."""
    if ids.size == 1:
        return f"row {ids[0]}"
    text = ", ".join(map(str, ids[:_NAMED_ROWS].tolist()))
    return f"rows {text}" if ids.size <= _NAMED_ROWS else f"rows {text}, … ({ids.size} rows)"


def _described(kind: str, dtype: np.dtype[Any], shape: tuple[int, ...], num_rows: Any) -> str:
    return f"{num_rows} rows of {kind} {dtype} {shape}"


def read_only(values: Values) -> Values:
    """The same rows, not to be written to: a change in place would change the column for everybody else too."""
    if isinstance(values, Ragged):
        return Ragged(_locked(values.values), values.row_splits, values.kind)
    return _locked(values)


def _locked(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def _copied(rows: Ragged) -> Ragged:
    values = aligned_empty(rows.values.shape, rows.values.dtype)
    values[...] = rows.values
    return Ragged(values, rows.row_splits.astype(np.int64), rows.kind)


def _empty(column: Column) -> npt.NDArray[Any]:
    return aligned_empty((0, *column.shape), column.dtype)
