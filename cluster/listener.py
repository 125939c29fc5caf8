"""The address at which a worker waits for its peers."""

from __future__ import annotations

import socket
import threading

from .wakeup import Wakeup

BUFFER_BYTES = 1 << 22


class Listener:
    """The address at which a worker's peers reach it, for as many generations as the worker lives."""

    def __init__(self, host: str, *, port: int = 0, any_interface: bool = False) -> None:
        """Bind `host` (a name or address of this machine); port 0 takes a free one.

        Raises ValueError for an address that means every interface, unless `any_interface`; OSError if it cannot bind.
        """
        if host in ("", "0.0.0.0", "::") and not any_interface:
            raise ValueError(f"host {host!r} would listen on every interface: name one, or pass any_interface=True")
        family, kind, protocol, _, target = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        self.sock = socket.socket(family, kind, protocol)
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)  # accepted sockets inherit it
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            self.sock.bind(target)
            self.sock.listen(256)
            self.sock.setblocking(False)
        except BaseException:
            self.sock.close()
            raise
        self._lock = threading.Lock()
        self._wakeup: Wakeup | None = None
        self._aborted: tuple[int, str] = (-1, "")

    @property
    def address(self) -> tuple[str, int]:
        """Return (host, port) as peers should dial it."""
        host, port = self.sock.getsockname()[:2]
        return host, port

    def abort(self, generation: int, reason: str) -> None:
        """Make `meet` raise Aborted for this generation and all older ones, now and later; from any thread."""
        with self._lock:
            if generation > self._aborted[0]:
                self._aborted = generation, reason
            if self._wakeup is not None:
                self._wakeup.set()

    def forget_aborts(self) -> None:
        """A new task begins, whose generations count from 0 again; the member of the last one must have left."""
        with self._lock:
            self._aborted = -1, ""

    def close(self) -> None:
        """Stop listening."""
        self.sock.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def abort_reason(self, generation: int) -> str | None:
        """Return why a generation was aborted, or None."""
        return self._aborted[1] if generation <= self._aborted[0] else None

    def watch(self, wakeup: Wakeup | None) -> None:
        """Let `abort` wake this up."""
        with self._lock:
            self._wakeup = wakeup
