"""Writing a dataset: numpy arrays to shards, statistics and a manifest, all or nothing."""

from __future__ import annotations

import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from heliostat.data.errors import BadColumnError, DatasetExistsError
from heliostat.data.manifest import MANIFEST_NAME, Column, ColumnStatistics, Manifest, Shard, write_manifest
from heliostat.data.shards import arrow_schema, hash_file, record_batch, stored_dtype
from heliostat.data.stored import StoredDataset

_SHARD_BYTES = 64 << 20
_MAX_BATCH_BYTES = 8 << 20
_MAX_BATCH_ROWS = 4096

Arrays = Mapping[str, npt.NDArray[Any]]


def write_dataset(
    path: str | os.PathLike[str],
    columns: Mapping[str, npt.ArrayLike],
    *,
    rows_per_shard: int | None = None,
    overwrite: bool = False,
) -> StoredDataset:
    """Write arrays of equal length as a dataset and return it opened.

    Each array is [rows, *shape] of a numeric or bool dtype in any memory layout and byte order; `rows_per_shard` None
    makes shards of about 64 MiB. The folder appears at `path` complete or not at all; `overwrite` replaces a dataset
    (never another kind of folder). Raises DatasetExistsError, BadColumnError, ValueError for a bad `rows_per_shard`,
    OSError.
    """
    if rows_per_shard is not None and (not isinstance(rows_per_shard, int) or rows_per_shard < 1):
        raise ValueError(f"rows_per_shard is {rows_per_shard!r}; it must be an integer of at least 1, or None.")
    target = Path(os.path.abspath(path))
    _check_target(target, overwrite)
    arrays = _checked_arrays(columns)
    described = [
        Column(name=name, dtype=array.dtype.newbyteorder("="), shape=array.shape[1:]) for name, array in arrays.items()
    ]
    with _folder_in_the_making(target, overwrite) as folder:
        write_manifest(folder, _write_shards(folder, described, arrays, rows_per_shard))
    return StoredDataset.open(target)


def _checked_arrays(columns: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
    if not columns:
        raise BadColumnError("A dataset needs at least one column; none was given.")
    arrays = {name: _checked_array(name, values) for name, values in columns.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    first, num_rows = next(iter(lengths.items()))
    for name, length in lengths.items():
        if length != num_rows:
            raise BadColumnError(
                f"Column {name!r} has {length} rows and column {first!r} has {num_rows}; "
                "all columns need the same number.",
                column=name,
            )
    if num_rows == 0:
        raise BadColumnError(f"Column {first!r} has 0 rows; a dataset needs at least one.", column=first)
    return arrays


def _checked_array(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    if isinstance(values, np.ma.MaskedArray):
        raise BadColumnError(f"Column {name!r} is a masked array; fill its missing values first.", column=name)
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise BadColumnError(f"Column {name!r} is no regular array: {error}", column=name) from error
    if array.ndim == 0:
        raise BadColumnError(f"Column {name!r} is a single value; a column has one entry per row.", column=name)
    return array


def _write_shards(folder: Path, columns: Sequence[Column], arrays: Arrays, rows_per_shard: int | None) -> Manifest:
    num_rows, row_bytes = len(arrays[columns[0].name]), sum(column.row_bytes for column in columns)
    rows_per_batch = max(1, min(_MAX_BATCH_ROWS, _MAX_BATCH_BYTES // row_bytes))
    if rows_per_shard is None:
        rows_per_shard = rows_per_batch * max(1, _SHARD_BYTES // (row_bytes * rows_per_batch))
    bounds = {column.name: _Bounds(column) for column in columns}
    shards = []
    for number, start in enumerate(range(0, num_rows, rows_per_shard)):
        stop = min(start + rows_per_shard, num_rows)
        file = folder / f"shard-{number:05d}.arrow"
        _write_shard(file, columns, arrays, range(start, stop, rows_per_batch), stop, bounds)
        shards.append(
            Shard(file=file.name, num_rows=stop - start, num_bytes=file.stat().st_size, xxh3_128=hash_file(file))
        )
    statistics = {name: value.statistics() for name, value in bounds.items()}
    return Manifest(columns=tuple(columns), shards=tuple(shards), rows_per_batch=rows_per_batch, statistics=statistics)


def _write_shard(
    path: Path, columns: Sequence[Column], arrays: Arrays, starts: range, stop: int, bounds: Mapping[str, _Bounds]
) -> None:
    with open(path, "wb") as file:
        with pa.ipc.new_file(pa.PythonFile(file, mode="w"), arrow_schema(columns)) as writer:
            for start in starts:
                # One record batch at a time is made contiguous and native: the whole array may be a map larger than
                # memory.
                parts = [
                    np.ascontiguousarray(arrays[column.name][start : min(start + starts.step, stop)], column.dtype)
                    for column in columns
                ]
                for column, part in zip(columns, parts, strict=True):
                    bounds[column.name].add(part)
                writer.write_batch(
                    record_batch(columns, [p.view(stored_dtype(c)) for c, p in zip(columns, parts, strict=True)])
                )
        file.flush()
        os.fsync(file.fileno())


class _Bounds:
    """The smallest and largest value seen so far, NaN left out."""

    def __init__(self, column: Column) -> None:
        self._number = float if column.dtype.kind == "f" else int
        self._low: float | int | None = None
        self._high: float | int | None = None

    def add(self, part: npt.NDArray[Any]) -> None:
        low, high = self._number(np.fmin.reduce(part, axis=None)), self._number(np.fmax.reduce(part, axis=None))
        if math.isnan(low):
            return
        self._low = low if self._low is None else min(self._low, low)
        self._high = high if self._high is None else max(self._high, high)

    def statistics(self) -> ColumnStatistics:
        nan = math.nan
        return ColumnStatistics(
            min=nan if self._low is None else self._low, max=nan if self._high is None else self._high
        )


def _check_target(target: Path, overwrite: bool) -> None:
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise DatasetExistsError(
            f"{target} exists already. Give another path, or overwrite=True to replace a dataset.", path=target
        )
    if not target.is_dir() or not (target / MANIFEST_NAME).is_file():
        raise DatasetExistsError(
            f"{target} exists and is not a dataset (it has no {MANIFEST_NAME}), so overwrite=True does not replace it. "
            "Give another path, or remove it yourself.",
            path=target,
        )


@contextmanager
def _folder_in_the_making(target: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place at the end, or is removed after an exception."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # A sibling, because only within one file system is a rename atomic.
    folder = target.parent / f".{target.name}.writing-{uuid.uuid4().hex[:12]}"
    folder.mkdir()
    try:
        yield folder
        _flush_folder(folder)
        _put_in_place(folder, target, overwrite)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _flush_folder(target.parent)


def _put_in_place(folder: Path, target: Path, overwrite: bool) -> None:
    replaced = target.parent / f".{target.name}.replaced-{uuid.uuid4().hex[:12]}"
    _check_target(target, overwrite)
    had_old = os.path.lexists(target)
    if had_old:
        os.rename(target, replaced)
    try:
        os.rename(folder, target)
    except OSError:
        if had_old:
            os.rename(replaced, target)
        raise
    if had_old:
        shutil.rmtree(replaced, ignore_errors=True)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
