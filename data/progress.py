"""How far long work with bytes is, for whoever shows it."""

from __future__ import annotations

import threading
from collections.abc import Callable

OnBytes = Callable[[int, int], None]  # how many are done, and how many there are


class BytesDone:
    """Adds up bytes, from any thread, and tells after each.

    Args:
        total: how many there are.
        tell: who hears of it, one call at a time; None for nobody.
    """

    def __init__(self, total: int, tell: OnBytes | None) -> None:
        self._total, self._tell = total, tell
        self._done, self._lock = 0, threading.Lock()

    def add(self, num_bytes: int) -> None:
        """So many more are done; fewer where some are to be done again."""
        with self._lock:
            self._done += num_bytes
            if self._tell is not None:
                self._tell(self._done, self._total)
