"""Datasets one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dataset import Dataset
from ..format.columns import Column, ColumnStatistics
from ..order.order import RowIds
from ..read.reader import Reader
from .assemble import assembled, check_same_columns
from .statistics import LazyStatistics, merged_statistics
from .view import checked_row_ids, chosen_columns, fingerprint_of


def concatenate(datasets: Sequence[Dataset]) -> Dataset:
    """The rows of all datasets, one dataset after the other; the columns must be alike.

    Raises SelectionError.
    """
    check_same_columns(datasets, "concatenate")
    return datasets[0] if len(datasets) == 1 else Concatenation(datasets)


class Concatenation(Dataset):
    """The rows of several datasets with equal columns, one dataset after the other."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self.datasets = tuple(datasets)
        self._starts = np.cumsum([0, *map(len, datasets)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def name(self) -> str:  # noqa: D102
        return f"concatenate({', '.join(dataset.name for dataset in self.datasets)})"

    @property
    def schema(self) -> Mapping[str, Column]:  # noqa: D102
        return self.datasets[0].schema

    @property
    def fingerprint(self) -> str:  # noqa: D102
        return fingerprint_of("Concatenation", [dataset.fingerprint for dataset in self.datasets])

    @property
    def statistics(self) -> Mapping[str, ColumnStatistics]:  # noqa: D102
        return joined_statistics(self.datasets)

    @property
    def num_skipped(self) -> int:  # noqa: D102
        return sum(dataset.num_skipped for dataset in self.datasets)

    @property
    def varies(self) -> bool:  # noqa: D102
        return any(dataset.varies for dataset in self.datasets)

    def check(self) -> None:  # noqa: D102
        for dataset in self.datasets:
            dataset.check()

    def reader(self, columns: Sequence[str] | None = None) -> Reader:  # noqa: D102
        chosen = chosen_columns(self, columns)
        readers = [dataset.reader(list(chosen)) for dataset in self.datasets]
        return _ConcatenationReader(readers, chosen, self.name, self._starts)


class _ConcatenationReader(Reader):
    def __init__(
        self, readers: Sequence[Reader], columns: Mapping[str, Column], name: str, starts: npt.NDArray[np.int64]
    ) -> None:
        self._readers, self._columns, self._name, self._starts = readers, columns, name, starts

    @property
    def columns(self) -> Mapping[str, Column]:
        return self._columns

    def start_pass(self, *, seed: int, epoch: int) -> None:
        for reader in self._readers:
            reader.start_pass(seed=seed, epoch=epoch)

    def gather(
        self, row_ids: npt.NDArray[np.int64], out: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> dict[str, Any]:
        ids = checked_row_ids(row_ids, int(self._starts[-1]), self._name)
        numbers = np.searchsorted(self._starts, ids, side="right") - 1
        used = np.unique(numbers).tolist()
        if len(used) == 1:
            return self._readers[used[0]].gather(ids - self._starts[used[0]], out)
        return assembled(self._columns, ids.size, [self._part(number, numbers, ids) for number in used], out)

    def _part(self, number: int, numbers: RowIds, ids: RowIds) -> tuple[RowIds, dict[str, Any]]:
        places = np.flatnonzero(numbers == number)
        return places, self._readers[number].gather(ids[places] - self._starts[number])

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


def joined_statistics(datasets: Sequence[Dataset]) -> Mapping[str, ColumnStatistics]:
    """Statistics of the rows of all datasets together, for the columns for which all know them."""
    known, schema = [dataset.statistics for dataset in datasets], datasets[0].schema
    names = [name for name in schema if all(name in one for one in known)]
    return LazyStatistics(names, lambda name: merged_statistics(schema[name], [one[name] for one in known]))
