"""Random numbers that belong to a row: the same on any number of workers, in any batch, after any recovery.

A generator that is handed on from row to row gives a row other numbers when anything before it changes. So there is
none: a row's numbers are hashes of (seed, epoch, row id, which of several random maps), made where they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ..order.bijection import Words, hashed, round_keys, two_words
from ..order.order import RowIds

RANDOM_VERSION = 1
"""Changes whenever any row's random numbers change."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MANTISSA_BITS = 53


def row_keys(seed: int, epoch: int, row_ids: RowIds, stream: int) -> Words:
    """Two words per row, uint64 [rows, 2], a function of (seed, epoch, row id) and of the stream of numbers."""
    keys = round_keys([RANDOM_VERSION, *two_words(seed), *two_words(epoch), stream])
    ids = row_ids.astype(np.uint64)
    return np.stack([hashed(ids, int(key)) for key in keys[:2]], axis=1)


def row_seeds(keys: Words) -> npt.NDArray[np.int32]:
    """Seeds int32 [rows, 2] as `tf.random.stateless_*` takes them, from the keys of the rows."""
    return np.ascontiguousarray(keys[:, 0]).view(np.int32).reshape(-1, 2)


def row_generator(key: Words) -> np.random.Generator:
    """The generator of one row, from its key [2]."""
    return np.random.Generator(np.random.Philox(key=key))


def row_uniform(seeds: npt.NDArray[np.int32], shape: Sequence[int] = (), *, draw: int = 0) -> npt.NDArray[Any]:
    """Uniform numbers in [0, 1), float64 `[rows, *shape]`, from the seeds int32 [rows, 2] that a `map` function gets.

    Each row's numbers depend on its seed, on `shape` and on `draw` (other numbers for each, below 2**16) only.

    Example:
        >>> def noisy(rows, seeds):
        ...     return rows["y"] + row_uniform(seeds)
        >>> view = dataset.map(noisy, ["y"], "y", random=True)
        >>> bool(0 <= view.row(0)["y"] < 1)
        True
    """
    words = np.ascontiguousarray(seeds, np.int32).view(np.uint64)
    counters = np.arange(1, prod(shape) + 1, dtype=np.uint64) + (np.uint64(draw) << np.uint64(48))
    bits = hashed(hashed(words, 0) + counters * _GOLDEN, 0) >> np.uint64(64 - _MANTISSA_BITS)
    return (bits * 2.0**-_MANTISSA_BITS).reshape(len(words), *shape)
