"""Keyed bijections of [0, n), computed value by value in O(1) memory, and back.

An unbalanced Feistel network over the smallest power of two that holds all values, walked along its cycles until the
value lies in the range again (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Up to 4096 values the
network is replaced by sorting hashed keys, because halves of a few bits mix too little.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]

NUM_ROUNDS = 8
_LARGEST_TABLE = 4096
# Odd multipliers without long runs of equal bits: from the fractions of the golden ratio and of sqrt(3).
_FIRST_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SECOND_FACTOR = np.uint64(0xBB67AE8584CAA73B)
_WORD = 0xFFFFFFFF


def round_keys(words: Sequence[int]) -> Words:
    """The keys of a bijection, uint64 [NUM_ROUNDS], from words in [0, 2**32)."""
    return np.asarray(np.random.SeedSequence(words).generate_state(NUM_ROUNDS, np.uint64), np.uint64)


def two_words(number: int) -> tuple[int, int]:
    """A number in [0, 2**64) as (low, high) words of 32 bits.

    With fewer words, (seed 2**32, epoch 0) and (seed 0, epoch 1) would share their keys.
    """
    return number & _WORD, number >> 32


def permuted(values: Words, size: int, keys: Words) -> Integers:
    """The images of values in [0, size), int64 of the same length."""
    if size <= _LARGEST_TABLE:
        return _table(size, int(keys[0]))[0][values.astype(np.int64)]
    return _walk(values, size, keys, range(NUM_ROUNDS))


def permuted_back(values: Words, size: int, keys: Words) -> Integers:
    """The values whose images are given: the inverse of `permuted`."""
    if size <= _LARGEST_TABLE:
        return _table(size, int(keys[0]))[1][values.astype(np.int64)]
    return _walk(values, size, keys, range(NUM_ROUNDS - 1, -1, -1))


def hashed(values: Words, key: int) -> Words:
    """Each value as a pseudo-random word under `key`; distinct values keep distinct words."""
    tags = values + np.uint64(key)
    for shift in (31, 29):
        tags *= _FIRST_FACTOR
        tags ^= tags >> np.uint64(shift)
        tags *= _SECOND_FACTOR
        tags ^= tags >> np.uint64(32)
    return tags


@lru_cache(maxsize=16)
def _table(size: int, key: int) -> tuple[Integers, Integers]:
    """All images, and where each value is the image."""
    # Sorted hashes rather than Generator.permutation, whose stream numpy may change.
    table = np.argsort(hashed(np.arange(size, dtype=np.uint64), key), kind="stable").astype(np.int64)
    back = np.empty_like(table)
    back[table] = np.arange(size)
    for array in (table, back):
        array.flags.writeable = False
    return table, back


def _walk(values: Words, size: int, keys: Words, rounds: Iterable[int]) -> Integers:
    """Feistel with cycle walking: values in [0, size) to the bijection's values in the same range."""
    num_bits, rounds = (size - 1).bit_length(), tuple(rounds)
    result = _feistel(values, num_bits, keys, rounds)
    outside = np.flatnonzero(result >= np.uint64(size))
    while outside.size:
        again = _feistel(result[outside], num_bits, keys, rounds)
        result[outside] = again
        outside = outside[again >= np.uint64(size)]
    return result.view(np.int64)


def _feistel(values: Words, num_bits: int, keys: Words, rounds: Iterable[int]) -> Words:
    """A keyed bijection of [0, 2**num_bits); halves of unequal width are changed in turn, never swapped.

    So the rounds in reverse are the inverse.
    """
    low_bits = num_bits // 2
    widths = (num_bits - low_bits, low_bits)
    halves = (values >> np.uint64(low_bits), values & np.uint64((1 << low_bits) - 1))
    scratch, fold = np.empty_like(values), np.empty_like(values)
    for round_number in rounds:
        changed = round_number % 2
        np.add(halves[1 - changed], keys[round_number], out=scratch)
        np.multiply(scratch, _FIRST_FACTOR, out=scratch)
        np.right_shift(scratch, np.uint64(32), out=fold)
        np.bitwise_xor(scratch, fold, out=scratch)
        np.multiply(scratch, _SECOND_FACTOR, out=scratch)
        # The top bits of a product depend on all bits of its factors, the low ones do not.
        np.right_shift(scratch, np.uint64(64 - widths[changed]), out=scratch)
        np.bitwise_xor(halves[changed], scratch, out=halves[changed])
    return (halves[0] << np.uint64(low_bits)) | halves[1]
