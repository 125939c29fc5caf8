"""Row order: which row stands at which position of a pass, in O(1) memory.

The order is a function of (ORDER_VERSION, seed, epoch, num_rows, shuffle) and of nothing else, so any worker can
compute any part of it. A full shuffle is a keyed bijection of [0, num_rows): an unbalanced Feistel network over the
smallest power of two that holds all rows, walked along its cycles until the value is a row again (Black and Rogaway,
"Ciphers with arbitrary finite domains", 2002). Up to 4096 rows the network is replaced by sorting hashed keys, because
halves of a few bits mix too little.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from heliostat.data.errors import PlanError

ORDER_VERSION = 1
"""Changes whenever any order changes; part of every key."""

Shuffle = Literal["full", False]
RowIds = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]

MAX_ROWS = 1 << 62
"""Row counts lie below this."""

_ROUNDS = 8
_LARGEST_TABLE_ROWS = 4096
_CHUNK_ROWS = 8192
_WHOLE_PASS_LEVEL = 0
# Odd multipliers without long runs of equal bits: from the fractions of the golden ratio and of sqrt(3).
_FIRST_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SECOND_FACTOR = np.uint64(0xBB67AE8584CAA73B)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOrder:
    """The order of the rows in one pass.

    `num_rows` >= 1; `seed` and `epoch` in [0, 2**64); `shuffle` "full" (a pseudo-random order of all rows) or False
    (rows as stored). Raises PlanError otherwise.
    """

    num_rows: int
    seed: int = 0
    epoch: int = 0
    shuffle: Shuffle = "full"

    def __post_init__(self) -> None:
        for name, low, high in (("num_rows", 1, MAX_ROWS), ("seed", 0, 1 << 64), ("epoch", 0, 1 << 64)):
            object.__setattr__(self, name, checked_integer(name, getattr(self, name), low, high))
        if self.shuffle is not False and self.shuffle != "full":
            raise PlanError(f'shuffle is {self.shuffle!r}; it must be "full" or False.')

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


@lru_cache(maxsize=16)
def _chunk(order: RowOrder, index: int) -> RowIds:
    # A step asks for few rows at a time and numpy's cost per call dominates there: compute some steps ahead.
    start = index * _CHUNK_ROWS
    stop = min(start + _CHUNK_ROWS, order.num_rows)
    ids = _permuted(order, np.arange(start, stop, dtype=np.uint64))
    ids.flags.writeable = False
    return ids


def _permuted(order: RowOrder, positions: _Words) -> RowIds:
    keys = _keys(order)
    if order.num_rows <= _LARGEST_TABLE_ROWS:
        return _table(order.num_rows, int(keys[0]))[positions.astype(np.int64)]
    return _walk(positions, order.num_rows, keys)


def _keys(order: RowOrder) -> _Words:
    # Two words for each 64-bit number: with fewer, (seed 2**32, epoch 0) and (seed 0, epoch 1) would share their keys.
    mask = 0xFFFFFFFF
    words = [
        ORDER_VERSION,
        order.seed & mask,
        order.seed >> 32,
        order.epoch & mask,
        order.epoch >> 32,
        _WHOLE_PASS_LEVEL,
    ]
    return np.asarray(np.random.SeedSequence(words).generate_state(_ROUNDS, np.uint64), np.uint64)


@lru_cache(maxsize=16)
def _table(num_rows: int, key: int) -> RowIds:
    # Sorted hashes rather than Generator.permutation, whose stream numpy may change.
    tags = np.arange(num_rows, dtype=np.uint64)
    tags += np.uint64(key)
    for shift in (31, 29):
        tags *= _FIRST_FACTOR
        tags ^= tags >> np.uint64(shift)
        tags *= _SECOND_FACTOR
        tags ^= tags >> np.uint64(32)
    table = np.argsort(tags, kind="stable").astype(np.int64)
    table.flags.writeable = False
    return table


def _walk(values: _Words, num_rows: int, keys: _Words) -> RowIds:
    """Feistel with cycle walking: values in [0, num_rows) to the bijection's values in the same range."""
    num_bits = (num_rows - 1).bit_length()
    result = _feistel(values, num_bits, keys)
    outside = np.flatnonzero(result >= np.uint64(num_rows))
    while outside.size:
        again = _feistel(result[outside], num_bits, keys)
        result[outside] = again
        outside = outside[again >= np.uint64(num_rows)]
    return result.view(np.int64)


def _feistel(values: _Words, num_bits: int, keys: _Words) -> _Words:
    """A keyed bijection of [0, 2**num_bits); halves of unequal width are changed in turn, never swapped."""
    low_bits = num_bits // 2
    widths = (num_bits - low_bits, low_bits)
    halves = (values >> np.uint64(low_bits), values & np.uint64((1 << low_bits) - 1))
    scratch, fold = np.empty_like(values), np.empty_like(values)
    for round_number, key in enumerate(keys):
        changed = round_number % 2
        np.add(halves[1 - changed], key, out=scratch)
        np.multiply(scratch, _FIRST_FACTOR, out=scratch)
        np.right_shift(scratch, np.uint64(32), out=fold)
        np.bitwise_xor(scratch, fold, out=scratch)
        np.multiply(scratch, _SECOND_FACTOR, out=scratch)
        # The top bits of a product depend on all bits of its factors, the low ones do not.
        np.right_shift(scratch, np.uint64(64 - widths[changed]), out=scratch)
        np.bitwise_xor(halves[changed], scratch, out=halves[changed])
    return (halves[0] << np.uint64(low_bits)) | halves[1]
