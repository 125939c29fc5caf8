"""Views of some columns of a dataset, and of columns under other names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dataset import Dataset
from ..errors import SelectionError
from ..format.columns import Column, ColumnStatistics
from ..order.order import RowIds
from ..read.reader import Reader
from .statistics import LazyStatistics
from .view import View, ViewReader, checked_row_ids, chosen_columns


class ColumnsView(View):
    """The dataset below with some of its columns, under other names."""

    def __init__(self, below: Dataset, below_names: Mapping[str, str], call: str) -> None:
        super().__init__(below, call, list(below_names.items()))
        self._below_names = dict(below_names)

    @property
    def schema(self) -> Mapping[str, Column]:  # noqa: D102
        return _renamed(self.below.schema, self._below_names)

    @property
    def statistics(self) -> Mapping[str, ColumnStatistics]:  # noqa: D102
        known, names = self.below.statistics, self._below_names
        return LazyStatistics([name for name in names if names[name] in known], lambda name: known[names[name]])

    def reader(self, columns: Sequence[str] | None = None) -> Reader:  # noqa: D102
        names = {name: self._below_names[name] for name in chosen_columns(self, columns)}
        return _ColumnsReader(self.below.reader(list(names.values())), self.name, len(self), names)


class _ColumnsReader(ViewReader):
    def __init__(self, below: Reader, name: str, num_rows: int, names: Mapping[str, str]) -> None:
        super().__init__(below, name, num_rows)
        self._names = names

    @property
    def columns(self) -> Mapping[str, Column]:
        return _renamed(self._below.columns, self._names)

    def gather_checked(self, ids: RowIds, out: Mapping[str, npt.NDArray[Any]] | None) -> dict[str, Any]:
        return self._named(self._below.gather(ids, self._out_below(out)))

    def gather_batches(
        self, row_ids: npt.NDArray[np.int64], batch_size: int, out: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> Iterator[dict[str, Any]]:
        ids = checked_row_ids(row_ids, self._num_rows, self._name)
        return map(self._named, self._below.gather_batches(ids, batch_size, self._out_below(out)))

    def _out_below(self, out: Mapping[str, npt.NDArray[Any]] | None) -> dict[str, npt.NDArray[Any]] | None:
        return None if out is None else {below: out[name] for name, below in self._names.items() if name in out}

    def _named(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return {name: found[below] for name, below in self._names.items()}


def _renamed(schema: Mapping[str, Column], names: Mapping[str, str]) -> dict[str, Column]:
    found = {}
    for name, below in names.items():
        column = schema[below]
        found[name] = Column(name=name, dtype=column.dtype, shape=column.shape, kind=column.kind)
    return found


def select_columns(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """See `Dataset.select_columns`."""
    chosen = list(chosen_columns(dataset, names))
    return ColumnsView(dataset, {name: name for name in chosen}, f"select_columns({', '.join(chosen)})")


def rename(dataset: Dataset, names: Mapping[str, str]) -> Dataset:
    """See `Dataset.rename`."""
    chosen_columns(dataset, list(names))
    new = [names.get(name, name) for name in dataset.schema]
    repeated = sorted({name for name in new if new.count(name) > 1})
    if repeated:
        raise SelectionError(
            f"{dataset.name}.rename would give {', '.join(map(repr, repeated))} to more than one column.",
            path=dataset.name,
        )
    call = f"rename({', '.join(f'{old}={name}' for old, name in names.items())})"
    return ColumnsView(dataset, dict(zip(new, dataset.schema, strict=True)), call)
