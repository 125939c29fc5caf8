"""Gathering rows of a remote dataset: its shards are fetched into the cache, kept in use, and read there."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CacheError, ShardError
from ..foreign.chunk_reader import ChunkReader
from ..format.shards import FileStamp, stamp_of
from ..order.order import RowIds
from ..read.reader import Out, Reader
from ..read.shard_reader import ShardReader
from ..read.upcoming import Order
from .remote_source import ShardSource


class CachedShardReader(ShardReader):
    """Arrow shards that can be let go of one by one."""

    def release(self, shards: Iterable[int]) -> None:
        """Unmap some shards; they are mapped again when rows of them are asked for."""
        for number in shards:
            self._is_open[number] = False
            self._data.pop(number, None)
            for views in self._views.values():
                views.pop(number, None)


class CachedChunkReader(ChunkReader):
    """Parquet shards, and those of other programs, that can be let go of one by one."""

    def release(self, shards: Iterable[int]) -> None:
        """Close some files; what was decoded is kept."""
        for number in shards:
            self._is_open[number] = False
            if number in self._files:
                self._files.pop(number).close()


class RemoteReader(Reader):
    """Rows of some columns of a remote dataset, read from the cached shards by the reader `below`.

    Shards stay in use, so that no process deletes them, until `close`; if the cache does not hold the whole dataset,
    until others must come and they are not known to be needed again. `stamps` are those that `below` compares.
    """

    def __init__(
        self,
        source: ShardSource,
        below: CachedShardReader | CachedChunkReader,
        stamps: dict[str, FileStamp | None],
        num_rows: int,
        *,
        owns_source: bool,
    ) -> None:
        super().__init__(source.name, num_rows, below.columns)
        self._source, self._below, self._stamps = source, below, stamps
        self._owns_source = owns_source
        self._is_held = np.zeros(len(source.shards), bool)
        self._lock = threading.Lock()
        source.cache.add_holder(self)

    def start_pass(self, *, seed: int, epoch: int) -> None:  # noqa: D102
        with self._lock:
            self._below.start_pass(seed=seed, epoch=epoch)

    def fetch_ahead(self, order: Order, position: int) -> None:
        """Say that the rows of `order` will be asked for, from `position` on: their shards are fetched ahead.

        Cheap enough to be called before every batch. Warns of a full shuffle whose shards are not all in the cache;
        raises CacheError if they do not fit.
        """
        self._source.expect(order, position)

    def gather_checked(self, ids: RowIds, out: Out | None) -> dict[str, Any]:  # noqa: D102
        with self._lock:
            self._hold(self._source.table.of_rows(ids))
            try:
                return self._below.gather(ids, out)
            except ShardError as error:
                raise ShardError(
                    f"{error} It is the local copy of a file of {self._source.name}: delete it to fetch it again.",
                    path=error.path,
                    column=error.column,
                ) from error

    def release_idle(self) -> bool:
        """Let go of all shards unless rows are being read now; whether there were any."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            held = np.flatnonzero(self._is_held).tolist()
            self._release(held)
            return bool(held)
        finally:
            self._lock.release()

    def close(self) -> None:  # noqa: D102
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._release(np.flatnonzero(self._is_held).tolist())
            self._below.close()
        if self._owns_source:
            self._source.close()

    def __del__(self) -> None:
        # A reader that was dropped without close must not keep its shards from being deleted for ever.
        if not getattr(self, "_is_closed", True):
            self.close()

    def _hold(self, shards: npt.NDArray[np.int64]) -> None:
        """Have these shards in the cache, and in use."""
        if self._is_held[shards].all():
            return
        source, needed = self._source, np.unique(shards).tolist()
        absent = [number for number in needed if not self._is_held[number]]
        for number in absent:
            source.cache.use(source.names[number])
        try:
            if source.fits:
                source.need(needed)
            else:
                self._need_room(needed)
        except BaseException:
            for number in absent:
                source.cache.release(source.names[number])
            raise
        for number in absent:
            name = source.names[number]
            self._stamps[name] = stamp_of(source.cache.folder / name)
        self._is_held[absent] = True

    def _need_room(self, needed: list[int]) -> None:
        """Have shards in a cache that does not hold all: let go of those that are passed, if need be of all others."""
        self._release_all_but(self._source.coming.union(needed))
        try:
            self._source.need(needed, is_patient=False)
        except CacheError:
            self._release_all_but(set(needed))
            self._source.need(needed)

    def _release_all_but(self, kept: AbstractSet[int]) -> None:
        self._release(number for number in np.flatnonzero(self._is_held).tolist() if number not in kept)

    def _release(self, shards: Iterable[int]) -> None:
        numbers = list(shards)
        if not numbers:
            return
        self._below.release(numbers)
        self._is_held[numbers] = False
        for number in numbers:
            self._source.cache.release(self._source.names[number])
