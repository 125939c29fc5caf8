"""A TCP relay in front of a listener: its connections can be cut off, ended, refused, or made slow."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

CHUNK_BYTES = 1 << 16


class Relay:
    """Passes bytes on between whoever connects and `target`; `delay_s` holds every chunk up for so long.

    Attributes:
        refuses: whether who connects is sent away.
    """

    def __init__(self, target: tuple[str, int], *, delay_s: float = 0.0) -> None:
        self._target, self._delay_s, self.refuses = target, delay_s, False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._ends: list[socket.socket] = []
        self._deaf: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def cut(self) -> None:
        """From now on nothing comes through what is connected: no bytes, no end. New connections work."""
        with self._lock:
            self._deaf.update(self._ends)

    def close(self) -> None:
        """End everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        self.end_connections()

    def end_connections(self) -> int:
        """End all that is connected; returns how many connections that were."""
        with self._lock:
            ends, self._ends = self._ends, []
            for each in ends:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        return len(ends) // 2

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            if self.refuses:
                caller.close()
                continue
            try:
                called = socket.create_connection(self._target)
            except OSError:
                caller.close()
                continue
            with self._lock:
                self._ends += [caller, called]
            for source, sink in ((caller, called), (called, caller)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                if source not in self._deaf:
                    time.sleep(self._delay_s)
                    sink.sendall(data)
            if source not in self._deaf:
                sink.shutdown(socket.SHUT_WR)
