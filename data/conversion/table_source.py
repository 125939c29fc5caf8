"""Tables (CSV, JSON lines, Parquet, Arrow, Hugging Face) as sources: which columns are taken and what they become.

A table gives record batches in types of its own that say exactly what is in its files; `TableSource` chooses columns,
unwraps what others wrap (structs, tensors, encoded images), and casts every column to what is stored, by the one cast
that refuses or tells what would change (`format.arrow`). With a target, features are stacked into one column of floats:
that is a narrowing too, so it goes the same way. All that is known to need an answer is found before the first row is
read, and told together, a line for each column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import BadColumnError
from ..format.arrow import arrow_schema, as_stored, column_of
from ..format.arrow_types import is_nested
from ..format.columns import Column
from .requested import Requested, fill_value, requested_columns
from .sources import Source, SourceRows, file_identity
from .tables import Table
from .unwrap import index_columns, left_inside, requested_shapes, unwrapped


class TableSource(Source):
    """Some columns of a table, each as a column of its own, or stacked into "x" beside a target "y".

    Args:
        table: where the rows are.
        name: of the source, for messages.
        target: this column becomes "y"; the features are scalars then and become "x", float32 [rows, features], or
            float64 if one of them is requested as that.
        features: the columns that are taken, None for all but the target; with a target without those that pandas
            noted as its index.
        columns: what columns become.
        fill_nulls: what takes the place of missing values, by column; text is read as what the column holds.
        metadata: goes into the manifest.

    Raises BadColumnError, which names all columns that cannot be stored as they are.
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
        self._table, self._target, self._fills = table, target, {**table.default_fills, **(fill_nulls or {})}
        self.kind, self.name, self.account = table.kind, name, table.account
        self.num_rows, self.num_bytes, self.metadata = table.num_rows, table.num_bytes, dict(metadata or {})
        try:
            self._types = {key: array.type for key, array in unwrapped(_empty(table.schema)).items()}
        except BadColumnError as error:
            raise self._error(error.column or "", f"{name}: {error}") from error
        self._requested = {**requested_shapes(table.schema), **requested_columns(columns)}
        self._check_names(*(features or ()), *([] if target is None else [target]), *(columns or ()), *self._fills)
        self._features = self._all_features() if features is None else list(features)
        self._check_not_empty()
        taken = [*self._features, *([] if target is None else [target])]
        self._columns = self._checked_columns(taken)
        self._fills = {key: fill_value(self._columns[key], value) for key, value in self._fills.items() if key in taken}
        for inside in left_inside(table.schema):
            self.account.add("left out", inside, unit="column", detail="the bytes beside it are the value")
        self.columns = tuple(self._columns.values()) if target is None else self._stacked_columns(target)

    def identity(self) -> Mapping[str, Any]:  # noqa: D102
        return file_identity(self.kind, self._table.files)

    def record_batches(self, first_row: int = 0) -> Iterator[SourceRows]:  # noqa: D102
        schema = arrow_schema(self.columns or ())
        for part in self._table.parts(first_row, [*self._columns]):
            step = self.rows_per_piece(part.batch.nbytes / max(1, part.batch.num_rows))
            for low in range(0, part.batch.num_rows, step):
                batch = part.batch.slice(low, step)
                arrays = self._arrays(batch, part.path, part.row + low, first_row)
                yield SourceRows(pa.RecordBatch.from_arrays(arrays, schema=schema), part.num_bytes)
                first_row += batch.num_rows

    def _all_features(self) -> list[str]:
        names = [name for name in self._types if name != self._target]
        index = index_columns(self._table.schema) if self._target is not None else ()
        for name in index:
            self.account.add("left out", name, unit="column", detail="pandas' index; a feature only if it is named")
        return [name for name in names if name not in index]

    def _check_names(self, *names: str) -> None:
        for name in names:
            if name not in self._types:
                known = ", ".join(map(repr, self._types))
                raise self._error(name, f"{self.name} has no column {name!r}; it has {known}.")

    def _check_not_empty(self) -> None:
        if not self._features:
            what = "no columns" if self._target is None else f"no feature column beside {self._target!r}"
            raise BadColumnError(f"{self.name} has {what}.", path=self.name, column=self._target)
        if "" in (*self._features, self._target):
            others = [f"--feature {name}" for name in self._types if name not in ("", self._target)]
            way_out = f"Name those that are to be taken ({' '.join(others)}; features=), or give" if others else "Give"
            raise self._error(
                "",
                f"{self.name} has a column without a name, such as the index that pandas writes. {way_out} it a name "
                "in the file.",
            )
        if self.num_rows == 0:
            first = self._features[0]
            raise self._error(first, f"Column {first!r} of {self.name} has 0 rows; a dataset needs at least one.")

    def _checked_columns(self, names: Sequence[str]) -> dict[str, Column]:
        """The columns that the named ones become; all that cannot be stored as they are in one error."""
        columns: dict[str, Column] = {}
        errors: list[BadColumnError] = []
        for name in names:
            try:
                self._table.take(name, self._fills)
                columns[name] = self._column(name)
            except BadColumnError as error:
                errors.append(error)
        if len(errors) > 1:
            lines = "".join(f"\n- {error}" for error in errors)
            raise BadColumnError(
                f"{len(errors)} columns of {self.name} need an answer:{lines}", path=self.name, column=errors[0].column
            )
        if errors:
            raise errors[0]
        return columns

    def _column(self, name: str) -> Column:
        kind, requested = self._types[name], self._requested.get(name)
        drift = next((why for one, why in self._table.drift.items() if f"{name}.".startswith(f"{one}.")), None)
        if requested is None and drift is not None:
            raise self._error(
                name,
                f"{drift}. No type holds both exactly: say what it should become, such as "
                f"--column {name}=string (columns=), or leave it out.",
            )
        if pa.types.is_null(kind) and requested is None:
            if (fill := self._fills.get(name)) is None:
                raise self._error(
                    name,
                    f"Column {name!r} of {self.name} has only missing values. Leave it out, or fill it with "
                    f"fill_nulls={{{name!r}: value}} (--fill-null {name}=VALUE).",
                )
            kind = pa.scalar(fill_value(None, fill)).type
        try:
            column = column_of(name, kind) if requested is None else requested.column_of(name, kind)
        except BadColumnError as error:
            ways_out = (
                "" if is_nested(kind) else f"say what it should become, such as --column {name}=string (columns=), or "
            )
            raise self._error(name, f"{self.name}: {error} Or {ways_out}leave it out.") from error
        inside = kind.value_type if is_nested(kind) else kind
        is_duration = pa.types.is_duration(inside)
        if drift is not None and pa.types.is_temporal(inside) and (column.kind != "string" or is_duration):
            as_text = "" if is_duration else f", or ask for text (--column {name}=string, columns=)"
            raise self._error(
                name,
                f"{drift}. They count in other units or from other zones, so their numbers cannot stand in one column. "
                f"Write them in one type{as_text}.",
            )
        if self._target is not None and (column.is_variable or column.shape):
            raise self._error(
                name,
                f"Column {name!r} of {self.name} is not numeric: {self._table.why_not_numeric(name)}, or name only "
                "numeric columns as features.",
            )
        return column

    def _stacked_columns(self, target: str) -> tuple[Column, ...]:
        is_double = any(self._columns[name].dtype == np.float64 and name in self._requested for name in self._features)
        x = Column(name="x", dtype=np.dtype(np.float64 if is_double else np.float32), shape=(len(self._features),))
        y = self._columns[target].dtype
        return x, Column(name="y", dtype=y if target in self._requested else self._table.target_dtype(target, y))

    def _arrays(self, batch: pa.RecordBatch, path: Path | str, row: int, first_row: int) -> list[pa.Array]:
        arrays = {**dict.fromkeys(self._columns, pa.nulls(batch.num_rows)), **unwrapped(batch)}
        if self._target is None:
            return [self._cast(column, arrays[name], path, row, first_row) for name, column in self._columns.items()]
        x, y = self.columns or ()
        scalars = {name: Column(name=name, dtype=x.dtype) for name in self._features}
        scalars[self._target] = Column(name=self._target, dtype=y.dtype)
        found = {}
        for name, column in scalars.items():
            array = arrays[name]
            if name in self._requested and self._columns[name].dtype != column.dtype:
                array = self._cast(self._columns[name], array, path, row, first_row)
            found[name] = self._cast(column, array, path, row, first_row)
        stacked = np.stack([found[name].to_numpy() for name in self._features], axis=1)
        return [pa.FixedShapeTensorArray.from_numpy_ndarray(stacked), found[self._target]]

    def _cast(self, column: Column, array: pa.Array, path: Path | str, row: int, first_row: int) -> pa.Array:
        """An array as it is stored; `row` is its place in the file, for messages, and `first_row` in the source."""
        fill = self._fills.get(column.name)
        if column.kind == "string" and _has_text_form(array.type):
            array = array.cast(pa.large_string())
        requested = self._requested.get(column.name)
        if requested and requested.kind is None and is_nested(array.type) > is_nested(self._types[column.name]):
            raise BadColumnError(
                f"{path}: Column {column.name!r} has lists, and single values in other files. Make them alike, or "
                f"take lists of one number as that number: --column {column.name}=tensor:{column.dtype.name}.",
                path=path,
                column=column.name,
            )
        try:
            return as_stored(column, array, first_row=first_row, fill=fill, account=self.account)
        except BadColumnError:
            pass
        try:  # again, with the row as the file counts it
            return as_stored(column, array, first_row=row, fill=fill)
        except BadColumnError as error:
            hint = "" if "missing" in str(error) else self._stacked_hint(column.name)
            what = f"{path}: {error}{hint}"
            raise BadColumnError(what, path=path, column=error.column) from error

    def _stacked_hint(self, name: str) -> str:
        if self._target is None:
            return ""
        if name == self._target:
            return f" As the target it becomes y; --column {name}=uint64 or --column {name}=float64 make it that."
        return f" Features become x, float32; with --column {name}=float64 it is float64. Or name other features."

    def _error(self, name: str, what: str) -> BadColumnError:
        return BadColumnError(what, path=self.name, column=name)


def _has_text_form(kind: pa.DataType) -> bool:
    return bool(pa.types.is_temporal(kind) or pa.types.is_decimal(kind)) and not pa.types.is_interval(kind)


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], names=schema.names)
