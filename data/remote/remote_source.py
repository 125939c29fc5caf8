"""The shards of one remote dataset as its readers in one process get at them: through the cache, ahead if they can."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CacheError, ManifestError, RemoteError, ShardError
from ..foreign.footers import EDGE_PREFIX
from ..format.chunks import ChunkTable, Skipped
from ..format.manifest import Manifest, Shard
from ..order.order import RowOrder
from ..read.upcoming import Order, ShardTable, Upcoming, refetches
from .fetch_ahead import ShardPrefetcher
from .filesystem import RemoteFolder
from .retry import RetryPolicy
from .shard_cache import FOLDER_NAME, WantedFile, shard_cache

_AHEAD_BYTES = 4 << 30
_HASH = re.compile(rf"({EDGE_PREFIX})?[0-9a-f]{{32}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSettings:
    """How a remote dataset is read: where its shards are kept, up to how many bytes (None: what the disk holds), with
    how many threads they are fetched, and how long is waited for a silent server and for room in the cache."""

    cache_dir: str | None = None
    cache_bytes: int | None = None
    num_threads: int = 4
    timeout_s: float = 20.0
    room_wait_s: float = 30.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        if self.cache_bytes is not None and self.cache_bytes < 1:
            raise ValueError(f"cache_bytes is {self.cache_bytes}; it must be at least 1, or None for no limit.")

    def cache_folder(self) -> Path:
        """The cache's folder on this host; by default ~/.cache/heliostat, one per user."""
        return Path.home() / ".cache" / "heliostat" if self.cache_dir is None else Path(self.cache_dir)

    def shard_folder(self) -> Path:
        """Where the fetched shards lie."""
        return self.cache_folder() / FOLDER_NAME


def local_name(shard: Shard) -> str:
    """What a shard is called in the cache: the hash of its bytes (without a manifest: of its size and ends), with the
    suffix that tells its format."""
    suffix = "".join(re.findall(r"[a-z0-9]", shard.file.rpartition(".")[2].lower()))[:12]
    return f"{shard.xxh3_128.removeprefix(EDGE_PREFIX)}.{suffix or 'shard'}"


def local_manifest(manifest: Manifest, name: str) -> Manifest:
    """The manifest of the fetched shards; raises ManifestError for a dataset whose files have no hash."""
    for shard in manifest.shards:
        if not _HASH.fullmatch(shard.xxh3_128):
            raise ManifestError(
                f"The manifest of {name} has the hash {shard.xxh3_128!r} for {shard.file}, which is no xxh3_128; "
                "remote shards are found by it. Write the dataset again.",
                path=name,
            )
    return replace(manifest, shards=tuple(replace(shard, file=local_name(shard)) for shard in manifest.shards))


class ShardSource:
    """Shared by the readers of one pass, in any threads. `close` ends its threads."""

    def __init__(self, folder: RemoteFolder, manifest: Manifest, skipped: Skipped, settings: RemoteSettings) -> None:
        self.name, self.cache = folder.name, shard_cache(settings.cache_folder(), settings.cache_bytes)
        self.shards = manifest.shards
        self.names = tuple(local_name(shard) for shard in manifest.shards)
        chunks = ChunkTable.of(manifest, skipped)
        shards, first = np.unique(chunks.shards, return_index=True)
        self.table = ShardTable(chunks.first_rows[first], shards)
        sizes = {self.names[number]: self.shards[number].num_bytes for number in shards.tolist()}
        self.num_bytes = sum(sizes.values())
        self._folder, self._settings = folder, settings
        self._order: Order | None = None
        self._lookahead: Upcoming | None = None
        self._coming: tuple[int, ...] = ()
        self._coming_names: tuple[str, ...] = ()
        self._mutex, self._stop = threading.Lock(), threading.Event()
        self._prefetcher = ShardPrefetcher(self._fetch, num_threads=settings.num_threads)

    @property
    def fits(self) -> bool:
        """Whether the cache holds the whole dataset."""
        return self.cache.max_bytes is None or self.num_bytes <= self.cache.max_bytes

    @property
    def coming(self) -> frozenset[int]:
        """The shards that are known to come."""
        return frozenset(self._coming)

    def expect(self, order: Order, position: int) -> None:
        """Say that the rows of `order` will be asked for, from `position` on; shards are then fetched ahead.

        Warns of a full shuffle whose shards are not all there; raises CacheError if they do not fit the cache.
        """
        with self._mutex:
            if order is not self._order and order != self._order:
                self._follow(order)
            coming = self._coming if self._lookahead is None else self._lookahead.advance(position)
            if coming is not self._coming:
                self._set_coming(coming)

    def need(self, shards: Sequence[int], *, is_patient: bool = True) -> None:
        """Fetch shards, which the caller has in use, and wait until they are there, also for room if `is_patient`.

        Raises CacheError, RemoteError, ShardError.
        """
        limit, num_bytes = self.cache.max_bytes, sum(self.shards[number].num_bytes for number in shards)
        if limit is not None and num_bytes > limit:
            raise CacheError(
                f"{len(shards)} shards of {self.name} are needed at once, {num_bytes:,} bytes; the shard cache "
                f"{self.cache.folder} is limited to {limit:,}. Give a larger cache_bytes, a smaller shuffle window or "
                "smaller batches.",
                path=self.name,
            )
        absent = [number for number in shards if not self.has(number)]
        if absent:
            self._prefetcher.need(absent, self._settings.room_wait_s if is_patient else 0.0)

    def has(self, shard: int) -> bool:
        """Whether a shard is in the cache."""
        return self.cache.has(self.names[shard], self.shards[shard].num_bytes)

    def close(self) -> None:
        """Stop fetching."""
        self._stop.set()
        self._prefetcher.close()

    def _follow(self, order: Order) -> None:
        self._order, self._lookahead = order, None
        shard_bytes = [shard.num_bytes for shard in self.shards]
        limit = self.cache.max_bytes
        if isinstance(order, RowOrder) and order.shuffle == "full":
            self._announce_all()
            self._set_coming(tuple(self.table.of_all().tolist()))
            return
        if limit is not None and not self.fits and refetches(order, self.table, shard_bytes, limit):
            self._refuse()
        ahead = _AHEAD_BYTES if limit is None else min(_AHEAD_BYTES, limit // 2)
        self._lookahead = Upcoming(order, self.table, shard_bytes, ahead)

    def _refuse(self) -> None:
        self._order = None
        raise CacheError(
            f"A full shuffle of {self.name} needs all its shards at once, {self.num_bytes:,} bytes; the shard "
            f"cache {self.cache.folder} is limited to {self.cache.max_bytes:,}. Give a larger cache_bytes, or "
            'shuffle="window", for a mix mix(..., shuffle="window") as well; a window that is still too large, as '
            '"window:ROWS:ROWS_OF_A_SHARD".',
            path=self.name,
        )

    def _announce_all(self) -> None:
        """Say what a full shuffle means for shards that are not here yet."""
        numbers = self.table.of_all().tolist()
        if not self.fits:
            self._refuse()
        absent = sum(self.shards[number].num_bytes for number in numbers if not self.has(number))
        if absent:
            warnings.warn(
                f"A full shuffle of {self.name} needs all its shards at once: {absent:,} of {self.num_bytes:,} bytes "
                f'are fetched into {self.cache.folder} before most batches can be read. shuffle="window" needs fewer.',
                stacklevel=5,
            )

    def _set_coming(self, coming: tuple[int, ...]) -> None:
        self._coming, self._coming_names = coming, tuple(self.names[number] for number in coming)
        self._prefetcher.want(coming)

    def _fetch(self, shard: int, patience_s: float | None) -> None:
        name, coming = self.names[shard], self._coming_names
        if patience_s is not None:
            # What is needed now may displace whatever is not; what is fetched ahead, only what comes later.
            coming = tuple(each for each in coming if each != name)
        self.cache.use(name)
        try:
            self.cache.fetch(self._wanted(shard), coming=coming, wait_s=patience_s or 0.0)
        finally:
            self.cache.release(name)

    def _wanted(self, number: int) -> WantedFile:
        shard = self.shards[number]

        def download(write: Callable[[Any], object]) -> None:
            try:
                self._folder.download(shard.file, checked(write), most_bytes=shard.num_bytes, stop=self._stop)
            except FileNotFoundError as error:
                raise ShardError(
                    f"Shard {shard.file} of dataset {self.name} cannot be found. It was deleted or not uploaded along "
                    "with the manifest: upload the dataset again.",
                    path=self._folder.name_of(shard.file),
                ) from error

        def checked(write: Callable[[Any], object]) -> Callable[[Any], object]:
            def write_unless_stopped(block: Any) -> None:
                if self._stop.is_set():
                    raise RemoteError(f"Fetching {shard.file} of {self.name} was stopped: its reader was closed.")
                write(block)

            return write_unless_stopped

        return WantedFile(
            name=self.names[number],
            num_bytes=shard.num_bytes,
            xxh3_128=shard.xxh3_128,
            origin=self._folder.name_of(shard.file),
            download=download,
        )
