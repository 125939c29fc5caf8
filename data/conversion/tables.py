"""Tables (CSV, JSON lines, Parquet, Arrow) as sources: which columns are taken and what they become."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import BadColumnError
from ..format.columns import Column
from ..format.shards import Values
from .requested import Requested, RequestedColumn, requested_columns
from .sources import Piece, Source, file_identity
from .table_columns import column_of, plain_arrays, tensor_shapes, values_as


@dataclass(frozen=True, slots=True)
class TablePart:
    """Some rows of a table: the file they come from, the number of the first one in it, and the bytes read so far."""

    batch: pa.RecordBatch
    path: Path | str
    row: int
    num_bytes: int


class Table(ABC):
    """Rows of one or several files with the same columns. Raises SourceError when it is made or read."""

    kind: str
    files: tuple[Path, ...]
    schema: pa.Schema
    num_rows: int | None = None
    num_bytes: int = 0

    @abstractmethod
    def parts(self, first_row: int, names: Sequence[str]) -> Iterator[TablePart]:
        """The rows from `first_row` on of at least these columns of the schema."""

    def target_dtype(self, name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype of a target: integers and bools as int64, others as they are."""
        return np.dtype(np.int64) if dtype.kind in "biu" else dtype

    def why_not_numeric(self, name: str) -> str:
        """What is in a column that should be numbers, and what to do."""
        return f"it is {self.schema.field(name).type}. Turn it into single numbers"

    def check_nulls(self, names: Sequence[str], fills: Mapping[str, Any]) -> None:  # noqa: B027 (not known by all)
        """Raise BadColumnError for missing values of these columns that are not filled, if that is known already."""


class TableSource(Source):
    """Some columns of a table, each as a column of its own, or stacked into "x" beside a target "y".

    `features` (None: all) chooses columns; with `target` they are scalars and become "x", float32 [rows, features], and
    the target becomes "y". `columns` says what columns become, `fill_nulls` what takes the place of missing values.
    Raises BadColumnError.
    """

    def __init__(
        self,
        table: Table,
        *,
        name: str,
        target: str | None = None,
        features: Sequence[str] | None = None,
        columns: Requested | None = None,
        fill_nulls: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self._table, self._target, self._fills = table, target, dict(fill_nulls or {})
        self.kind, self.name = table.kind, name
        self.num_rows, self.num_bytes, self.metadata = table.num_rows, table.num_bytes, dict(metadata or {})
        self._known = {key: values.type for key, values in plain_arrays(_empty(table.schema)).items()}
        self._wanted: dict[str, RequestedColumn] = {**tensor_shapes(table.schema), **requested_columns(columns)}
        self._check_names(*(features or ()), *([] if target is None else [target]), *(columns or ()), *self._fills)
        self._names = [name for name in self._known if name != target] if features is None else list(features)
        if not self._names:
            raise BadColumnError(f"{name} has no feature column beside {target!r}.", path=name, column=target)
        if not table.num_rows and table.num_rows is not None:
            raise BadColumnError(
                f"Column {self._names[0]!r} of {name} has 0 rows; a dataset needs at least one.",
                path=name,
                column=self._names[0],
            )
        table.check_nulls([*self._names, *([] if target is None else [target])], self._fills)
        self._taken = {key: self._column(key) for key in [*self._names, *([] if target is None else [target])]}
        self.columns = tuple(self._taken.values()) if target is None else self._stacked_columns(target)

    def identity(self) -> Mapping[str, Any]:  # noqa: D102
        return file_identity(self.kind, self._table.files)

    def pieces(self, first_row: int = 0) -> Iterator[Piece]:  # noqa: D102
        for part in self._table.parts(first_row, [*self._taken]):
            batch = part.batch
            step = self.rows_per_piece(batch.nbytes / max(1, batch.num_rows))
            for low in range(0, batch.num_rows, step):
                rows = self._rows(batch.slice(low, step), part, part.row + low)
                yield Piece(rows, min(step, batch.num_rows - low), part.num_bytes)

    def _check_names(self, *names: str) -> None:
        for name in names:
            if name not in self._known:
                known = ", ".join(map(repr, self._known))
                raise BadColumnError(
                    f"{self.name} has no column {name!r}; it has {known}.", path=self.name, column=name
                )

    def _column(self, name: str) -> Column:
        kind = self._known[name]
        if pa.types.is_null(kind) and name not in self._wanted and self._fills.get(name) is not None:
            kind = pa.scalar(self._fills[name]).type
        try:
            return column_of(name, kind, self._wanted.get(name))
        except BadColumnError as error:
            if pa.types.is_null(kind):
                raise BadColumnError(
                    f"Column {name!r} of {self.name} has only missing values. Leave it out, or fill it with "
                    f"fill_nulls={{{name!r}: value}}.",
                    path=self.name,
                    column=name,
                ) from error
            raise BadColumnError(f"{self.name}: {error}", path=self.name, column=name) from error

    def _stacked_columns(self, target: str) -> tuple[Column, ...]:
        for name, column in self._taken.items():
            if column.is_variable or column.shape:
                raise BadColumnError(
                    f"Column {name!r} of {self.name} is not numeric: {self._table.why_not_numeric(name)}, or name only "
                    "numeric columns as features.",
                    path=self.name,
                    column=name,
                )
        y = self._taken[target].dtype
        if target not in self._wanted:
            y = self._table.target_dtype(target, y)
        x = Column(name="x", dtype=np.dtype(np.float32), shape=(len(self._names),))
        return x, Column(name="y", dtype=y)

    def _rows(self, batch: pa.RecordBatch, part: TablePart, row: int) -> dict[str, Values]:
        arrays = plain_arrays(batch)
        try:
            found = {
                name: values_as(column, arrays[name], first_row=row, fill=self._fills.get(name))
                for name, column in self._taken.items()
            }
        except BadColumnError as error:
            raise BadColumnError(f"{part.path}: {error}", path=part.path, column=error.column) from error
        if self._target is None:
            return found
        numbers: dict[str, npt.NDArray[Any]] = {name: np.asarray(values) for name, values in found.items()}
        assert_columns = self.columns or ()
        stacked = np.stack([numbers[name] for name in self._names], axis=1, dtype=np.float32, casting="unsafe")
        return {"x": stacked, "y": numbers[self._target].astype(assert_columns[1].dtype)}


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], names=schema.names)
