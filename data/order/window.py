"""Window shuffle: a pseudo-random order of a pass that reads only a part of the dataset at a time, in closed form.

The rows are cut into logical blocks of consecutive row ids, whatever the shard files are. The blocks are permuted;
neighbours in that order form windows of at most `window_rows` rows, and the rows of a window are permuted among
themselves. Only the last block can be short; where it stands is found by the inverse of the permutation, so that every
position is plain arithmetic and nothing is stored.

Why blocks: a full shuffle asks for rows of all shards in every batch, so all of them must be on this host. A window
asks for the shards that its blocks lie in, 64 blocks if nothing else is said. A block has as many rows as a record
batch; the rows of a window mix those of sixteen blocks or more, so that neighbours in the files are no neighbours in a
batch. What it costs: rows of blocks that are in different windows never meet in a batch of that epoch. The next epoch
has other windows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import PlanError
from .bijection import Integers, permuted, permuted_back, round_keys, two_words

Shuffle = str | Literal[False]
"""False (rows as stored), "full", "window", "window:ROWS" or "window:ROWS:BLOCK_ROWS"."""

DEFAULT_WINDOW_ROWS = 1 << 18
DEFAULT_BLOCK_ROWS = 4096
_PATTERN = re.compile(r"window(?::([1-9][0-9]{0,17})(?::([1-9][0-9]{0,17}))?)?")
_BLOCK_LEVEL, _ROW_LEVEL = 1, 2
# A window should mix rows of many blocks.
_MIN_BLOCKS_PER_WINDOW = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A window shuffle: rows of a window at most, rows of a block."""

    window_rows: int = DEFAULT_WINDOW_ROWS
    block_rows: int = DEFAULT_BLOCK_ROWS


def parse_shuffle(shuffle: object) -> Window | Literal["full", False]:
    """What a `Shuffle` means; raises PlanError for any other value.

    Without BLOCK_ROWS a block has 4096 rows, fewer in a window of less than 65,536 rows (a sixteenth of it).
    """
    if shuffle is False or shuffle == "full":
        return "full" if shuffle else False
    found = _PATTERN.fullmatch(shuffle) if isinstance(shuffle, str) else None
    if found is None:
        raise PlanError(
            f'shuffle is {shuffle!r}; it must be "full", "window", "window:ROWS", "window:ROWS:BLOCK_ROWS" or False.'
        )
    window_rows = int(found[1] or DEFAULT_WINDOW_ROWS)
    block_rows = int(found[2] or min(DEFAULT_BLOCK_ROWS, max(1, window_rows // _MIN_BLOCKS_PER_WINDOW)))
    if block_rows > window_rows:
        raise PlanError(
            f"shuffle is {shuffle!r}: a block of {block_rows} rows does not fit into a window of {window_rows} rows."
        )
    return Window(window_rows=window_rows, block_rows=block_rows)


class WindowOrder:
    """The order of one pass under a window shuffle; `key_words` tell passes apart."""

    def __init__(self, num_rows: int, window: Window, key_words: tuple[int, ...]) -> None:
        self._num_rows, self._block_rows, self._key_words = num_rows, window.block_rows, key_words
        self._num_blocks = -(-num_rows // window.block_rows)
        self._missing = self._num_blocks * window.block_rows - num_rows
        num_windows = -(-self._num_blocks // max(1, window.window_rows // window.block_rows))
        # Windows of equally many blocks, give or take one: a rest would be a window of one block, hardly shuffled.
        self._blocks_per_window, self._larger_windows = divmod(self._num_blocks, num_windows)
        self._block_keys = round_keys([*key_words, _BLOCK_LEVEL])
        last = np.array([self._num_blocks - 1], np.uint64)
        self._place_of_short = int(permuted_back(last, self._num_blocks, self._block_keys)[0])

    def rows(self, positions: npt.NDArray[np.int64]) -> Integers:
        """Row ids at positions of the pass [count]."""
        result = np.empty(positions.shape, np.int64)
        windows = self._window_of(self._place_of(positions))
        for window, places in _groups(windows):
            start, stop = self._window_rows(window)
            keys = _row_keys(self._key_words, window)
            within = (positions[places] - start).astype(np.uint64)
            result[places] = start + permuted(within, stop - start, keys)
        places = self._place_of(result)
        blocks = permuted(places.astype(np.uint64), self._num_blocks, self._block_keys)
        return blocks * self._block_rows + (result - self._start_of(places))

    def _start_of(self, place: Integers) -> Integers:
        """Position of the first row of the block that stands at a place of the order of blocks."""
        return place * self._block_rows - np.where(place > self._place_of_short, self._missing, 0)

    def _place_of(self, positions: Integers) -> Integers:
        """The place, in the order of blocks, of the block that holds a position before rows are permuted."""
        after_short = (self._place_of_short + 1) * self._block_rows - self._missing
        return np.where(positions >= after_short, positions + self._missing, positions) // self._block_rows

    def _window_of(self, place: Integers) -> Integers:
        # The first `larger` windows have one block more than the others.
        size, larger = self._blocks_per_window, self._larger_windows
        first = larger * (size + 1)
        return np.where(place < first, place // (size + 1), larger + (place - first) // size)

    def _window_rows(self, window: int) -> tuple[int, int]:
        """Positions [start, stop) of a window."""
        places = [
            number * self._blocks_per_window + min(number, self._larger_windows) for number in (window, window + 1)
        ]
        start, stop = self._start_of(np.array(places)).tolist()
        return start, min(stop, self._num_rows)


def _groups(windows: Integers) -> list[tuple[int, slice | Integers]]:
    """(window, places of its positions) for every window that occurs."""
    if not windows.size:
        return []
    if windows[0] == windows[-1] and (windows == windows[0]).all():
        return [(int(windows[0]), slice(0, windows.size))]
    by_window = np.argsort(windows, kind="stable")
    cuts = np.flatnonzero(np.diff(windows[by_window])) + 1
    return [(int(windows[places[0]]), places) for places in np.split(by_window, cuts)]


@lru_cache(maxsize=256)
def _row_keys(key_words: tuple[int, ...], window: int) -> npt.NDArray[np.uint64]:
    return round_keys([*key_words, _ROW_LEVEL, *two_words(window)])
