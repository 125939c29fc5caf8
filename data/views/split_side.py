"""Which side of a split a row is on, and which row is the k-th of a side: in closed form, in O(1) memory.

The rows are cut into groups of 64 neighbours. How many rows of a group the first side gets is what rounding of its
share of all rows up to the group's end leaves for it, so that the sides have exact sizes and every stretch of the
dataset is divided in proportion; which ones is decided by hashes of the row ids. So the rows of a side stay in stored
order, and the k-th row of a side is found by arithmetic and one sort of 64 hashes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..order.bijection import Integers, hashed, round_keys, two_words
from ..order.order import RowIds

SPLIT_VERSION = 1
"""Changes whenever any split changes."""

_GROUP_ROWS = 64
# Products of row counts inside of a section stay below 2**62.
_SECTION_ROWS = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSide:
    """One side of a split of `num_rows` rows: the `num_chosen` rows of the first side, or the others."""

    num_rows: int
    num_chosen: int
    seed: int
    first: bool

    def __len__(self) -> int:
        return self.num_chosen if self.first else self.num_rows - self.num_chosen

    @property
    def content(self) -> list[object]:
        """All that decides which rows there are."""
        return ["split", SPLIT_VERSION, self.num_rows, self.num_chosen, self.seed, self.first]

    def at(self, ids: RowIds) -> RowIds:
        """The row of the base for every row of this side."""
        section_starts = np.array([self._rows_before(start) for start in range(0, self.num_rows, _SECTION_ROWS)])
        sections = np.searchsorted(section_starts, ids, side="right") - 1
        result = np.empty_like(ids)
        for section in np.unique(sections).tolist():
            places = sections == section
            result[places] = self._at_in_section(section, ids[places] - section_starts[section])
        return result

    def _rows_before(self, row: int) -> int:
        """Rows of this side among the rows before `row`, where `row` begins a section or ends the dataset."""
        chosen = row * self.num_chosen // self.num_rows
        return chosen if self.first else row - chosen

    def _at_in_section(self, section: int, ids: Integers) -> RowIds:
        """The rows of the base for rows of this side, both counted from the start of the section."""
        start = section * _SECTION_ROWS
        stop = min(start + _SECTION_ROWS, self.num_rows)
        num_chosen = stop * self.num_chosen // self.num_rows - start * self.num_chosen // self.num_rows
        share = _Share(stop - start, num_chosen, self.first)
        groups = share.group_of(ids)
        before = share.rows_before(groups)
        firsts = start + groups * _GROUP_ROWS
        members = _members(firsts, self.num_rows, share.rows_before(groups + 1) - before, self._key, lowest=self.first)
        return firsts + _nth_true(members, ids - before)

    @property
    def _key(self) -> int:
        return int(round_keys([SPLIT_VERSION, *two_words(self.seed)])[0])


class _Share(NamedTuple):
    """How many rows of each group of a section one side has."""

    num_rows: int
    num_chosen: int
    first: bool

    def rows_before(self, groups: Integers) -> Integers:
        """Rows of the side in the groups before these."""
        ends = np.minimum(groups * _GROUP_ROWS, self.num_rows)
        chosen = ends * self.num_chosen // self.num_rows
        return chosen if self.first else ends - chosen

    def group_of(self, ids: Integers) -> Integers:
        """The group that holds each row of the side: the last one with at most as many rows before it."""
        if self.first:
            # floor(end * chosen / rows) <= id exactly if end * chosen < (id + 1) * rows.
            last_end = ((ids + 1) * self.num_rows - 1) // self.num_chosen
        else:
            # end - floor(end * chosen / rows) <= id exactly if end * (rows - chosen) <= id * rows.
            last_end = ids * self.num_rows // (self.num_rows - self.num_chosen)
        return last_end // _GROUP_ROWS


def _members(starts: Integers, num_rows: int, counts: Integers, key: int, *, lowest: bool) -> np.ndarray:
    """bool [groups, 64]: the rows of each group with the `counts` lowest (or highest) hashes."""
    rows = starts[:, None] + np.arange(_GROUP_ROWS)
    tags = hashed(rows.astype(np.uint64), key)
    if not lowest:
        tags = ~tags
    tags[rows >= num_rows] = np.uint64(0xFFFFFFFFFFFFFFFF)
    by_tag = np.sort(tags, axis=1)
    limit = np.take_along_axis(by_tag, np.maximum(counts - 1, 0)[:, None], axis=1)
    return (tags <= limit) & (counts > 0)[:, None]


def _nth_true(members: np.ndarray, wanted: Integers) -> Integers:
    """For each row of `members` the place of its true value number `wanted`, counted from 0."""
    return np.argmax(np.cumsum(members, axis=1, dtype=np.int8) > wanted[:, None].astype(np.int8), axis=1)
