"""A summary of a dataset for people: rows, files, columns, classes, lengths, some rows, and how well it is shuffled.

Whatever a manifest knows is taken from it; read, in one pass over the columns concerned, is what it does not know:
which classes there are and how many rows each has, how lengths are spread, which rows hold NaN. Of a remote dataset
that pass is a download, so it can be made over a sample, which is said. Numbers are shown with all their digits, as
many as tell them from their neighbours: a label of 1234567.0 is not 1.23457e+06.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..dataset import Dataset
from ..errors import SelectionError
from ..format.columns import Column, ColumnStatistics
from ..format.ragged import Ragged, Values
from ..order.order import Shuffle
from ..stored import StoredDataset
from .shuffle_quality import shuffle_quality
from .view import rows_at, rows_per_scan

_MAX_CLASSES = 1000
_NUM_BINS = 8
_MAX_TEXT = 60
_BAR = 20
# Not numbers are looked for in columns of labels, weights and measurements, not in pictures.
_MAX_SCANNED_ROW_BYTES = 128
_SAMPLED_SHARDS = 3
_SAMPLED_ROWS = 4096


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
    `lengths` for columns of variable length; `statistics` None where they are not known; `num_nan` rows with a NaN."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    statistics: ColumnStatistics | None
    class_counts: dict[int, int] | None
    kind: str = "tensor"
    lengths: LengthHistogram | None = None
    num_nan: int = 0

    def __str__(self) -> str:
        text = f"{self.name}: {self._type()}"
        known = self.statistics
        if known is not None and not math.isnan(known.min):
            text += f", {self._number(known.min)} to {self._number(known.max)}"
        if self.num_nan:
            text += f", NaN in {_counted(self.num_nan, 'row')}"
        if known is not None and known.lengths is not None:
            unit = "elements" if self.kind == "list" else "bytes"
            text += f", {known.lengths.min:,} to {known.lengths.max:,} {unit} per row, {known.lengths.total:,} in all"
        if self.class_counts is not None:
            rows = self.class_counts.values()
            text += f", {len(rows)} classes of {min(rows):,} to {max(rows):,} rows"
        return text

    def _number(self, value: float) -> str:
        """All digits of a value of this column, and no more."""
        if isinstance(value, int):
            return f"{value:,}"
        number = np.dtype(self.dtype).type(value)
        return np.format_float_positional(number, trim="-") if 1e-5 < abs(value) < 1e16 or not value else str(number)

    def _type(self) -> str:
        shape = "×".join(map(str, self.shape)) or "scalar"
        if self.kind == "tensor":
            return f"{self.dtype} {shape}"
        return f"list of {self.dtype} {shape}" if self.kind == "list" else self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDescription:
    """The summary of a dataset; `str()` gives it as lines of text.

    `num_shards` and `num_bytes` are None for a view. `num_looked_at` rows were read for NaN, classes and lengths.
    `sample` has some rows as short text by column, `shuffle_quality` the figure of `shuffle_quality` by shuffle, for
    the column `label`, `account` what the conversion left out or changed.
    """

    path: str
    num_rows: int
    num_shards: int | None
    num_bytes: int | None
    fingerprint: str
    columns: tuple[ColumnDescription, ...]
    num_looked_at: int
    sample: tuple[Mapping[str, str], ...] = ()
    label: str | None = None
    shuffle_quality: Mapping[str, float] = field(default_factory=dict)
    account: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [self._sizes()]
        if self.num_looked_at < self.num_rows:
            lines.append(f"NaN, classes and lengths are of a sample of {_counted(self.num_looked_at, 'row')}")
        lines += [*self._columns(), *self._sample(), *self._quality()]
        if self.account:
            lines += ["left out or changed when it was converted:", *(f"  {entry}" for entry in self.account)]
        return "\n".join([self.path, *(f"  {line}" for line in lines)])

    def _sizes(self) -> str:
        parts = [_counted(self.num_rows, "row")]
        if self.num_shards is not None:
            parts.append(_counted(self.num_shards, "shard"))
        if self.num_bytes is not None:
            size = self.num_bytes
            parts.append(f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size:,} bytes")
        return ", ".join([*parts, f"fingerprint {self.fingerprint}"])

    def _columns(self) -> list[str]:
        lines = []
        for column in self.columns:
            lines.append(str(column))
            if column.lengths is not None:
                lines += str(column.lengths).split("\n")
        return lines

    def _sample(self) -> list[str]:
        return [
            f"row {number}: " + ", ".join(f"{name}={value}" for name, value in row.items())
            for number, row in enumerate(self.sample)
        ]

    def _quality(self) -> list[str]:
        return [
            f"shuffle={shuffle!r}: batches vary in {self.label!r} {figure:.2f} times as much as random ones "
            "(chi² per degree of freedom)"
            for shuffle, figure in self.shuffle_quality.items()
        ]


def described(
    dataset: Dataset, *, num_samples: int, label: str | None, shuffles: Sequence[Shuffle], batch_size: int, full: bool
) -> DatasetDescription:
    """See `Dataset.describe`."""
    if label is not None and not full:
        raise SelectionError(
            f"How well shuffles mix {label!r} takes all rows of {dataset.name}, not a sample: give full=True (--full).",
            path=dataset.name,
            column=label,
        )
    stored = dataset if isinstance(dataset, StoredDataset) else None
    looked_at = dataset if full else _sampled(dataset)
    known = (looked_at if stored is None else stored).statistics
    seen = _look(looked_at, known)
    return DatasetDescription(
        path=dataset.name,
        num_rows=len(dataset),
        num_shards=None if stored is None else len(stored.shards),
        num_bytes=None if stored is None else sum(shard.num_bytes for shard in stored.shards),
        fingerprint=dataset.fingerprint,
        columns=tuple(_description(column, known.get(name), seen[name]) for name, column in dataset.schema.items()),
        num_looked_at=len(looked_at),
        sample=sample_rows(dataset, num_samples),
        label=label,
        shuffle_quality={}
        if label is None
        else {str(one): shuffle_quality(dataset, label, one, batch_size=batch_size) for one in shuffles},
        account=tuple(map(str, getattr(dataset, "account", ()))),
    )


def sample_rows(dataset: Dataset, num_rows: int) -> tuple[Mapping[str, str], ...]:
    """The first rows as short text by column; raises ShardError."""
    count = max(0, min(num_rows, len(dataset)))
    rows = rows_at(dataset, np.arange(count)) if count else {}
    return tuple({name: _short(values, place) for name, values in rows.items()} for place in range(count))


def length_histogram(lengths: npt.NDArray[np.int64]) -> LengthHistogram:
    """Up to eight bins of equal width for lengths [rows], at least one."""
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // _NUM_BINS)
    num_bins = -(-(high - low + 1) // width)
    counts = np.bincount((lengths - low) // width, minlength=num_bins)
    return LengthHistogram(
        edges=tuple(low + width * number for number in range(num_bins + 1)), counts=tuple(counts.tolist())
    )


class _Seen:
    """What the rows of a column that were looked at hold."""

    def __init__(self, column: Column, statistics: ColumnStatistics | None) -> None:
        # Which columns are read is decided here, before any is: those of few values, of lengths, and that may hold NaN.
        is_scalar = not column.is_variable and not column.shape
        self.has_classes = is_scalar and column.dtype.kind in "biu" and _is_narrow(statistics)
        self.may_hold_nan = column.dtype.kind == "f" and column.row_bytes <= _MAX_SCANNED_ROW_BYTES
        self.has_lengths = column.is_variable
        self.counts: Counter[int] = Counter()
        self.num_nan = 0
        self.lengths: list[npt.NDArray[np.int64]] = []

    @property
    def is_looked_at(self) -> bool:
        return self.has_classes or self.may_hold_nan or self.has_lengths

    def add(self, values: Values) -> None:
        numbers = values.values if isinstance(values, Ragged) else values
        if isinstance(values, Ragged):
            self.lengths.append(values.lengths)
        if self.may_hold_nan:
            places = np.flatnonzero(np.isnan(numbers).reshape(len(numbers), math.prod(numbers.shape[1:])).any(1))
            if isinstance(values, Ragged):  # of elements to rows
                places = np.unique(np.searchsorted(values.row_splits, places, side="right"))
            self.num_nan += places.size
        if self.has_classes:
            found, rows = np.unique(numbers, return_counts=True)
            self.counts.update(dict(zip(map(int, found.tolist()), rows.tolist(), strict=True)))


def _look(dataset: Dataset, known: Mapping[str, ColumnStatistics]) -> dict[str, _Seen]:
    """Read what must be read of all rows, once."""
    seen = {name: _Seen(column, known.get(name)) for name, column in dataset.schema.items()}
    names = [name for name, one in seen.items() if one.is_looked_at]
    if names:
        for batch in dataset.batches(rows_per_scan(dataset, names), shuffle=False, columns=names):
            for name, values in batch.items():
                seen[name].add(values)
    return seen


def _description(column: Column, statistics: ColumnStatistics | None, seen: _Seen) -> ColumnDescription:
    return ColumnDescription(
        name=column.name,
        dtype=column.dtype.name,
        shape=column.shape,
        statistics=statistics,
        class_counts=dict(sorted(seen.counts.items())) if seen.has_classes else None,
        kind=column.kind,
        lengths=length_histogram(np.concatenate(seen.lengths)) if seen.has_lengths else None,
        num_nan=seen.num_nan,
    )


def _sampled(dataset: Dataset) -> Dataset:
    """Some rows from the begin, the middle and the end, so that few shards are read."""
    if len(dataset) <= _SAMPLED_SHARDS * _SAMPLED_ROWS:
        return dataset
    starts = np.linspace(0, len(dataset) - _SAMPLED_ROWS, _SAMPLED_SHARDS).astype(np.int64)
    return dataset.select((starts[:, None] + np.arange(_SAMPLED_ROWS)).reshape(-1))


def _is_narrow(statistics: ColumnStatistics | None) -> bool:
    return statistics is not None and statistics.max - statistics.min < _MAX_CLASSES


def _counted(number: int, unit: str) -> str:
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"


def _short(values: Values, place: int) -> str:
    try:
        row = values.row(place) if isinstance(values, Ragged) else values[place]
    except UnicodeDecodeError as error:
        return f"text that is not UTF-8 ({error.object[:8].hex(' ')} …)"
    if isinstance(row, bytes):
        return f"{len(row):,} bytes"
    if isinstance(row, np.ndarray) and row.size > _NUM_BINS:
        return f"{row.dtype} {'×'.join(map(str, row.shape))}"
    text = repr(row.tolist()) if isinstance(row, np.ndarray | np.generic) else repr(row)
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
