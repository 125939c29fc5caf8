"""What will be needed next, made by threads meanwhile: batches of a feed, shards of a cache, blocks of a text file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Made = TypeVar("Made")
Item = TypeVar("Item")


class Ahead(Generic[Key, Made]):
    """Calls `make` for keys that are said to come next, in threads that begin when the first key is told.

    A key that nobody told, or that was not begun yet, is made by whoever takes it, in his own thread. For one taking
    thread.

    Args:
        make: what makes the value of a key.
        name: what the threads are called.
        num_threads: how many keys are made at once.
    """

    def __init__(self, make: Callable[[Key], Made], *, name: str, num_threads: int = 1) -> None:
        self._make, self._name, self._num_threads = make, name, num_threads
        self._executor: ThreadPoolExecutor | None = None
        self._futures: dict[Key, Future[Made]] = {}

    def prefetch(self, keys: Sequence[Key]) -> None:
        """Make these next, in this order; of those that were told before and are not among them, none is begun."""
        told = set(keys)
        for key, future in list(self._futures.items()):
            if key not in told and (future.cancel() or future.done()):
                del self._futures[key]
        for key in keys:
            if key not in self._futures:
                if self._executor is None:
                    self._executor = ThreadPoolExecutor(self._num_threads, thread_name_prefix=self._name)
                self._futures[key] = self._executor.submit(self._make, key)

    def take(self, key: Key) -> Made:
        """What `make` returns for a key, each once; raises what it raises."""
        future = self._futures.pop(key, None)
        return self._make(key) if future is None or future.cancel() else future.result()

    def settle(self) -> None:
        """Forget all that was made or told, and wait for what is being made: nothing runs afterwards."""
        for future in self._futures.values():
            future.cancel()
        wait(self._futures.values())
        self._futures.clear()

    def close(self) -> None:
        """Settle, and end the threads."""
        self.settle()
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None


def made_in_order(
    make: Callable[[Item], Made], items: Iterable[Item], *, name: str, num_threads: int = 2
) -> Generator[tuple[Item, Future[Made]]]:
    """Every item with what `make` makes of it, in order, while threads make the next ones.

    `result()` of the future raises what `make` raised. What the items raise comes after those before it. Nothing runs
    any more when the iterator is at its end or closed.

    Args:
        make: called in threads.
        items: taken by the calling thread, `num_threads` ahead.
        name: what the threads are called.
        num_threads: how many items are made at once.
    """
    waiting: deque[tuple[Item, Future[Made]]] = deque()
    failed: list[Exception] = []

    def told() -> Iterator[Item]:
        try:
            yield from items
        except Exception as error:
            failed.append(error)

    with ThreadPoolExecutor(num_threads, thread_name_prefix=name) as executor:
        try:
            for item in told():
                waiting.append((item, executor.submit(make, item)))
                if len(waiting) > num_threads:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, future in waiting:
                future.cancel()
    if failed:
        raise failed[0]
