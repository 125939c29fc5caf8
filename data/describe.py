"""A summary of a dataset for people: rows, files, columns, and how often each class occurs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from heliostat.data.manifest import ColumnStatistics
from heliostat.data.stored import StoredDataset

_MAX_CLASSES = 1000
_SCAN_ROWS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDescription:
    """One column in a summary; `class_counts` (value -> rows) for scalar integer and bool columns of few values."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    statistics: ColumnStatistics
    class_counts: dict[int, int] | None

    def __str__(self) -> str:
        shape = "×".join(map(str, self.shape)) or "scalar"
        text = f"{self.name}: {self.dtype} {shape}, {self.statistics.min:g} to {self.statistics.max:g}"
        if self.class_counts is None:
            return text
        rows = self.class_counts.values()
        return f"{text}, {len(rows)} classes of {min(rows)} to {max(rows)} rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDescription:
    """The summary of a dataset; `str()` gives it as lines of text."""

    path: str
    num_rows: int
    num_shards: int
    num_bytes: int
    fingerprint: str
    columns: tuple[ColumnDescription, ...]

    def __str__(self) -> str:
        size = f"{self.num_bytes / 1e6:,.1f} MB" if self.num_bytes >= 100_000 else f"{self.num_bytes:,} bytes"
        shards = "1 shard" if self.num_shards == 1 else f"{self.num_shards:,} shards"
        rows = "1 row" if self.num_rows == 1 else f"{self.num_rows:,} rows"
        lines = [self.path, f"  {rows}, {shards}, {size}, fingerprint {self.fingerprint}"]
        return "\n".join([*lines, *(f"  {column}" for column in self.columns)])


def describe(dataset: StoredDataset) -> DatasetDescription:
    """Summarise a dataset; reads the columns that may hold classes once. Raises ShardError."""
    spans = {name: s.max - s.min for name, s in dataset.statistics.items()}
    counted = [
        name
        for name, c in dataset.schema.items()
        if c.dtype.kind in "biu" and not c.shape and spans[name] < _MAX_CLASSES
    ]
    counts = _count_classes(dataset, counted)
    return DatasetDescription(
        path=str(dataset.path),
        num_rows=len(dataset),
        num_shards=len(dataset.shards),
        num_bytes=sum(shard.num_bytes for shard in dataset.shards),
        fingerprint=dataset.fingerprint,
        columns=tuple(
            ColumnDescription(
                name=name,
                dtype=column.dtype.name,
                shape=column.shape,
                statistics=dataset.statistics[name],
                class_counts=counts.get(name),
            )
            for name, column in dataset.schema.items()
        ),
    )


def _count_classes(dataset: StoredDataset, names: list[str]) -> dict[str, dict[int, int]]:
    counts: dict[str, dict[int, int]] = {name: {} for name in names}
    if not names:
        return counts
    for batch in dataset.batches(_SCAN_ROWS, shuffle=False, columns=names):
        for name, values in batch.items():
            found, rows = np.unique(values, return_counts=True)
            for value, number in zip(found.tolist(), rows.tolist(), strict=True):
                counts[name][int(value)] = counts[name].get(int(value), 0) + number
    return {name: dict(sorted(found.items())) for name, found in counts.items()}
