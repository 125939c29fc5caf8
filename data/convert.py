"""Converters: files that people have (npz, CSV) to datasets."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
from heliostat.data.errors import BadColumnError, SourceError
from heliostat.data.stored import StoredDataset
from heliostat.data.writer import write_dataset

_Path = str | os.PathLike[str]


def convert_npz(
    source: _Path, destination: _Path, *, overwrite: bool = False, rows_per_shard: int | None = None
) -> StoredDataset:
    """Write the arrays of an .npz file as the columns of a dataset.

    Raises SourceError, BadColumnError, DatasetExistsError.
    """
    try:
        archive = np.load(source, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SourceError(f"{os.fspath(source)} cannot be read as .npz: {error}", path=source) from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise SourceError(
            f"{os.fspath(source)} holds one array without a name (.npy); save it with np.savez(path, x=array).",
            path=source,
        )
    with archive:
        columns = {name: _npz_array(archive, name, source) for name in archive.files}
    return write_dataset(destination, columns, overwrite=overwrite, rows_per_shard=rows_per_shard)


def _npz_array(archive: Any, name: str, source: _Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(archive[name])
    except ValueError as error:
        # What numpy says when an array could only be unpickled.
        raise BadColumnError(
            f"Array {name!r} of {os.fspath(source)} holds Python objects; a dataset holds numbers and bools.",
            path=source,
            column=name,
        ) from error
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise SourceError(
            f"Array {name!r} of {os.fspath(source)} is damaged: {error}", path=source, column=name
        ) from error


def convert_csv(
    source: _Path,
    destination: _Path,
    *,
    target: str | None = None,
    features: Sequence[str] | None = None,
    overwrite: bool = False,
    rows_per_shard: int | None = None,
) -> StoredDataset:
    """Write a CSV file with a header line (plain or .gz) as a dataset.

    With `target`, the numeric `features` (None: all other columns) are stacked into "x", float32 [rows, features], and
    the target becomes "y", int64 if all its values are whole, else float32. Without, each column becomes a column of
    its own. Raises SourceError, BadColumnError for text or missing values (naming the first), DatasetExistsError.
    """
    table = _read_csv(source)
    if target is None:
        names = list(table.column_names if features is None else features)
        columns = {name: _numbers(table, name, source) for name in names}
    else:
        names = [name for name in table.column_names if name != target] if features is None else list(features)
        if not names:
            raise BadColumnError(
                f"{os.fspath(source)} has no feature column beside {target!r}.", path=source, column=target
            )
        stacked = [_numbers(table, name, source).astype(np.float32) for name in names]
        columns = {"x": np.stack(stacked, axis=1), "y": _target_values(_numbers(table, target, source))}
    return write_dataset(destination, columns, overwrite=overwrite, rows_per_shard=rows_per_shard)


def _read_csv(source: _Path) -> pa.Table:
    try:
        table = pyarrow.csv.read_csv(os.fspath(source))
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{os.fspath(source)} cannot be read as CSV: {error}", path=source) from error
    repeated = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if repeated:
        raise SourceError(
            f"{os.fspath(source)} names these columns more than once: {', '.join(repeated)}.", path=source
        )
    return table


def _numbers(table: pa.Table, name: str, source: _Path) -> npt.NDArray[Any]:
    """A column as numbers or bools, [rows]."""
    if name not in table.column_names:
        known = ", ".join(map(repr, table.column_names))
        raise BadColumnError(f"{os.fspath(source)} has no column {name!r}; it has {known}.", path=source, column=name)
    column = table.column(name)
    kind = column.type
    if not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    ):
        row, value = _first_text(column)
        raise BadColumnError(
            f"Column {name!r} of {os.fspath(source)} is not numeric: {value!r} in data row {row} "
            "(the header not counted). Turn it into integer ids, or name only numeric columns as features.",
            path=source,
            column=name,
        )
    if column.null_count:
        row = column.is_null().to_pylist().index(True) + 1
        raise BadColumnError(
            f"Column {name!r} of {os.fspath(source)} has {column.null_count} missing values, "
            f"the first in data row {row} (the header not counted). Fill them or drop these rows.",
            path=source,
            column=name,
        )
    return np.asarray(column.combine_chunks().to_numpy(zero_copy_only=False))


def _first_text(column: pa.ChunkedArray) -> tuple[int, str]:
    """Data row (from 1) and text of the first value that is no number."""
    values = [None if value is None else str(value) for value in column.to_pylist()]
    for row, value in enumerate(values, start=1):
        if value is not None and not _is_number(value):
            return row, value
    return 1, str(values[0])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _target_values(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype.kind in "biu" or (np.isfinite(values).all() and (values == np.trunc(values)).all()):
        return values.astype(np.int64)
    return values.astype(np.float32)
