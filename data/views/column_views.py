"""Views of some columns of a dataset, and of columns under other names.

No row is copied for it: the base is asked for fewer columns, and what it gives is named anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..dataset import Dataset
from ..errors import SelectionError
from ..format.columns import Column, ColumnStatistics
from ..order.order import RowIds
from ..read.reader import Out, Reader
from .statistics import LazyStatistics
from .view import View, ViewReader, chosen_columns


class ColumnsView(View):
    """The base with some of its columns, under other names."""

    def __init__(self, base: Dataset, base_names: Mapping[str, str], call: str) -> None:
        super().__init__(base, call, list(base_names.items()))
        self._base_names = dict(base_names)

    @property
    def schema(self) -> Mapping[str, Column]:  # noqa: D102
        return _renamed(self.base.schema, self._base_names)

    @property
    def statistics(self) -> Mapping[str, ColumnStatistics]:  # noqa: D102
        known, names = self.base.statistics, self._base_names
        return LazyStatistics([name for name in names if names[name] in known], lambda name: known[names[name]])

    @property
    def bounds(self) -> Mapping[str, ColumnStatistics]:  # noqa: D102
        known = self.base.bounds
        return {name: known[base] for name, base in self._base_names.items() if base in known}

    def reader(self, columns: Sequence[str] | None = None) -> Reader:  # noqa: D102
        names = {name: self._base_names[name] for name in chosen_columns(self, columns)}
        return _ColumnsReader(self.base.reader(list(names.values())), self.name, len(self), names)


class _ColumnsReader(ViewReader):
    def __init__(self, base: Reader, name: str, num_rows: int, names: Mapping[str, str]) -> None:
        super().__init__(base, name, num_rows, _renamed(base.columns, names))
        self._names = names

    def gather_checked(self, ids: RowIds, out: Out | None) -> dict[str, Any]:
        return self._named(self._base.gather(ids, self._base_out(out)))

    def gather_parts_checked(
        self, ids: RowIds, starts: RowIds, length: int, names: Collection[str], out: Out | None
    ) -> dict[str, Any]:
        base_names = [self._names[name] for name in names]
        return self._named(self._base.gather_parts(ids, starts, length, base_names, self._base_out(out)))

    def _base_out(self, out: Out | None) -> Out | None:
        return None if out is None else {base: out[name] for name, base in self._names.items() if name in out}

    def _named(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return {name: found[base] for name, base in self._names.items()}


def _renamed(schema: Mapping[str, Column], names: Mapping[str, str]) -> dict[str, Column]:
    return {name: replace(schema[base], name=name) for name, base in names.items()}


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
