"""Threads that fetch shards: those that are needed now first, then those that come next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from ..errors import DatasetError


class _Need:
    """One shard that somebody waits for."""

    def __init__(self, shard: int, patience_s: float) -> None:
        self.shard, self.patience_s, self.is_done = shard, patience_s, False
        self.error: BaseException | None = None


class ShardPrefetcher:
    """Fetches shards with up to `num_threads` threads, and as many more for those that are needed now.

    Threads live only while there is something to fetch; they call `fetch(shard, patience_s)`, with None for a shard
    that is fetched ahead. An error of such a one is forgotten: it comes again when the shard is needed.
    """

    def __init__(self, fetch: Callable[[int, float | None], None], *, num_threads: int = 4) -> None:
        if num_threads < 1:
            raise ValueError(f"num_threads is {num_threads}; it must be at least 1.")
        self._fetch, self._num_threads = fetch, num_threads
        self._needed: deque[_Need] = deque()
        self._wanted: deque[int] = deque()
        self._ahead: set[int] = set()
        self._threads: set[threading.Thread] = set()
        self._is_closed = False
        self._changed = threading.Condition()

    def want(self, shards: Sequence[int]) -> None:
        """Fetch these in the background, in this order, instead of those that were wanted before."""
        with self._changed:
            self._wanted = deque(shard for shard in shards if shard not in self._ahead)
            self._start_threads()

    def need(self, shards: Sequence[int], patience_s: float = 0.0) -> None:
        """Fetch these now and wait until all are there; raises the first error."""
        needs = [_Need(shard, patience_s) for shard in shards]
        with self._changed:
            self._needed.extend(needs)
            self._start_threads()
            while not all(need.is_done for need in needs) and not self._is_closed:
                self._changed.wait()
        for need in needs:
            if need.error is not None:
                raise need.error

    def close(self) -> None:
        """Drop what is not yet begun and wait for the threads to end."""
        with self._changed:
            self._is_closed = True
            self._needed.clear()
            self._wanted.clear()
            self._changed.notify_all()
            threads = [thread for thread in self._threads if thread is not threading.current_thread()]
        for thread in threads:
            thread.join()

    def _start_threads(self) -> None:
        waiting = len(self._needed) + len(self._wanted)
        # What is needed now does not wait for what is fetched ahead.
        most = self._num_threads + min(len(self._needed), self._num_threads)
        while not self._is_closed and waiting > 0 and len(self._threads) < most:
            thread = threading.Thread(target=self._run, name="heliostat-fetch", daemon=True)
            self._threads.add(thread)
            thread.start()
            waiting -= 1

    def _run(self) -> None:
        """What every thread does."""
        while True:
            with self._changed:
                need = self._needed.popleft() if self._needed else None
                if need is None and not self._wanted:
                    self._threads.discard(threading.current_thread())
                    return
                shard = self._wanted.popleft() if need is None else need.shard
                if need is None:
                    self._ahead.add(shard)
            error: BaseException | None = None
            try:
                self._fetch(shard, None if need is None else need.patience_s)
            except BaseException as caught:  # raised again where the shard is needed
                error = caught
            with self._changed:
                if need is None:
                    self._ahead.discard(shard)
                    if isinstance(error, DatasetError):
                        self._wanted.clear()  # no room or no connection: what comes after it would fare no better
                else:
                    need.is_done, need.error = True, error
                self._changed.notify_all()
