"""Columns and their statistics as JSON, in manifests and journals."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .announced import Natural, check_row
from .columns import Column, ColumnKind, ColumnStatistics, LengthStatistics, NanStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnContent:
    """A column as manifest and journal have it."""

    name: str
    dtype: str
    shape: tuple[Natural, ...]
    kind: ColumnKind = "tensor"

    def column(self) -> Column:
        """The column; raises ValueError."""
        check_row(self.dtype, self.shape)
        return Column(name=self.name, dtype=np.dtype(self.dtype), shape=self.shape, kind=self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsContent:
    """The statistics of a column as manifest and journal have them: JSON has no NaN and no infinities."""

    min: int | float | str
    max: int | float | str
    lengths: LengthStatistics | None = None
    nans: NanStatistics | None = None

    def statistics(self, column: Column) -> ColumnStatistics:
        """The statistics; raises ValueError, OverflowError."""
        low, high = (
            float(value) if column.dtype.kind == "f" or value == "nan" else int(value) for value in (self.min, self.max)
        )
        return ColumnStatistics(min=low, max=high, lengths=self.lengths, nans=self.nans)


def column_to_json(column: Column) -> dict[str, Any]:
    """A column as the manifest has it; raises nothing."""
    # Format version 1 knew no kinds: without the default one, fingerprints of both versions are alike.
    kind = {"kind": column.kind} if column.is_variable else {}
    return {"name": column.name, **kind, "dtype": column.dtype.name, "shape": list(column.shape)}


def statistics_to_json(value: ColumnStatistics) -> dict[str, Any]:
    """The statistics of a column as the manifest has them."""
    content = without_none(value)
    for name in ("min", "max"):
        if not math.isfinite(content[name]):
            content[name] = str(content[name])
    return content


def without_none(value: Any) -> dict[str, Any]:
    """A dataclass as JSON can hold it, without the fields that are None: earlier versions know those only as absent."""
    return {name: inner for name, inner in asdict(value).items() if inner is not None}
