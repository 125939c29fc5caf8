"""A summary of a dataset for people: rows, files, columns, classes, lengths, some rows, and how well it is shuffled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .dataset import Dataset
from .format.columns import Column, ColumnStatistics
from .format.ragged import Ragged
from .format.shards import Values
from .mixing import shuffle_quality
from .order.order import Shuffle
from .stored import StoredDataset
from .views.view import rows_per_scan

_MAX_CLASSES = 1000
_MAX_SCAN_ROWS = 1 << 16
_NUM_BINS = 8
_MAX_TEXT = 60
_BAR = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthHistogram:
    """How long the rows of a column of variable length are: `counts[i]` rows have `edges[i]` to `edges[i + 1]` - 1
    elements (bytes of text and bytes)."""

    edges: tuple[int, ...]
    counts: tuple[int, ...]

    def __str__(self) -> str:
        return "\n".join(self._line(*bin) for bin in zip(self.edges, self.edges[1:], self.counts, strict=False))

    def _line(self, low: int, high: int, count: int) -> str:
        bar = "█" * round(_BAR * count / max(self.counts))
        label = str(low) if high - low == 1 else f"{low} to {high - 1}"
        return f"{label:>16} {count:>12,} rows {bar}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDescription:
    """One column in a summary; `class_counts` (value -> rows) for scalar integer and bool columns of few values,
    `lengths` for columns of variable length; `statistics` None where they are not known."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    statistics: ColumnStatistics | None
    class_counts: dict[int, int] | None
    kind: str = "tensor"
    lengths: LengthHistogram | None = None

    def __str__(self) -> str:
        text = f"{self.name}: {self._type()}"
        known = self.statistics
        if known is not None and not math.isnan(known.min):
            text += f", {known.min:g} to {known.max:g}"
        if known is not None and known.lengths is not None:
            unit = "elements" if self.kind == "list" else "bytes"
            text += f", {known.lengths.min:,} to {known.lengths.max:,} {unit} per row, {known.lengths.total:,} in all"
        if self.class_counts is not None:
            rows = self.class_counts.values()
            text += f", {len(rows)} classes of {min(rows)} to {max(rows)} rows"
        return text

    def _type(self) -> str:
        shape = "×".join(map(str, self.shape)) or "scalar"
        if self.kind == "tensor":
            return f"{self.dtype} {shape}"
        return f"list of {self.dtype} {shape}" if self.kind == "list" else self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDescription:
    """The summary of a dataset; `str()` gives it as lines of text.

    `num_shards` and `num_bytes` are None for a view. `sample` has some rows as short text by column, `shuffle_quality`
    the figure of `shuffle_quality` by shuffle, for the column `label`.
    """

    path: str
    num_rows: int
    num_shards: int | None
    num_bytes: int | None
    fingerprint: str
    columns: tuple[ColumnDescription, ...]
    sample: tuple[Mapping[str, str], ...] = ()
    label: str | None = None
    shuffle_quality: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join([self.path, f"  {self._sizes()}", *self._columns(), *self._sample(), *self._quality()])

    def _sizes(self) -> str:
        parts = ["1 row" if self.num_rows == 1 else f"{self.num_rows:,} rows"]
        if self.num_shards is not None:
            parts.append("1 shard" if self.num_shards == 1 else f"{self.num_shards:,} shards")
        if self.num_bytes is not None:
            size = self.num_bytes
            parts.append(f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size:,} bytes")
        return ", ".join([*parts, f"fingerprint {self.fingerprint}"])

    def _columns(self) -> list[str]:
        lines = []
        for column in self.columns:
            lines.append(f"  {column}")
            if column.lengths is not None:
                lines += [f"  {line}" for line in str(column.lengths).split("\n")]
        return lines

    def _sample(self) -> list[str]:
        return [
            f"  row {number}: " + ", ".join(f"{name}={value}" for name, value in row.items())
            for number, row in enumerate(self.sample)
        ]

    def _quality(self) -> list[str]:
        return [
            f"  shuffle={shuffle!r}: batches vary in {self.label!r} {figure:.2f} times as much as random ones "
            "(chi² per degree of freedom)"
            for shuffle, figure in self.shuffle_quality.items()
        ]


def describe(
    dataset: Dataset,
    *,
    num_samples: int = 0,
    label: str | None = None,
    shuffles: Sequence[Shuffle] = ("window", "full"),
    batch_size: int = 1024,
) -> DatasetDescription:
    """Summarise a dataset; reads the columns that may hold classes, and those of variable length, once.

    `num_samples` first rows are shown. With `label`, an integer or bool column, it is computed how well each of
    `shuffles` mixes its classes into batches of `batch_size` rows. Raises ShardError, SelectionError, PlanError.
    """
    schema, known = dataset.schema, dataset.statistics
    statistics = {name: known.get(name) for name in schema}
    counts = _count_classes(dataset, [name for name, c in schema.items() if _may_hold_classes(c, statistics[name])])
    stored = dataset if isinstance(dataset, StoredDataset) else None
    columns = [
        ColumnDescription(
            name=name,
            dtype=column.dtype.name,
            shape=column.shape,
            statistics=statistics[name],
            class_counts=counts.get(name),
            kind=column.kind,
            lengths=_histogram(dataset, name) if column.is_variable else None,
        )
        for name, column in schema.items()
    ]
    return DatasetDescription(
        path=dataset.name,
        num_rows=len(dataset),
        num_shards=None if stored is None else len(stored.shards),
        num_bytes=None if stored is None else sum(shard.num_bytes for shard in stored.shards),
        fingerprint=dataset.fingerprint,
        columns=tuple(columns),
        sample=sample_rows(dataset, num_samples),
        label=label,
        shuffle_quality={}
        if label is None
        else {str(one): shuffle_quality(dataset, label, one, batch_size=batch_size) for one in shuffles},
    )


def sample_rows(dataset: Dataset, num_rows: int) -> tuple[Mapping[str, str], ...]:
    """The first rows as short text by column; raises ShardError."""
    if num_rows < 1:
        return ()
    with dataset.reader() as reader:
        rows: dict[str, Any] = dict(reader.gather(np.arange(min(num_rows, len(dataset)), dtype=np.int64)))
    count = min(num_rows, len(dataset))
    return tuple({name: _short(values, place) for name, values in rows.items()} for place in range(count))


def _short(values: Values, place: int) -> str:
    row = values.row(place) if isinstance(values, Ragged) else values[place]
    if isinstance(row, bytes):
        return f"{len(row):,} bytes"
    if isinstance(row, np.ndarray) and row.size > _NUM_BINS:
        return f"{row.dtype} {'×'.join(map(str, row.shape))}"
    text = repr(row.tolist()) if isinstance(row, np.ndarray | np.generic) else repr(row)
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def _may_hold_classes(column: Column, statistics: ColumnStatistics | None) -> bool:
    if column.is_variable or column.shape or column.dtype.kind not in "biu" or statistics is None:
        return False
    return statistics.max - statistics.min < _MAX_CLASSES


def _count_classes(dataset: Dataset, names: list[str]) -> dict[str, dict[int, int]]:
    counts: dict[str, dict[int, int]] = {name: {} for name in names}
    if not names:
        return counts
    for batch in dataset.batches(_MAX_SCAN_ROWS, shuffle=False, columns=names):
        for name, values in batch.items():
            found, rows = np.unique(values, return_counts=True)
            for value, number in zip(found.tolist(), rows.tolist(), strict=True):
                counts[name][int(value)] = counts[name].get(int(value), 0) + number
    return {name: dict(sorted(found.items())) for name, found in counts.items()}


def _histogram(dataset: Dataset, name: str) -> LengthHistogram:
    parts = [
        batch[name].lengths for batch in dataset.batches(rows_per_scan(dataset, [name]), shuffle=False, columns=[name])
    ]
    return length_histogram(np.concatenate(parts))


def length_histogram(lengths: npt.NDArray[np.int64]) -> LengthHistogram:
    """Up to eight bins of equal width for lengths [rows], at least one."""
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // _NUM_BINS)
    num_bins = -(-(high - low + 1) // width)
    counts = np.bincount((lengths - low) // width, minlength=num_bins)
    return LengthHistogram(
        edges=tuple(low + width * number for number in range(num_bins + 1)), counts=tuple(counts.tolist())
    )
