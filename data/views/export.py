"""Taking rows out of a dataset: to look at (`head`, `row`), to Arrow, pandas and Parquet.

What leaves is what is stored: the same dtypes, no value converted, no missing values made. Everything but pandas (whose
frames are in memory anyway) goes through one stream of record batches, so that a dataset of any size becomes a Parquet
file in bounded memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..dataset import Dataset
from ..errors import DatasetExistsError, RowError
from ..format.arrow import arrow_of, arrow_schema
from ..format.columns import Column
from ..format.ragged import Ragged, Values
from ..order.order import checked_integer
from .view import appearing_whole, local_place, rows_at, rows_per_scan

if TYPE_CHECKING:
    import pandas as pd


def to_record_batches(dataset: Dataset, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
    """The rows of a dataset in stored order as a stream of record batches of a few MiB, one in memory at a time.

    Scalars become plain Arrow columns (bools `bool`), rows of a shape `fixed_shape_tensor`, lists `large_list`, text
    `large_string`, bytes `large_binary`; none has missing values. Raises UnknownColumnError; ShardError on the way.
    """
    chosen = dataset if columns is None else dataset.select_columns(columns)
    schema = arrow_schema(list(chosen.schema.values()), bools=True)
    batches = (
        pa.RecordBatch.from_arrays([arrow_of(name, rows[name]) for name in schema.names], schema=schema)
        for rows in _scanned(chosen)
    )
    return pa.RecordBatchReader.from_batches(schema, batches)


def to_pandas(dataset: Dataset, columns: Sequence[str] | None) -> pd.DataFrame:
    """See `Dataset.to_pandas`."""
    pandas = import_module("pandas")
    chosen = dataset if columns is None else dataset.select_columns(columns)
    parts: dict[str, list[Values]] = {name: [] for name in chosen.schema}
    for rows in _scanned(chosen):
        for name, values in rows.items():
            parts[name].append(values)
    series = {name: _series(column, parts.pop(name)) for name, column in chosen.schema.items()}
    return pandas.DataFrame({name: pandas.Series(values, dtype=dtype) for name, (values, dtype) in series.items()})


def to_parquet(
    dataset: Dataset,
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None,
    compression: str,
    overwrite: bool,
) -> Path:
    """See `Dataset.to_parquet`."""
    target = local_place(path)
    if target.is_dir() or (os.path.lexists(target) and not overwrite):
        raise DatasetExistsError(
            f"{target} exists already. Give another path, or overwrite=True to replace a file.", path=target
        )
    reader = to_record_batches(dataset, columns)
    with appearing_whole(target) as unfinished:
        with pq.ParquetWriter(unfinished, reader.schema, compression=compression, write_page_checksum=True) as writer:
            for batch in reader:
                writer.write_batch(batch)
    return target


def head(dataset: Dataset, num_rows: int) -> list[dict[str, Any]]:
    """See `Dataset.head`."""
    count = min(checked_integer("num_rows", num_rows, 0, 1 << 62), len(dataset))
    rows = rows_at(dataset, np.arange(count))
    return [row_of(rows, place) for place in range(count)]


def row(dataset: Dataset, row_id: int) -> dict[str, Any]:
    """See `Dataset.row`."""
    number, num_rows = checked_integer("row_id", row_id, -(1 << 62), 1 << 62), len(dataset)
    if not -num_rows <= number < num_rows:
        raise RowError(f"Row {number} was asked of {dataset.name}, which has {num_rows:,} rows.", path=dataset.name)
    return row_of(rows_at(dataset, np.array([number % num_rows])), 0)


def row_of(rows: Mapping[str, Values], place: int) -> dict[str, Any]:
    """One row of some as numbers, arrays, str and bytes, by column."""
    found = {name: one.row(place) if isinstance(one, Ragged) else one[place] for name, one in rows.items()}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in found.items()}


def _scanned(dataset: Dataset) -> Iterator[Mapping[str, Values]]:
    return dataset.batches(rows_per_scan(dataset), shuffle=False)


def _series(column: Column, parts: Sequence[Values]) -> tuple[npt.NDArray[Any], str | None]:
    """The values of a pandas column and its dtype, None for that of the values."""
    if not column.is_variable:
        whole = np.concatenate([part for part in parts if not isinstance(part, Ragged)])
        return (_objects(list(whole)), "object") if column.shape else (whole, None)
    rows = [part.row(place) for part in parts if isinstance(part, Ragged) for place in range(len(part))]
    return _objects(rows), "str" if column.kind == "string" else "object"


def _objects(rows: Sequence[object]) -> npt.NDArray[np.object_]:
    values = np.empty(len(rows), object)
    # One by one: numpy would make rows of equal shape one array.
    for place, row in enumerate(rows):
        values[place] = row
    return values
