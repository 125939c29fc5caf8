"""Reading ahead: threads gather the coming batches while the consumer works, bounded by bytes, in the same order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from ..order.order import RowIds
from .reader import Reader
from .stretches import Stretch


class _Slot:
    """A batch that was asked for: being read, read, or failed."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows, self.num_bytes = num_rows, 0
        self.is_done = False
        self.rows: dict[str, Any] = {}
        self.error: BaseException | None = None


class Prefetcher(Iterator[dict[str, Any]]):
    """Batches of rows in the order of `requests`, read ahead by threads; equal to gathering them one by one.

    `make_reader` is called once in every thread, `requests` are vectors of row ids, or stretches of a pass, which the
    readers are then told before they read. At first as many batches are read ahead as there are threads; whenever the
    consumer has to wait one more, as far as `max_bytes` of batches (read or being read, judged by the largest bytes per
    row so far) allow; one is always read. An error of a reader or of `requests` is raised where its batch would have
    come, and ends the iteration. A context manager; `close` stops reading and joins the threads. For one consuming
    thread.
    """

    def __init__(
        self,
        make_reader: Callable[[], Reader],
        requests: Iterator[RowIds | Stretch],
        *,
        max_bytes: int = 64 << 20,
        num_threads: int = 1,
    ) -> None:
        if num_threads < 1 or max_bytes < 1:
            raise ValueError(f"num_threads is {num_threads} and max_bytes {max_bytes}; both must be at least 1.")
        self._make_reader, self._requests, self._max_bytes = make_reader, requests, max_bytes
        self._slots: deque[_Slot] = deque()
        self._depth, self._bytes_per_row = num_threads, 0.0
        self._is_exhausted = self._is_closed = False
        self._changed = threading.Condition()
        self._waited_s = 0.0
        self._threads = [
            threading.Thread(target=self._read, name=f"heliostat-prefetch-{number}", daemon=True)
            for number in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waited_s(self) -> float:
        """Seconds that the consumer has waited for batches."""
        return self._waited_s

    @property
    def num_bytes(self) -> int:
        """Bytes of the batches that are read and not yet taken."""
        with self._changed:
            return sum(slot.num_bytes for slot in self._slots)

    @property
    def depth(self) -> int:
        """How many batches are read ahead, if the bytes allow it."""
        return self._depth

    def __next__(self) -> dict[str, Any]:
        with self._changed:
            self._wait_for_first()
            if not self._slots:
                raise StopIteration
            slot = self._slots.popleft()
            self._changed.notify_all()
        if slot.error is not None:
            self.close()
            raise slot.error
        return slot.rows

    def close(self) -> None:
        """Stop reading, let go of what was read, and wait for the threads to end."""
        with self._changed:
            self._is_closed = True
            self._slots.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait_for_first(self) -> None:
        """Wait until the next batch is there, or nothing more will come."""
        begin = None
        while not self._is_closed and not (self._slots[0].is_done if self._slots else self._is_exhausted):
            if begin is None:
                begin = time.monotonic()
                # A wait is what a greater depth may prevent next time.
                self._depth += 1
                self._changed.notify_all()
            self._changed.wait()
        if begin is not None:
            self._waited_s += time.monotonic() - begin

    def _read(self) -> None:
        """What every thread does."""
        reader: Reader | None = None
        error: BaseException | None = None
        try:
            try:
                reader = self._make_reader()
            except BaseException as caught:  # raised again where the consumer is
                error = caught
            while (taken := self._take_request(reader)) is not None:
                slot, request = taken
                slot.error = slot.error or error
                if reader is not None and slot.error is None:
                    try:
                        slot.rows = reader.gather(request.row_ids() if isinstance(request, Stretch) else request)
                    except BaseException as caught:  # raised again where the consumer is
                        slot.error = caught
                self._finish(slot)
        finally:
            if reader is not None:
                reader.close()

    def _take_request(self, reader: Reader | None) -> tuple[_Slot, RowIds | Stretch] | None:
        """The next batch to read, once there is room for it; None when there is nothing more to do."""
        with self._changed:
            while not self._is_closed and not self._is_exhausted and not self._has_room():
                self._changed.wait()
            if self._is_closed or self._is_exhausted:
                return None
            try:
                request = next(self._requests)
            except StopIteration:
                self._is_exhausted = True
                self._changed.notify_all()
                return None
            except BaseException as error:  # raised again where the consumer is
                slot = _Slot(0)
                slot.error, slot.is_done, self._is_exhausted = error, True, True
                self._slots.append(slot)
                self._changed.notify_all()
                return None
            slot = _Slot(len(request))
            self._slots.append(slot)
            if reader is not None and isinstance(request, Stretch):
                try:
                    request.announce(reader)
                except BaseException as error:  # raised again where the consumer is
                    slot.error = error
            return slot, request

    def _has_room(self) -> bool:
        if not self._slots:
            return True
        # The next batch is taken to be as large as the last one.
        num_rows = sum(slot.num_rows for slot in self._slots) + self._slots[-1].num_rows
        return len(self._slots) < self._depth and num_rows * self._bytes_per_row <= self._max_bytes

    def _finish(self, slot: _Slot) -> None:
        with self._changed:
            slot.num_bytes, slot.is_done = sum(values.nbytes for values in slot.rows.values()), True
            self._bytes_per_row = max(self._bytes_per_row, slot.num_bytes / max(1, slot.num_rows))
            if slot.error is not None:
                self._is_exhausted = True  # nothing after an error will be asked for
            self._changed.notify_all()
