"""The account of a conversion: what of the source was left out or changed, with counts.

A value that is stored equals the value in the source, or the conversion stops, or it is here. Of what is left out as a
whole (a file, a column, an attribute) the entry is made when the source is opened; what is changed row by row
(rounded, filled, rotated) is noted with the numbers of its rows. So the count that a journal keeps beside a finished
shard is that of the rows in the shards so far, however far the source has been read, and a conversion that is
interrupted and resumed ends with the account of one that was not. Entries that come again when the source is opened
again are not counted twice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Change = Literal["left out", "read as", "rounded", "filled", "changed", "noticed"]
"""What became of it: it is not in the dataset; it is there as another type; its fractions were rounded as asked; a
missing value got the value that was given; it is there otherwise than it was; it is as it was, and somebody should know
(such as pictures with a rotation that was not applied)."""


_ROWS_PER_VALUE = 8
"""Rows that lie closer are counted one by one, a byte each; others are kept by their numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line: what became of `name` (a column, file, feature, attribute), how often, and why or what to do."""

    change: Change
    name: str
    count: int = 1
    unit: str = "value"
    detail: str = ""

    def __str__(self) -> str:
        plural = "" if self.count == 1 else "s"
        reason = f": {self.detail}" if self.detail else ""
        return f"{self.name}: {self.count:,} {self.unit}{plural} {self.change}{reason}"


class _Noted(NamedTuple):
    """How many values of each of some rows, by rising number; a byte a row for most, however many values."""

    key: Entry
    rows: Sequence[int] | npt.NDArray[np.int64]
    counts: npt.NDArray[np.unsignedinteger]


class Account:
    """Collects the entries of one conversion; `entries` is the whole so far, in order of their first appearance."""

    def __init__(self) -> None:
        # How often by the entry of one time.
        self._whole: dict[Entry, int] = {}
        self._settled: dict[Entry, int] = {}
        self._coming: list[_Noted] = []

    def add(self, change: Change, name: str, *, count: int = 1, unit: str = "value", detail: str = "") -> None:
        """Note what is known when the source is opened; the same entry again replaces its count."""
        self._whole[Entry(change=change, name=name, unit=unit, detail=detail)] = count

    def add_rows(
        self, change: Change, name: str, row_numbers: npt.ArrayLike, *, unit: str = "value", detail: str = ""
    ) -> None:
        """Note what happened in these rows of the source (numbered through from 0; one number per value)."""
        numbers = np.asarray(row_numbers, np.int64)
        if not numbers.size:
            return
        first, end = int(numbers.min()), int(numbers.max()) + 1
        rows: Sequence[int] | npt.NDArray[np.int64] = range(first, end)
        if end - first <= _ROWS_PER_VALUE * numbers.size:
            counts = np.bincount(numbers - first)
        else:
            rows, counts = np.unique(numbers, return_counts=True)
        small = counts.astype(np.min_scalar_type(counts.max()))
        self._coming.append(_Noted(Entry(change=change, name=name, unit=unit, detail=detail), rows, small))

    def add_all(self, other: Account) -> None:
        """Note what another one noted of rows, which are taken now."""
        self._coming += other._coming

    def settle(self, num_rows: int) -> tuple[Entry, ...]:
        """Count what happened in the first `num_rows` rows; returns all that was noted so, for a journal."""
        waiting = []
        for key, rows, counts in self._coming:
            done = bisect_left(rows, num_rows)
            if done:
                self._settled[key] = self._settled.get(key, 0) + int(counts[:done].sum())
            if done < len(rows):
                waiting.append(_Noted(key, rows[done:], counts[done:]))
        self._coming = waiting
        return _entries(self._settled)

    def restore(self, entries: Iterable[Entry]) -> None:
        """Go on from what `settle` returned to an interrupted writer."""
        self._settled = {replace(entry, count=1): entry.count for entry in entries}

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All so far."""
        counted = dict(self._settled)
        for key, _, counts in self._coming:
            counted[key] = counted.get(key, 0) + int(counts.sum())
        return (*_entries(self._whole), *_entries(counted))


def _entries(counts: Mapping[Entry, int]) -> tuple[Entry, ...]:
    return tuple(replace(entry, count=count) for entry, count in counts.items())
