"""Statistics of a column, gathered while its rows are written."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .columns import Column, ColumnStatistics, LengthStatistics
from .ragged import Ragged
from .shards import Values


class Bounds:
    """The smallest and largest value seen so far, NaN left out, and for rows of variable length their lengths."""

    def __init__(self, column: Column, known: ColumnStatistics | None = None) -> None:
        self._has_numbers = column.kind in ("tensor", "list")
        self._number = float if column.dtype.kind == "f" else int
        self._low: float | int | None = None
        self._high: float | int | None = None
        self._lengths: LengthStatistics | None = None
        if known is not None:
            self._lengths = known.lengths
            if not math.isnan(known.min):
                self._low, self._high = known.min, known.max

    def add(self, part: Values) -> None:
        """Count some rows (at least one) in."""
        if isinstance(part, Ragged):
            self._add_lengths(part)
        if self._has_numbers:
            self._add_numbers(part.values if isinstance(part, Ragged) else part)

    def _add_numbers(self, numbers: npt.NDArray[Any]) -> None:
        if not numbers.size:
            return
        low, high = self._number(np.fmin.reduce(numbers, axis=None)), self._number(np.fmax.reduce(numbers, axis=None))
        if math.isnan(low):
            return
        self._low = low if self._low is None else min(self._low, low)
        self._high = high if self._high is None else max(self._high, high)

    def _add_lengths(self, rows: Ragged) -> None:
        lengths, before = rows.lengths, self._lengths
        low, high, total = int(lengths.min()), int(lengths.max()), int(lengths.sum())
        self._lengths = LengthStatistics(
            min=low if before is None else min(before.min, low),
            max=high if before is None else max(before.max, high),
            total=total if before is None else before.total + total,
        )

    def statistics(self) -> ColumnStatistics:
        """What is known so far."""
        nan = math.nan
        return ColumnStatistics(
            min=nan if self._low is None else self._low,
            max=nan if self._high is None else self._high,
            lengths=self._lengths,
        )
