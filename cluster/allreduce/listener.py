"""The address at which a worker waits for its peers, and how another thread ends that wait.

Beside the TCP port a worker listens on a Unix socket of the same name: peers on the same host move their bytes through
that, which is two to three times as fast. Its name is abstract (no file), so it exists in one network namespace only:
who can reach it is on the same host, and whoever cannot dials the port.

Anybody on the host may take such a name, or knock at it. So both sides ask the system whose process is at the other end
(SO_PEERCRED, which nobody can forge) and want nothing of another user's: who finds the name in such hands dials the
port, which is this worker's alone. That is why frames need no key after the handshake (`handshake.py`): on one host
nobody can come between two workers but their own user and root, who could as well write to their memory. Between hosts
whoever can change the network's traffic could, so docs/explanation/security.md asks for a closed network.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import warnings

Address = tuple[str, int]
"""Name or IP address of a host, and the TCP port there."""
BUFFER_BYTES = 1 << 22
BACKLOG = 1024  # of those who knock before they are let in
_CREDENTIALS = struct.Struct("3i")  # process, user, group


class Wakeup:
    """Ends a thread's wait for sockets, from any other thread and for good: a socket pair to wait for as well.

    Attributes:
        reason: why, once it was set.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._lock = threading.Lock()
        self._reader, self._writer = socket.socketpair()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._reader.fileno()

    def set(self, reason: str) -> None:
        """End the wait; the first reason counts. Also after `close`."""
        with self._lock:
            if self.reason is None:
                self.reason = reason
                self._writer.close()  # end of file: readable from now on

    def close(self) -> None:
        """Close both ends; only the waiting thread may do so."""
        self.set("the worker closed its connections")
        self._reader.close()


class Listener:
    """The address at which a worker's peers reach it, for as many generations as the worker lives.

    Args:
        host: a name or address of this machine.
        port: 0 takes a free one.

    Raises:
        ValueError: the address means every interface.
        OSError: it cannot be bound.
    """

    def __init__(self, host: str, *, port: int = 0) -> None:
        if host in ("", "0.0.0.0", "::"):
            raise ValueError(f"host {host!r} would listen on every interface: name one")
        family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)  # accepted sockets inherit it
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self.sock = _listening(sock, target)
        self.local = _listening_locally(self.address)  # None: peers of this host dial the port as well
        self._lock = threading.Lock()
        self._wakeup: Wakeup | None = None
        self._aborted: tuple[int, str] = (-1, "")

    @property
    def address(self) -> Address:
        """Return (host, port) as peers should dial it."""
        host, port = self.sock.getsockname()[:2]
        return host, port

    @property
    def sockets(self) -> list[socket.socket]:
        """Return the sockets at which peers knock."""
        return [self.sock] if self.local is None else [self.sock, self.local]

    def abort(self, generation: int, reason: str) -> None:
        """Let nobody connect any more for this generation and all older ones, now and later; from any thread.

        Args:
            generation: who waits for its members, or will, is raised Aborted.
            reason: why.
        """
        with self._lock:
            if generation > self._aborted[0]:
                self._aborted = generation, reason
            if self._wakeup is not None:
                self._wakeup.set(reason)

    def forget_aborts(self) -> None:
        """A new task begins, whose generations count from 0 again; the member of the last one must have left."""
        with self._lock:
            self._aborted = -1, ""

    def abort_reason(self, generation: int) -> str | None:
        """Return why a generation was aborted, or None."""
        return self._aborted[1] if generation <= self._aborted[0] else None

    def watch(self, wakeup: Wakeup | None) -> None:
        """Let `abort` wake this up."""
        with self._lock:
            self._wakeup = wakeup

    def close(self) -> None:
        """Stop listening."""
        for sock in self.sockets:
            sock.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def shown(address: Address) -> str:
    """An address as it stands in messages."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def dial_locally(address: Address) -> socket.socket | None:
    """A connection to this user's listener on this host, None if there is none under that address."""
    if not sys.platform.startswith("linux"):
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    if sock.connect_ex(_local_name(address)) == 0 and is_of_this_user(sock):
        return sock
    sock.close()
    return None


def is_of_this_user(sock: socket.socket) -> bool:
    """Whether the process at the other end runs as the same user; True for TCP, where a proof must do."""
    if sock.family != socket.AF_UNIX:
        return True
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(raw)
    return bool(user == os.geteuid())


def _listening_locally(address: Address) -> socket.socket | None:
    """A Unix socket for peers on this host, None where there are no abstract names or somebody holds this one."""
    if not sys.platform.startswith("linux"):
        return None
    with_name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        return _listening(with_name, _local_name(address))
    except OSError as error:
        warnings.warn(
            f"The local socket {_local_name(address)[1:]!r} cannot be opened ({error.strerror}): another process holds "
            "that name. Workers of this host reach this one at its port instead, which is slower.",
            RuntimeWarning,
            stacklevel=3,
        )
        return None


def _local_name(address: Address) -> str:
    """The name of the Unix socket beside a port."""
    return f"\0heliostat-{address[0]}-{address[1]}"


def _listening(sock: socket.socket, address: str | tuple[object, ...]) -> socket.socket:
    """Let a socket listen; closes it if that fails."""
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
