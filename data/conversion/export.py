"""Datasets to Arrow, pandas and Parquet."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..dataset import Dataset
from ..errors import DatasetExistsError
from ..format.columns import Column
from ..format.ragged import Ragged
from ..format.shards import Values
from .open_source import DatasetSource


def to_record_batches(dataset: Dataset, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
    """The rows of a dataset in stored order as a stream of record batches of a few MiB, one in memory at a time.

    Scalars become plain Arrow columns (bools `bool`), rows of a shape `fixed_shape_tensor`, lists `large_list`, text
    `large_string`, bytes `large_binary`; none has missing values. Raises UnknownColumnError; ShardError on the way.
    """
    chosen = dataset if columns is None else dataset.select_columns(columns)
    schema = pa.schema([pa.field(name, _type(column), nullable=False) for name, column in chosen.schema.items()])
    return pa.RecordBatchReader.from_batches(schema, _batches(chosen, schema))


def to_arrow(dataset: Dataset, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a dataset in stored order as an Arrow table in memory; types as in `to_record_batches`.

    Raises UnknownColumnError, ShardError.
    """
    return to_record_batches(dataset, columns).read_all()


def to_pandas(dataset: Dataset, columns: Sequence[str] | None = None) -> Any:
    """All rows of a dataset in stored order as a pandas `DataFrame`, with the dtypes of the dataset.

    Rows of a shape and lists are arrays in object columns, text is `str`, bytes are objects. Needs pandas. Raises
    UnknownColumnError, ShardError, ImportError.
    """
    pd: Any = import_module("pandas")

    chosen = dataset if columns is None else dataset.select_columns(columns)
    parts: dict[str, list[Any]] = {name: [] for name in chosen.schema}
    for piece in DatasetSource(chosen).pieces():
        for name, values in dict(piece.rows).items():
            parts[name].append(values)
    return pd.DataFrame({name: _series(pd, column, parts.pop(name)) for name, column in chosen.schema.items()})


def to_parquet(
    dataset: Dataset,
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    compression: str = "zstd",
    overwrite: bool = False,
) -> Path:
    """Write the rows of a dataset in stored order as one Parquet file, in bounded memory, and return its path.

    Types are those of `to_record_batches`; pages have checksums. The file appears complete or not at all. Raises
    DatasetExistsError if the path is taken (`overwrite` replaces a file), UnknownColumnError, ShardError, OSError.
    """
    target = Path(os.path.abspath(path))
    if target.is_dir() or (os.path.lexists(target) and not overwrite):
        raise DatasetExistsError(
            f"{target} exists already. Give another path, or overwrite=True to replace a file.", path=target
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.parent / f".{target.name}.writing-{uuid.uuid4().hex[:12]}"
    reader = to_record_batches(dataset, columns)
    try:
        with pq.ParquetWriter(unfinished, reader.schema, compression=compression, write_page_checksum=True) as writer:
            for batch in reader:
                writer.write_batch(batch)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _batches(dataset: Dataset, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for piece in DatasetSource(dataset).pieces():
        rows = dict(piece.rows)
        arrays = [_array(column, rows[name]) for name, column in dataset.schema.items()]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _type(column: Column) -> pa.DataType:
    if column.kind in ("string", "bytes"):
        return pa.large_string() if column.kind == "string" else pa.large_binary()
    value_type = pa.from_numpy_dtype(column.dtype)
    if column.kind == "list":
        element = pa.list_(value_type, math.prod(column.shape)) if column.shape else value_type
        return pa.large_list(pa.field("item", element, nullable=False))
    return pa.fixed_shape_tensor(value_type, column.shape) if column.shape else value_type


def _array(column: Column, values: Values) -> pa.Array:
    kind = _type(column)
    if isinstance(values, Ragged):
        splits = pa.py_buffer(np.ascontiguousarray(values.row_splits, np.int64))
        if column.kind != "list":
            return pa.Array.from_buffers(kind, len(values), [None, splits, pa.py_buffer(values.values)])
        flat = pa.array(values.values.reshape(-1))
        if column.shape:
            flat = pa.FixedSizeListArray.from_arrays(flat, math.prod(column.shape))
        return pa.Array.from_buffers(kind, len(values), [None, splits], children=[flat])
    flat = pa.array(values.reshape(-1))
    if not column.shape:
        return flat
    rows = pa.FixedSizeListArray.from_arrays(flat, math.prod(column.shape))
    return pa.ExtensionArray.from_storage(kind, rows)


def _series(pd: Any, column: Column, parts: Sequence[Values]) -> Any:
    ragged = [part for part in parts if isinstance(part, Ragged)]
    if column.kind == "string":
        return pd.Series([row for part in ragged for row in part.to_list()], dtype="str")
    if column.kind == "bytes":
        return pd.Series([row for part in ragged for row in part.to_list()], dtype=object)
    if column.kind == "list":
        return _objects(pd, [row for part in ragged for row in np.split(part.values, part.row_splits[1:-1])])
    arrays = [part for part in parts if not isinstance(part, Ragged)]
    whole = np.concatenate(arrays)
    return _objects(pd, list(whole)) if column.shape else pd.Series(whole)


def _objects(pd: Any, rows: Sequence[Any]) -> Any:
    values = np.empty(len(rows), object)
    # One by one: numpy would make rows of equal shape one array.
    for place, row in enumerate(rows):
        values[place] = row
    return pd.Series(values)
