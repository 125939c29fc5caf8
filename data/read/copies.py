"""Copying rows of one width from mapped shards, shard by shard where each has some.

Numpy's indexing costs some microseconds per call whatever it copies, so rows are grouped by shard as long as each has
enough of them; of rows from everywhere in many shards, each is copied by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..order.order import RowIds

# Rows pass through a temporary array, which should stay in the processor's cache.
_COPY_BYTES = 256 << 10
# With fewer rows than this per shard, indexing shard by shard costs more than row by row (measured).
_ROWS_PER_GROUP = 8

Places = slice | npt.NDArray[np.int64]
"""Which rows of a batch."""


def as_rows(array: npt.NDArray[Any]) -> npt.NDArray[np.void]:
    """An array [rows, ...] as one element of raw bytes per row."""
    flat = array.reshape(len(array), -1)
    return flat.view(f"V{flat.shape[1] * flat.itemsize}")[:, 0]


def only_shard(shards: RowIds) -> int | None:
    """The shard of all these rows; None if there are several, or no rows."""
    return int(shards[0]) if shards.size and shards[0] == shards[-1] and (shards == shards[0]).all() else None


def by_shard(shards: npt.NDArray[np.int64]) -> list[tuple[int, Places]] | None:
    """(shard, places of its rows), or None if one by one is quicker because the shards have too few rows each."""
    by_shard = np.argsort(shards, kind="stable")
    cuts = np.flatnonzero(np.diff(shards[by_shard])) + 1
    if (cuts.size + 1) * _ROWS_PER_GROUP > shards.size:
        return None
    return [(int(shards[places[0]]), places) for places in np.split(by_shard, cuts)]


def copy_rows(
    views: Mapping[int, npt.NDArray[np.void]],
    shards: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    groups: Sequence[tuple[int, Places]] | None,
    target: npt.NDArray[np.void],
) -> None:
    """Copy rows from the bytes of their shards (`views`, an element at every byte) at these offsets to `target`."""
    if groups is None:
        for place, (shard, offset) in enumerate(zip(shards.tolist(), offsets.tolist(), strict=True)):
            target[place] = views[shard][offset]
        return
    for shard, group in groups:
        if target.nbytes <= _COPY_BYTES:
            target[group] = views[shard][offsets[group]]
            continue
        for places in _parts(group, max(1, _COPY_BYTES // target.itemsize)):
            target[places] = views[shard][offsets[places]]


def _parts(group: Places, length: int) -> Iterator[Places]:
    if isinstance(group, slice):
        for low in range(group.start, group.stop, length):
            yield slice(low, min(low + length, group.stop))
    else:
        for low in range(0, group.size, length):
            yield group[low : low + length]
