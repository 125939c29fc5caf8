"""A way to end another thread's wait for sockets."""

from __future__ import annotations

import socket
import threading


class Wakeup:
    """A socket pair whose reading end becomes readable for good once `set` was called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reader, self._writer = socket.socketpair()
        self._closed = False

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._reader.fileno()

    def set(self) -> None:
        """Make the reading end readable; may be called from any thread, at any time, also after `close`."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._writer.close()  # end of file: readable from now on

    def close(self) -> None:
        """Close both ends; only the waiting thread may do so."""
        self.set()
        self._reader.close()
