"""`cache`: rows that are costly to compute, computed once; in the memory of each process, or as a dataset on disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dataset import Dataset
from ..errors import DatasetExistsError, DatasetNotFoundError, SelectionError
from ..format.columns import Column
from ..format.ragged import Ragged, splits_of
from ..format.shards import Values
from ..order.bijection import Integers
from ..order.order import RowIds
from ..read.reader import Reader, output_array
from .view import View, ViewReader, chosen_columns, rows_per_scan

_CACHE_KEY = "heliostat_cache_of"


def cached(dataset: Dataset, place: str | os.PathLike[str]) -> Dataset:
    """See `Dataset.cache`."""
    if dataset.varies:
        raise SelectionError(
            f"The rows of {dataset.name} differ from pass to pass; a cache would repeat those of the first one. Cache "
            "what is below the random map or the mix.",
            path=dataset.name,
        )
    if place == "memory":
        return MemoryCache(dataset)
    return DiskCache(dataset, _written(dataset, Path(os.path.abspath(place))))


class _CachedDataset(View):
    """The dataset below, with its fingerprint: the rows are the same."""

    @property
    def fingerprint(self) -> str:
        return self.below.fingerprint


class MemoryCache(_CachedDataset):
    """The dataset below; each process keeps the rows that it has read.

    Rows are kept column by column as they are asked for, at their size in memory, until the dataset is let go of.
    """

    def __init__(self, below: Dataset) -> None:
        super().__init__(below, "cache(memory)", [])
        self._memory = _Memory(len(below))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memory": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _memory=_Memory(len(state["below"])))

    @property
    def num_bytes(self) -> int:
        """Bytes of the rows that this process keeps."""
        return self._memory.num_bytes

    def reader(self, columns: Sequence[str] | None = None) -> Reader:  # noqa: D102
        return _MemoryReader(self.below.reader(columns), self.name, self._memory)


class _Memory:
    """The rows that are known, by column, shared by all readers of a process."""

    def __init__(self, num_rows: int) -> None:
        self.lock = threading.Lock()
        self.num_rows = num_rows
        self._columns: dict[str, _KnownArray | _KnownRagged] = {}

    @property
    def num_bytes(self) -> int:
        return sum(column.num_bytes for column in self._columns.values())

    def column(self, column: Column) -> _KnownArray | _KnownRagged:
        if column.name not in self._columns:
            kind = _KnownRagged if column.is_variable else _KnownArray
            self._columns[column.name] = kind(column, self.num_rows)
        return self._columns[column.name]


class _KnownArray:
    """Rows of one shape, each at its own place; pages of memory are used when a row is put there."""

    def __init__(self, column: Column, num_rows: int) -> None:
        self.is_known = np.zeros(num_rows, bool)
        self._rows = np.empty((num_rows, *column.shape), column.dtype)
        self._row_bytes = column.row_bytes

    @property
    def num_bytes(self) -> int:
        return int(self.is_known.sum()) * self._row_bytes

    def put(self, ids: RowIds, values: Any) -> None:
        self._rows[ids] = values
        self.is_known[ids] = True

    def get(self, ids: RowIds, out: Any) -> Values:
        np.take(self._rows, ids, axis=0, out=out, mode="clip")
        return out


class _KnownRagged:
    """Rows of different lengths, one after the other in the order in which they came."""

    def __init__(self, column: Column, num_rows: int) -> None:
        self.is_known = np.zeros(num_rows, bool)
        self._starts, self._lengths = np.zeros(num_rows, np.int64), np.zeros(num_rows, np.int64)
        self._values, self._used, self._kind = np.empty((0, *column.shape), column.dtype), 0, column.kind

    @property
    def num_bytes(self) -> int:
        return self._values.nbytes

    def put(self, ids: RowIds, rows: Any) -> None:
        total = len(rows.values)
        if self._used + total > len(self._values):
            grown = np.empty(
                (max(2 * len(self._values), self._used + total), *self._values.shape[1:]), rows.values.dtype
            )
            grown[: self._used] = self._values[: self._used]
            self._values = grown
        self._values[self._used : self._used + total] = rows.values
        self._starts[ids], self._lengths[ids] = rows.row_splits[:-1] + self._used, rows.lengths
        self._used += total
        self.is_known[ids] = True

    def get(self, ids: RowIds, out: Any) -> Values:
        lengths = self._lengths[ids]
        splits = splits_of(lengths)
        places = np.repeat(self._starts[ids] - splits[:-1], lengths) + np.arange(splits[-1])
        return Ragged(self._values[places], splits, self._kind)


class _MemoryReader(ViewReader):
    def __init__(self, below: Reader, name: str, memory: _Memory) -> None:
        super().__init__(below, name, memory.num_rows)
        self._memory, self._is_open = memory, True

    def gather_checked(self, ids: RowIds, out: Mapping[str, npt.NDArray[Any]] | None) -> dict[str, Any]:
        if not self._is_open:
            raise ValueError(f"The reader of dataset {self._name} is closed; make another with dataset.reader().")
        columns = self.columns
        with self._memory.lock:
            known = {name: self._memory.column(column) for name, column in columns.items()}
            missing = self._missing(ids, known)
        rows = self._below.gather(missing) if missing.size else {}
        with self._memory.lock:
            for name, values in rows.items():
                known[name].put(missing, values)
            return {
                name: known[name].get(ids, None if column.is_variable else output_array(column, ids.size, out))
                for name, column in columns.items()
            }

    @staticmethod
    def _missing(ids: RowIds, known: Mapping[str, _KnownArray | _KnownRagged]) -> Integers:
        has_all = np.ones(ids.size, bool)
        for column in known.values():
            has_all &= column.is_known[ids]
        return np.unique(ids[~has_all])

    def close(self) -> None:
        self._is_open = False
        super().close()


class DiskCache(_CachedDataset):
    """The dataset below, read from the dataset into which its rows were written."""

    def __init__(self, below: Dataset, stored: Dataset) -> None:
        super().__init__(below, f"cache({stored.name})", [])
        self._stored = stored

    def check(self) -> None:
        """Look whether the written rows are there; what is below is not needed any more."""
        self._stored.check()

    def reader(self, columns: Sequence[str] | None = None) -> Reader:  # noqa: D102
        chosen_columns(self, columns)
        return self._stored.reader(columns)


def _written(dataset: Dataset, path: Path) -> Dataset:
    """The dataset at `path` that holds these rows, written unless it is there already."""
    from ..stored import open_dataset
    from ..write.dataset_writer import DatasetWriter

    overwrite = False
    if os.path.lexists(path):
        try:
            stored = open_dataset(path)
        except DatasetNotFoundError as error:
            raise DatasetExistsError(f"{path} exists and is no cache; give cache another path.", path=path) from error
        cache_of = stored.metadata.get(_CACHE_KEY)
        if cache_of == dataset.fingerprint:
            return stored
        if cache_of is None:
            raise DatasetExistsError(
                f"{path} holds a dataset that is no cache, so it is not replaced; give cache another path.", path=path
            )
        overwrite = True
    columns, metadata = list(dataset.schema.values()), {_CACHE_KEY: dataset.fingerprint}
    with DatasetWriter(path, columns=columns, overwrite=overwrite, metadata=metadata) as writer:
        for batch in dataset.batches(rows_per_scan(dataset), shuffle=False):
            writer.write(batch)
    return writer.dataset
