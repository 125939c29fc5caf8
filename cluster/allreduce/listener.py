"""The address at which a worker waits for its peers.

Beside the TCP port a worker listens on a Unix socket of the same name: peers on the same host move their bytes through
that, which is two to three times as fast. Its name is abstract (no file), so it exists in one network namespace only:
who can reach it is on the same host, and whoever cannot dials the port.
"""

from __future__ import annotations

import socket
import sys
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
        self.local = _listen_locally(self.address)
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
        if self.local is not None:
            self.local.close()

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


def local_name(address: tuple[str, int]) -> str:
    """The name of the Unix socket beside a port."""
    return f"\0heliostat-{address[0]}-{address[1]}"


def _listen_locally(address: tuple[str, int]) -> socket.socket | None:
    """A Unix socket for peers on this host, None where there are no abstract names."""
    if not sys.platform.startswith("linux"):
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(local_name(address))
        sock.listen(256)
        sock.setblocking(False)
    except OSError:
        sock.close()
        return None
    return sock


def dial_locally(address: tuple[str, int]) -> socket.socket | None:
    """A connection to a listener on this host, None if there is none under that address."""
    if not sys.platform.startswith("linux"):
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    if sock.connect_ex(local_name(address)) == 0:
        return sock
    sock.close()
    return None
