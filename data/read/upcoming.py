"""Which shards the next rows of a pass lie in, worked out a bounded distance ahead (pure).

The order of rows is known for a whole pass, so what will be needed need not be guessed: the order is followed some
thousand rows further with every batch, and the shards of these rows, in the order in which they come, are what is
fetched next (`Upcoming`). The same walk through a pretended cache tells before the first fetch whether a pass would
fetch the same shards again and again (`refetches`), whatever views it is of: a view only says which rows of its base
its own rows are (`Order`).

Not done: rules per kind of shuffle and view, which every new view would have to be taught; working out the shards of a
whole pass at once, which takes memory for every row.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..order.order import RowIds

# A shard counts as upcoming until the stretch that has its last row is passed.
_STRETCH_ROWS = 1024
_MAX_ROWS = 1 << 22
_STRETCHES_PER_CALL = 64

# How the fetches of a pass are judged: so many positions of it, so few together.
_JUDGED_ROWS = 1 << 18
_JUDGED_TOGETHER = 64
_TIMES_AGAIN = 2
_ROWS_PER_FETCH = 1024


class Order(Protocol):
    """Rows of a dataset by the positions of a pass: a `RowOrder`, or what a view makes of one."""

    @property
    def num_rows(self) -> int:
        """Positions of the pass."""

    def rows(self, start: int, stop: int) -> RowIds:
        """Ids of the rows that the positions [start, stop) need, any number of them."""


class ShardTable(NamedTuple):
    """The shards of a dataset in row order, all with rows: the first row id of each, and its bytes."""

    first_rows: npt.NDArray[np.int64]
    num_bytes: Sequence[int]

    def of_positions(self, order: Order, start: int, stop: int) -> list[int]:
        """The shards that these positions of a pass need, in the order in which they need them first."""
        shards = np.searchsorted(self.first_rows, order.rows(start, stop), side="right") - 1
        found, first = np.unique(shards, return_index=True)
        return [int(shard) for shard in found[np.argsort(first)]]


class Upcoming:
    """The shards that will be needed from a position of a pass on, in the order in which they were first needed.

    The order is followed until further shards amount to more than `ahead_bytes`, some thousand rows more with every
    call.
    """

    def __init__(self, order: Order, table: ShardTable, ahead_bytes: int) -> None:
        self._order, self._table, self._ahead_bytes = order, table, ahead_bytes
        self._stretches: deque[tuple[int, list[int]]] = deque()
        self._first = self._end = 0
        self._counts: dict[int, int] = {}
        self._num_bytes, self._is_changed = 0, False
        self._shards: tuple[int, ...] = ()

    def advance(self, position: int) -> tuple[int, ...]:
        """What comes from `position` on; the same object as before if nothing has changed."""
        if not self._first <= position <= self._end:
            self._stretches.clear()
            self._counts.clear()
            self._num_bytes, self._end = 0, position
            self._shards = ()
        self._first, self._is_changed = position, False
        while self._stretches and self._stretches[0][0] <= position:
            self._drop(self._stretches.popleft()[1])
        for _ in range(_STRETCHES_PER_CALL):
            if not self._may_extend(position):
                break
            self._extend()
        if self._is_changed:
            self._shards = tuple(self._counts)
        return self._shards

    def _may_extend(self, position: int) -> bool:
        return (
            self._end < self._order.num_rows
            and self._num_bytes <= self._ahead_bytes
            and self._end - position < _MAX_ROWS
        )

    def _extend(self) -> None:
        stop = min(self._end + _STRETCH_ROWS, self._order.num_rows)
        shards = self._table.of_positions(self._order, self._end, stop)
        for shard in shards:
            if shard not in self._counts:
                self._num_bytes += self._table.num_bytes[shard]
                self._is_changed = True
            self._counts[shard] = self._counts.get(shard, 0) + 1
        self._stretches.append((stop, shards))
        self._end = stop

    def _drop(self, shards: Sequence[int]) -> None:
        for shard in shards:
            self._counts[shard] -= 1
            if not self._counts[shard]:
                del self._counts[shard]
                self._is_changed = True
                self._num_bytes -= self._table.num_bytes[shard]


def refetches(order: Order, table: ShardTable, max_bytes: int) -> bool:
    """Whether a pass would fetch shards again and again through a cache of `max_bytes`, whatever views it is of.

    The first rows are followed through a cache that drops what was used longest ago: once each shard was fetched two
    times more than needed on average, and one for less than 1,024 rows, that is how it will go on. Rows from everywhere
    show within some hundred rows; rows that follow each other, or blocks of them, stay below.
    """
    held: OrderedDict[int, None] = OrderedDict()
    seen: set[int] = set()
    num_bytes = again = 0
    for start in range(0, min(order.num_rows, _JUDGED_ROWS), _JUDGED_TOGETHER):
        stop = min(start + _JUDGED_TOGETHER, order.num_rows)
        for shard in table.of_positions(order, start, stop):
            if shard in held:
                held.move_to_end(shard)
                continue
            again += shard in seen
            seen.add(shard)
            held[shard] = None
            num_bytes += table.num_bytes[shard]
            while num_bytes > max_bytes and held:
                num_bytes -= table.num_bytes[held.popitem(last=False)[0]]
        if again > _TIMES_AGAIN * len(seen) and again * _ROWS_PER_FETCH > stop:
            return True
    return False
