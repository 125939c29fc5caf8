"""How somebody goes on while storage or a screen takes its time: a thread with a queue, and word of long waits.

A `StorageThread` works through a queue of what is to be stored or shown, in order, and nobody waits for it; of what
only its newest value counts, `Newest` keeps that, so that the queue does not grow. Where somebody must wait after all,
at an end, there is no limit that would be right: a network disk may answer in a second or in an hour, and what is not
written is lost. So the wait is told again and again (`telling`, `StorageThread.end_telling`), and the user decides.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
TELL_EVERY_S = 10.0  # so often somebody hears of what is waited for without a limit


class Newest(Generic[_Item]):
    """Holds one item until it is taken; a newer one replaces it. From any thread, and no item is left behind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._item: _Item | None = None

    def put(self, item: _Item) -> bool:
        """Put an item there; returns whether there was none, so that somebody is to be told to take it."""
        with self._lock:
            before, self._item = self._item, item
            return before is None

    def take(self) -> _Item | None:
        """Take the item away; None if there is none."""
        with self._lock:
            item, self._item = self._item, None
            return item


def telling(tell: Callable[[float], None]) -> contextlib.AbstractContextManager[None]:
    """While the block runs, which may take any time, somebody hears of it.

    Args:
        tell: called every `TELL_EVERY_S`, in a thread, with how many seconds the block has taken.
    """
    return beside(tell, TELL_EVERY_S, "heliostat-telling")


@contextlib.contextmanager
def beside(act: Callable[[float], None], every_s: float, name: str) -> Iterator[None]:
    """While the block runs, do something now and then in a thread, which has ended when the block has.

    Args:
        act: called with how many seconds the block has taken.
        every_s: how long to wait before each call.
        name: of the thread.
    """
    began_s, is_over = time.monotonic(), threading.Event()

    def act_on() -> None:
        while not is_over.wait(every_s):
            act(time.monotonic() - began_s)

    thread = threading.Thread(target=act_on, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


class StorageThread(Generic[_Item]):
    """Handles items in the order in which they were put, at the pace of the storage.

    Attributes:
        defect: the first error that `handle` or `idle` let through. It does not end the thread: what comes behind is
            handled, and whoever ends the thread raises it.

    Args:
        handle: called in the thread with an item and the moment (monotonic clock) at which it was put.
        name: of the thread.
        idle: called in the thread whenever nothing was put for `idle_s`; None for nothing.
        idle_s: see `idle`.
    """

    def __init__(
        self,
        handle: Callable[[_Item, float], None],
        name: str = "heliostat-storage",
        idle: Callable[[], None] | None = None,
        idle_s: float = 1.0,
    ) -> None:
        self.defect: Exception | None = None
        self._handle, self._idle, self._idle_s = handle, idle, idle_s
        self._at: tuple[_Item, float] | None = None  # what is being handled, and since when (monotonic clock)
        self._is_given_up = False
        self._queue: queue.SimpleQueue[tuple[_Item, float] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Begin; what was put before is handled, too."""
        self._thread.start()

    def put(self, item: _Item) -> None:
        """Put an item into the queue; never waits; from any thread."""
        self._queue.put((item, time.monotonic()))

    def end(self, within_s: float | None = None) -> None:
        """Wait until everything that was put is handled; the thread is gone then, or given up after `within_s`."""
        self._queue.put(None)
        self._thread.join(within_s)

    def end_telling(self, tell: Callable[[_Item, float], None]) -> None:
        """Wait without a limit until everything that was put is handled.

        An exception meanwhile (KeyboardInterrupt) gives up what nobody has begun to handle: whoever stops may have
        nothing to say any more where it would be written.

        Args:
            tell: called every `TELL_EVERY_S` with what is being handled, and for how many seconds it has been.
        """
        self._queue.put(None)
        try:
            while self._thread.is_alive():
                self._thread.join(TELL_EVERY_S)
                if (at := self._at) is not None:
                    tell(at[0], time.monotonic() - at[1])
        except BaseException:
            self._is_given_up = True
            raise

    def _work(self) -> None:
        while (waiting := self._next()) is not None and not self._is_given_up:
            self._at = waiting[0], time.monotonic()
            with self._noting_defects():
                self._handle(*waiting)
            self._at = None

    def _next(self) -> tuple[_Item, float] | None:
        """The next item; None for the end."""
        while self._idle is not None:
            with contextlib.suppress(queue.Empty):
                return self._queue.get(timeout=self._idle_s)
            with self._noting_defects():
                self._idle()
        return self._queue.get()

    @contextlib.contextmanager
    def _noting_defects(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.defect = self.defect or error
