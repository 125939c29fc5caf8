"""Row order: which row stands at which position of a pass, in O(1) memory.

The order is a function of (ORDER_VERSION, seed, epoch, num_rows, shuffle) and of nothing else, so any worker can
compute any part of it. A full shuffle is a keyed bijection of [0, num_rows) (`bijection`), a window shuffle one of
blocks of rows and then of the rows of some blocks (`window`).

What was not done:

- A shuffled array of all row ids: 8 bytes a row, on every worker and anew in every epoch; a billion rows are 8 GB.
- A shuffle buffer, as `tf.data` has: what it gives depends on all that went through it, so a run that goes on at step
  70,000 has to read what came before, and workers that share a pass have to read all of it.
- Orders of shards first, and of rows within them: the order would depend on how the rows are cut into files.
- numpy's own permutations: their streams may change with numpy (NEP 19), and a run would go on with other rows.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..errors import PlanError
from .bijection import Words, permuted, round_keys, two_words
from .window import Shuffle, Window, WindowOrder, parse_shuffle

__all__ = ["MAX_ROWS", "ORDER_VERSION", "RowIds", "RowOrder", "Shuffle", "checked_integer"]

ORDER_VERSION = 1
"""Changes whenever any order changes; part of every key."""

RowIds = npt.NDArray[np.int64]

MAX_ROWS = 1 << 62
"""Row counts lie below this."""

_CHUNK_ROWS = 32768
_WHOLE_PASS_LEVEL = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOrder:
    """The order of the rows in one pass.

    `num_rows` >= 1; `seed` and `epoch` in [0, 2**64); `shuffle` "full" (a pseudo-random order of all rows), "window"
    or "window:ROWS" (a pseudo-random order that reads at most ROWS rows, 262,144 if not given, before it goes on to
    others) or False (rows as stored). Raises PlanError otherwise.
    """

    num_rows: int
    seed: int = 0
    epoch: int = 0
    shuffle: Shuffle = "full"

    def __post_init__(self) -> None:
        for name, low, high in (("num_rows", 1, MAX_ROWS), ("seed", 0, 1 << 64), ("epoch", 0, 1 << 64)):
            object.__setattr__(self, name, checked_integer(name, getattr(self, name), low, high))
        parse_shuffle(self.shuffle)

    def rows(self, start: int, stop: int) -> RowIds:
        """Row ids at the positions [start, stop), a new int64 [stop - start]; raises PlanError outside the pass."""
        if not 0 <= start <= stop <= self.num_rows:
            raise PlanError(f"Positions [{start}, {stop}) do not lie in a pass of {self.num_rows} rows.")
        if self.shuffle is False:
            return np.arange(start, stop, dtype=np.int64)
        first, last = start // _CHUNK_ROWS, max(start, stop - 1) // _CHUNK_ROWS
        base = first * _CHUNK_ROWS
        if first == last:
            return _chunk(self, first)[start - base : stop - base].copy()
        if last == first + 1:
            return np.concatenate(
                [_chunk(self, first)[start - base :], _chunk(self, last)[: stop - base - _CHUNK_ROWS]]
            )
        return _permuted(self, np.arange(start, stop, dtype=np.uint64))

    def at(self, positions: npt.ArrayLike) -> RowIds:
        """Row ids at any positions of the pass, int64, same shape as `positions`; raises PlanError outside the pass."""
        asked = np.asarray(positions)
        if asked.size == 0:
            return np.empty(asked.shape, np.int64)
        if asked.dtype.kind not in "iu" or int(asked.min()) < 0 or int(asked.max()) >= self.num_rows:
            raise PlanError(
                f"Positions must be integers in [0, {self.num_rows}); got {asked.dtype} {asked.min()}…{asked.max()}."
            )
        if self.shuffle is False:
            return asked.astype(np.int64)
        return _permuted(self, asked.astype(np.uint64).ravel()).reshape(asked.shape)


def checked_integer(name: str, value: object, low: int, high: int) -> int:
    """`value` as an int in [low, high); raises PlanError for anything else, bools included."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise PlanError(f"{name} is {value!r}; it must be an integer.")
    number = operator.index(value)
    if not low <= number < high:
        raise PlanError(f"{name} is {number}; it must be at least {low} and below {high}.")
    return number


@lru_cache(maxsize=8)
def _chunk(order: RowOrder, index: int) -> RowIds:
    # A step asks for few rows at a time and numpy's cost per call dominates there: compute some steps ahead.
    start = index * _CHUNK_ROWS
    stop = min(start + _CHUNK_ROWS, order.num_rows)
    ids = _permuted(order, np.arange(start, stop, dtype=np.uint64))
    ids.flags.writeable = False
    return ids


def _permuted(order: RowOrder, positions: Words) -> RowIds:
    shuffle = parse_shuffle(order.shuffle)
    if isinstance(shuffle, Window):
        return _window_order(order, shuffle).rows(positions.view(np.int64))
    return permuted(positions, order.num_rows, round_keys([*_pass_words(order), _WHOLE_PASS_LEVEL]))


@lru_cache(maxsize=16)
def _window_order(order: RowOrder, window: Window) -> WindowOrder:
    return WindowOrder(order.num_rows, window, _pass_words(order))


def _pass_words(order: RowOrder) -> tuple[int, ...]:
    return (ORDER_VERSION, *two_words(order.seed), *two_words(order.epoch))
