"""Reading rows of files that are fetched into the cache of this host, as they are asked for and ahead.

A pass tells its order (`prefetch`), so which files its next rows lie in is arithmetic (`read.upcoming`); they are
fetched by some threads, in that order, up to half of the cache ahead. Whoever asks for rows whose file is not here yet
fetches it in his own thread, or waits for the one that does. What is fetched ahead fails in silence: the error comes
where its rows come.

With a cache that holds less than the dataset three things are added. Files that were passed are unmapped, for what is
mapped takes room on the disk after it was deleted. What makes room names all files that are still to come, so that the
next one is not deleted for one that is needed later. And an order that would fetch the same files over and over (a full
shuffle, a window over too many files) is refused with the numbers: it would fetch a file for every few rows.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import numpy as np

from ..errors import CacheError, DatasetError, ShardError
from ..format.chunks import Skipped
from ..format.columns import Column, named_columns
from ..format.manifest import Manifest, Shard
from ..order.order import RowIds, RowOrder
from ..read.ahead import Ahead
from ..read.shard_reader import KeptMap, ShardReader
from ..read.upcoming import Order, ShardTable, Upcoming, refetches
from .cache import CacheFile, CacheSettings, Fetcher, ShardCache

_AHEAD_BYTES = 4 << 30
_MOST_FETCHES = 3


class CachedFiles(Fetcher, Protocol):
    """What a dataset's rows are read from on this host: files of the cache, and what fetches them."""

    @property
    def name(self) -> str:
        """The dataset, in messages."""

    @property
    def settings(self) -> CacheSettings:
        """Where they are kept."""

    def files(self, skipped: Skipped) -> tuple[CacheFile, ...]:
        """The files in row order."""

    def look_again(self, numbers: Iterable[int]) -> None:
        """Look whether the dataset's own files with these numbers are still the same; raises ShardError."""


class CachedReader(ShardReader):
    """Rows of some columns, from files that are fetched into the cache before they are mapped.

    What is told by `prefetch` is fetched ahead, by as many threads as the settings say; what is asked for is fetched by
    the caller. If the cache does not hold the whole dataset, files that are passed are unmapped, so that
    their bytes are free when they are deleted.
    """

    def __init__(
        self, source: CachedFiles, columns: Sequence[Column], names: Sequence[str] | None, skipped: Skipped
    ) -> None:
        self._source, self._files = source, source.files(skipped)
        self._cache = ShardCache(source.settings.folder(), source.settings.cache_bytes)
        named_columns(source.name, {column.name: column for column in columns}, names)
        super().__init__(self._cache.folder, _local_manifest(columns, self._files), names, stamps={})
        self._name = source.name
        self._sizes = [file.num_bytes for file in self._files]
        first_rows = np.cumsum([0, *(sum(file.rows) for file in self._files)])[:-1]
        self._table = ShardTable(first_rows, self._sizes)
        self._order: Order | None = None
        self._upcoming: Upcoming | None = None
        self._coming: tuple[int, ...] = ()
        self._stop = threading.Event()
        self._ahead = Ahead(self._fetch_ahead, name="heliostat-fetch", num_threads=source.settings.num_threads)

    def start_pass(self, *, seed: int, epoch: int) -> None:  # noqa: D102
        super().start_pass(seed=seed, epoch=epoch)
        self._source.look_again({self._files[number].shard for number in np.flatnonzero(self._is_open).tolist()})

    def fetch_ahead(self, order: Order, position: int) -> None:
        """Fetch the files that the rows from `position` on lie in.

        Warns of a full shuffle whose files are not all here; raises CacheError for an order of rows that would fetch
        the same files again and again, because the cache cannot hold them.
        """
        if self._upcoming is None or (order is not self._order and order != self._order):
            self._follow(order)
        coming = () if self._upcoming is None else self._upcoming.advance(position)
        if coming is not self._coming:
            self._coming = coming
            self._ahead.prefetch(coming)

    def close(self) -> None:  # noqa: D102
        self._stop.set()
        self._ahead.close()
        super().close()

    def _follow(self, order: Order) -> None:
        capacity = self._capacity()
        num_bytes = sum(self._sizes)
        is_tight = max(self._sizes) <= capacity < num_bytes
        if is_tight and refetches(order, self._table, capacity):
            limit = "is limited to" if self._cache.max_bytes is not None else "has on its disk room for"
            is_window = isinstance(order, RowOrder) and order.shuffle != "full"
            what = "This shuffle window" if is_window else "A full shuffle"
            raise CacheError(
                f"{what} of {self._name} needs all its shards at once, {num_bytes:,} bytes; the shard cache "
                f"{self._cache.folder} {limit} {capacity:,}. Give a larger cache_bytes, another cache_dir, or "
                + ("a smaller window of larger blocks." if is_window else 'shuffle="window".'),
                path=self._name,
            )
        if isinstance(order, RowOrder) and order.shuffle == "full":
            self._warn_of_absent(num_bytes)
        ahead = _AHEAD_BYTES if self._cache.max_bytes is None else min(_AHEAD_BYTES, self._cache.max_bytes // 2)
        self._order, self._upcoming = order, Upcoming(order, self._table, ahead)

    def _warn_of_absent(self, num_bytes: int) -> None:
        fetched = (file for file in self._files if file.xxh3_128 is not None)  # and not made of what is on this host
        absent = sum(file.num_bytes for file in fetched if self._cache.size(file) is None)
        if absent:
            warnings.warn(
                f"A full shuffle of {self._name} needs all its shards at once: {absent:,} of {num_bytes:,} bytes are "
                f'fetched into {self._cache.folder} before most batches can be read. shuffle="window" needs fewer.',
                stacklevel=5,
            )

    def _capacity(self) -> int:
        """Bytes that the cache can hold of these files."""
        return self._cache.capacity(self._files, sum(self._sizes))

    def _fetch_ahead(self, number: int) -> None:
        if self._stop.is_set():
            return
        with suppress(DatasetError):  # it comes again when the file is needed
            # What is fetched ahead displaces only what comes later, and waits for nothing.
            coming = self._names(self._coming)
            self._cache.fetch(self._files[number], self._source, coming=coming, wait_s=0.0, stop=self._stop)

    def _map(self, shards: RowIds) -> None:
        absent = np.unique(shards[~self._is_open[shards]]).tolist()
        if absent:
            self._fetch_and_map(absent, np.unique(shards).tolist())

    def _fetch_and_map(self, absent: Sequence[int], needed: Sequence[int]) -> None:
        self._refuse_too_many(needed)
        if sum(self._sizes) > self._capacity():
            self._release_all_but({*self._coming, *needed})
        later = [number for number in self._coming if number not in needed]
        for number in absent:
            # What is needed with it, or is there and comes before others, stays.
            self._fetch_one(number, self._names([*(one for one in needed if one != number), number, *later]))

    def _fetch_one(self, number: int, coming: Sequence[str]) -> None:
        for attempt in range(_MOST_FETCHES):
            self._cache.fetch(self._files[number], self._source, coming=coming, stop=self._stop)
            try:
                super()._map(np.array([number]))
                return
            except ShardError as error:
                # Between fetching and mapping another thread or process may have made room.
                if self._cache.size(self._files[number]) is None and attempt + 1 < _MOST_FETCHES:
                    continue
                raise ShardError(
                    f"{error} It is the local copy of a file of {self._name}: delete it to fetch it again.",
                    path=error.path,
                    column=error.column,
                ) from error

    def _mapped(self, number: int) -> KeptMap:
        size = self._cache.size(self._files[number])
        if size is not None and size != self._sizes[number]:
            self._sizes[number] = size  # what is made here has no size before
            shards = list(self._manifest.shards)
            shards[number] = replace(shards[number], num_bytes=size)
            self._manifest = replace(self._manifest, shards=tuple(shards))
        return super()._mapped(number)

    def _refuse_too_many(self, needed: Sequence[int]) -> None:
        limit, num_bytes = self._cache.max_bytes, sum(self._sizes[number] for number in needed)
        if limit is not None and num_bytes > limit:
            raise CacheError(
                f"{len(needed)} shards of {self._name} are needed at once, {num_bytes:,} bytes; the shard cache "
                f"{self._cache.folder} is limited to {limit:,}. Give a larger cache_bytes, a smaller shuffle window or "
                "smaller batches.",
                path=self._name,
            )

    def _release_all_but(self, kept: AbstractSet[int]) -> None:
        """Unmap files; they are mapped again when rows of them are asked for."""
        for number in np.flatnonzero(self._is_open).tolist():
            if number not in kept:
                self._is_open[number] = False
                self._data.pop(number, None)
                for views in self._views.values():
                    views.pop(number, None)

    def _names(self, numbers: Iterable[int]) -> list[str]:
        return [self._files[number].name for number in numbers]


def _local_manifest(columns: Sequence[Column], files: Sequence[CacheFile]) -> Manifest:
    """The files of the cache as a dataset."""
    shards = (
        Shard(file=f.name, num_rows=sum(f.rows), num_bytes=f.num_bytes, xxh3_128=f.xxh3_128 or "", chunk_rows=f.rows)
        for f in files
    )
    return Manifest(columns=tuple(columns), shards=tuple(shards), rows_per_batch=1, statistics={})
