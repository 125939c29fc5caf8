"""Objects of a Python program (generators, frames, Arrow data, datasets of TensorFlow and Ray) to datasets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypedDict, Unpack

import numpy as np
import pyarrow as pa

from ..dataset import Dataset
from ..errors import BadColumnError, SourceError
from ..format.columns import Column
from ..format.manifest import ShardFormat
from ..stored import StoredDataset
from ..write.incoming import incoming_column
from .convert import OnProgress, write_source
from .open_source import DatasetSource
from .requested import Requested
from .sources import (
    PIECE_BYTES,
    PIECE_ROWS,
    Piece,
    Source,
    check_piece_bytes,
    check_rows_came,
)
from .tables import Table, TablePart, TableSource

_Path = str | os.PathLike[str]
_TUPLE_NAMES = ("x", "y", "sample_weight")
_RAY_ROWS = 4096


class WriterOptions(TypedDict, total=False):
    """Options that every function here hands to `DatasetWriter`, and `resume`, `piece_bytes` and `on_progress` of
    `convert`."""

    overwrite: bool
    resume: bool
    format: ShardFormat
    shuffle_seed: int | None
    shuffle_bytes: int | None
    rows_per_shard: int | None
    shard_bytes: int
    fill_nulls: Mapping[str, Any] | None
    metadata: Mapping[str, Any] | None
    piece_bytes: int
    on_progress: OnProgress | None


def from_generator(
    generator: Iterable[Any] | Callable[[], Iterable[Any]],
    path: _Path,
    *,
    columns: Sequence[Column] | None = None,
    batched: bool = False,
    **options: Unpack[WriterOptions],
) -> StoredDataset:
    """Write what an iterable (or a function that makes one) yields as a dataset, in bounded memory.

    It yields rows: dicts of numbers, arrays, lists, str or bytes by column, or (x, y) and (x, y, sample_weight); with
    `batched` the same of several rows, as `DatasetWriter.write` takes them. Kinds and dtypes are those of the first
    `piece_bytes` bytes (8 MiB) unless `columns` gives them. With `resume` the iterable must yield the same rows again:
    those that are written are passed over. Raises BadColumnError, SourceError for rows that are neither,
    DatasetExistsError, OSError.
    """
    return _write(_GeneratorSource(generator, columns, batched), path, options, columns)


def from_tf_dataset(
    tf_dataset: Any,
    path: _Path,
    *,
    columns: Sequence[Column] | None = None,
    batched: bool = False,
    **options: Unpack[WriterOptions],
) -> StoredDataset:
    """Write the elements of a finite `tf.data.Dataset` as a dataset.

    Elements are dicts of tensors by column, (x, y), (x, y, sample_weight) or one tensor "x"; each is one row, with
    `batched` a batch of rows. Ragged tensors, and tensors with an unknown dimension, become lists; `tf.string` becomes
    text if the first rows are UTF-8, else bytes, unless `columns` says it. With `resume` the same elements must come
    again, so nothing may shuffle them anew. Raises BadColumnError, SourceError, DatasetExistsError, OSError.
    """
    from .from_tensors import TensorSource

    return _write(TensorSource(tf_dataset, columns, batched), path, options, columns)


def from_ray_dataset(
    ray_dataset: Any, path: _Path, *, columns: Requested | None = None, **options: Unpack[WriterOptions]
) -> StoredDataset:
    """Write a Ray dataset: anything with `iter_batches(batch_size=, batch_format="pyarrow")` that gives Arrow tables.

    Its tensors keep their shape, rows come as Ray gives them (`resume` needs the same order again). `columns` is that
    of `convert`. Raises BadColumnError, SourceError if there are no rows, DatasetExistsError, OSError.
    """

    def batches() -> Iterator[pa.RecordBatch]:
        for table in ray_dataset.iter_batches(batch_size=_RAY_ROWS, batch_format="pyarrow"):
            yield from table.to_batches()

    return _write_table(_BatchTable("ray", batches), path, columns, options)


def from_arrow(
    table: pa.Table | pa.RecordBatch | pa.RecordBatchReader | Iterable[pa.RecordBatch],
    path: _Path,
    *,
    columns: Requested | None = None,
    **options: Unpack[WriterOptions],
) -> StoredDataset:
    """Write Arrow data: a table, a record batch, or a stream of record batches of one schema.

    `columns` is that of `convert`. Raises BadColumnError, SourceError, DatasetExistsError, OSError.
    """
    batches = _record_batches(table)
    schema = getattr(table, "schema", None)
    num_rows = table.num_rows if isinstance(table, pa.Table | pa.RecordBatch) else None
    return _write_table(_BatchTable("arrow", lambda: batches, schema, num_rows), path, columns, options)


def from_pandas(
    frame: Any, path: _Path, *, columns: Sequence[Column] | None = None, **options: Unpack[WriterOptions]
) -> StoredDataset:
    """Write the columns of a pandas `DataFrame`; its index is left out.

    NaN in columns of numpy floats stays NaN; missing values of other columns (None, `pd.NA`) are refused or filled.
    Categories become what they stand for. Raises BadColumnError, DatasetExistsError, OSError.
    """
    source = _FrameSource(frame, columns)
    return _write(source, path, options, source.columns)


def from_dataset(dataset: Dataset, path: _Path, **options: Unpack[WriterOptions]) -> StoredDataset:
    """Write the rows of any dataset, such as a view, as a dataset of its own, in stored order.

    Raises what reading the view raises, DatasetExistsError, OSError.
    """
    return _write(DatasetSource(dataset), path, options, tuple(dataset.schema.values()))


def _write(source: Source, path: _Path, options: WriterOptions, columns: Sequence[Column] | None) -> StoredDataset:
    writing: dict[str, Any] = {**options, "columns": columns}
    resume, on_progress = writing.pop("resume", False), writing.pop("on_progress", None)
    source.piece_bytes = writing.pop("piece_bytes", PIECE_BYTES)
    check_piece_bytes(source.piece_bytes)
    return write_source(source, path, writing, resume=resume, on_progress=on_progress)


def _write_table(table: Table, path: _Path, columns: Requested | None, options: WriterOptions) -> StoredDataset:
    # Missing values are filled before columns are converted.
    fills = options.get("fill_nulls")
    rest: WriterOptions = {**options, "fill_nulls": None}
    source = TableSource(table, name=table.kind, columns=columns, fill_nulls=fills)
    return _write(source, path, rest, source.columns)


class _GeneratorSource(Source):
    kind = name = "generator"

    def __init__(self, generator: Any, columns: Sequence[Column] | None, batched: bool) -> None:
        self._generator, self._batched = generator, batched
        self.columns = None if columns is None else tuple(columns)

    def pieces(self, first_row: int = 0) -> Iterator[Piece]:
        rows = iter(self._generator() if callable(self._generator) else self._generator)
        return self._of_batches(rows, first_row) if self._batched else self._of_rows(rows, first_row)

    def _of_batches(self, batches: Iterator[Any], first_row: int) -> Iterator[Piece]:
        row = 0
        for batch in batches:
            named = named_columns(batch, row)
            count = len(next(iter(named.values())))
            skipped = min(count, max(0, first_row - row))
            row += count
            if skipped < count:
                rows = (
                    {
                        name: values.slice(skipped, count) if hasattr(values, "row_splits") else values[skipped:]
                        for name, values in named.items()
                    }
                    if skipped
                    else named
                )
                yield Piece(rows, count - skipped, 0)
        check_rows_came(self.name, row, first_row)

    def _of_rows(self, rows: Iterator[Any], first_row: int) -> Iterator[Piece]:
        waiting: list[Mapping[str, Any]] = []
        num_bytes = 0
        skipped = sum(1 for _ in islice(rows, first_row))
        check_rows_came(self.name, skipped, first_row)
        for row, values in enumerate(rows, first_row):
            waiting.append(named_columns(values, row))
            if waiting[-1].keys() != waiting[0].keys():
                raise SourceError(
                    f"The generator yields the columns {', '.join(map(repr, waiting[-1]))} in row {row} and "
                    f"{', '.join(map(repr, waiting[0]))} before. Every row needs the same columns."
                )
            num_bytes += sum(map(_size, waiting[-1].values()))
            if num_bytes >= self.piece_bytes or len(waiting) == PIECE_ROWS:
                yield _piece_of_rows(waiting)
                waiting, num_bytes = [], 0
        if waiting:
            yield _piece_of_rows(waiting)


def _piece_of_rows(rows: Sequence[Mapping[str, Any]]) -> Piece:
    return Piece({name: [row[name] for row in rows] for name in rows[0]}, len(rows), 0)


def _size(value: Any) -> int:
    """About how many bytes a value of a row has."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    return len(value) if isinstance(value, str | bytes) else 8 * len(value) if hasattr(value, "__len__") else 8


def named_columns(element: Any, row: int) -> Mapping[str, Any]:
    """A row or batch by column: a dict as it is, (x, y, sample_weight) under these names, dicts inside by their own.

    Raises SourceError.
    """
    if isinstance(element, Mapping) and element:
        return element
    if isinstance(element, tuple) and 0 < len(element) <= len(_TUPLE_NAMES):
        named: dict[str, Any] = {}
        for name, part in zip(_TUPLE_NAMES, element, strict=False):
            for inner, value in part.items() if isinstance(part, Mapping) else [(name, part)]:
                if inner in named:
                    raise SourceError(f"Row {row} has two columns {inner!r}; give them different names.")
                named[inner] = value
        return named
    raise SourceError(
        f"Row {row} is {type(element).__name__}: {element!r:.60}. A row is a dict of columns, or a tuple (x, y) or "
        "(x, y, sample_weight)."
    )


class _BatchTable(Table):
    """Record batches that come one after the other."""

    files = ()

    def __init__(
        self,
        kind: str,
        make_batches: Callable[[], Iterator[pa.RecordBatch]],
        schema: pa.Schema | None = None,
        num_rows: int | None = None,
    ) -> None:
        self.kind, self.num_rows = kind, num_rows
        self._batches = make_batches()
        first = [] if schema is not None else list(islice(self._batches, 1))
        if schema is None and not first:
            raise SourceError(f"The {kind} data has no rows; a dataset needs at least one.")
        self._first = first
        self.schema = first[0].schema if schema is None else schema

    def parts(self, first_row: int, names: Sequence[str]) -> Iterator[TablePart]:
        row = 0
        for batches in (self._first, self._batches):
            for batch in batches:
                if not batch.schema.equals(self.schema):
                    raise SourceError(
                        f"The {self.kind} data has columns {batch.schema.names} of types {batch.schema.types} from row "
                        f"{row} on, and {self.schema.names} of types {self.schema.types} before; they should be alike."
                    )
                skipped = min(batch.num_rows, max(0, first_row - row))
                row += batch.num_rows
                if skipped < batch.num_rows:
                    start = row - batch.num_rows + skipped
                    yield TablePart(batch.slice(skipped), self.kind, start, 0)


def _record_batches(table: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(table, pa.Table):
        return iter(table.to_batches())
    return iter([table] if isinstance(table, pa.RecordBatch) else table)


class _FrameSource(Source):
    kind = name = "pandas"

    def __init__(self, frame: Any, columns: Sequence[Column] | None) -> None:
        names = list(map(str, frame.columns))
        if len(set(names)) < len(names) or not all(isinstance(name, str) for name in frame.columns):
            raise BadColumnError(f"The frame's columns are {list(frame.columns)!r:.200}; names are different texts.")
        self._frame, self.num_rows = frame, len(frame)
        known = {column.name: column for column in columns or ()}
        # Whether rows of arrays have one shape is seen in all of them only.
        self.columns = tuple(known.get(name) or self._column(name) for name in names) if self.num_rows else None

    def pieces(self, first_row: int = 0) -> Iterator[Piece]:
        total = self.num_rows or 0
        row_bytes = self._frame.memory_usage(index=False, deep=False).sum() / max(1, total)
        step = min(self.rows_per_piece(row_bytes), 8192)
        for low in range(first_row, total, step) if total else [0]:
            part = self._frame.iloc[low : low + step]
            yield Piece({name: _series_values(part[name]) for name in part.columns}, len(part), 0)

    def _column(self, name: str) -> Column:
        values = _series_values(self._frame[name])
        if isinstance(values, pa.Array) and pa.types.is_null(values.type):
            raise BadColumnError(f"Column {name!r} has only missing values; leave it out.", column=name)
        return incoming_column(name, values)


def _series_values(series: Any) -> Any:
    """A series as an array, an Arrow array (maybe with missing values), or a list of arrays."""
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in "biuf":
        return series.to_numpy()
    if series.dtype == object and isinstance(_first(series), np.ndarray | list | tuple):
        return [value if hasattr(value, "__len__") else None for value in series]
    try:
        found = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise BadColumnError(
            f"Column {series.name!r} has values that are neither numbers, text, bytes nor lists: {error}",
            column=series.name,
        ) from error
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _first(series: Any) -> Any:
    valid = series.dropna()
    return valid.iloc[0] if len(valid) else None
