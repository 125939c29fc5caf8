"""A TCP relay in front of an object store that counts requests, delays, cuts bodies short and changes bytes."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

CHUNK_BYTES = 1 << 14
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Fault:
    """What happens to the body of an answer.

    `cut_after`: so many bytes of it pass, then the connection is reset, with `politely` closed; a PUT does not get that
    far. `flip_at`: one bit of the byte at this place is another. `delay_s` holds every chunk up.
    """

    cut_after: int | None = None
    politely: bool = False
    flip_at: int | None = None
    delay_s: float = 0.0


class SlowRelay:
    """Passes connections on to `target`.

    `fault(method, path, number)` is asked for every request, `number` counting those of this method and path from 0.
    `requests` lists (method, path) of all, without the query.
    """

    def __init__(
        self, target: tuple[str, int], fault: Callable[[str, str, int], Fault | None] = lambda *_: None
    ) -> None:
        self.fault = fault
        self.requests: list[tuple[str, str]] = []
        self.faults_done = 0
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: set[socket.socket] = set()
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def count(self, method: str, end_of_path: str = "") -> int:
        """How many requests there were."""
        with self._lock:
            return sum(each == method and path.endswith(end_of_path) for each, path in self.requests)

    def close(self) -> None:
        """End everything."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        with self._lock:
            ends = list(self._ends)
        for each in ends:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(caller,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, caller: socket.socket) -> None:
        with contextlib.suppress(OSError), caller, socket.create_connection(self._target) as called:
            with self._lock:
                self._ends |= {caller, called}
            try:
                while self._one_exchange(caller, called):
                    pass
            finally:
                with self._lock:
                    self._ends -= {caller, called}

    def _one_exchange(self, caller: socket.socket, called: socket.socket) -> bool:
        """One request and its answer; whether the connection goes on."""
        head, rest = _read_head(caller)
        if not head:
            return False
        method, path = head.split(b" ", 2)[:2]
        name = (method.decode(), path.decode().partition("?")[0])
        with self._lock:
            number = self.requests.count(name)
            self.requests.append(name)
        fault = self.fault(*name, number)
        if method == b"PUT" and fault is not None and fault.cut_after is not None:
            self.faults_done += 1
            return False
        if b"100-continue" in head.lower():
            caller.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        called.sendall(re.sub(rb"(?i)expect: 100-continue\r\n", b"", head) + rest)
        if b"transfer-encoding: chunked" in head.lower():
            _pass_chunks(caller, called, rest)
        else:
            self._pass(caller, called, _length(head) - len(rest), None)
        answer, rest = _read_head(called)
        caller.sendall(answer)
        length = 0 if method == b"HEAD" else _length(answer)
        whole = self._send(caller, rest, 0, fault) and self._pass(called, caller, length - len(rest), fault, len(rest))
        return whole and b"connection: close" not in answer.lower()

    def _pass(
        self, source: socket.socket, sink: socket.socket, num_bytes: int, fault: Fault | None, place: int = 0
    ) -> bool:
        while num_bytes > 0:
            data = source.recv(min(CHUNK_BYTES, num_bytes))
            if not data or not self._send(sink, data, place, fault):
                return False
            num_bytes -= len(data)
            place += len(data)
        return True

    def _send(self, sink: socket.socket, data: bytes, place: int, fault: Fault | None) -> bool:
        """Send a part of a body that begins at `place`; False if the connection was cut."""
        if fault is None:
            sink.sendall(data)
            return True
        if self._closing.wait(fault.delay_s):
            return False
        if fault.flip_at is not None and place <= fault.flip_at < place + len(data):
            changed = bytearray(data)
            changed[fault.flip_at - place] ^= 4
            data = bytes(changed)
            self.faults_done += 1
        if fault.cut_after is not None and place + len(data) > fault.cut_after:
            sink.sendall(data[: max(0, fault.cut_after - place)])
            if not fault.politely:
                sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.faults_done += 1
            return False
        sink.sendall(data)
        return True


def _pass_chunks(source: socket.socket, sink: socket.socket, begin: bytes) -> None:
    """Pass a chunked body on, to the empty line after its last chunk."""
    end = begin
    while not re.search(rb"(?:^|\r\n)0\r\n(?:[^\r\n]+\r\n)*\r\n$", end):
        data = source.recv(CHUNK_BYTES)
        if not data:
            return
        sink.sendall(data)
        end = (end + data)[-1000:]


def _read_head(source: socket.socket) -> tuple[bytes, bytes]:
    """The head of a message, and what was read of its body."""
    data = b""
    while _HEAD_END not in data:
        more = source.recv(CHUNK_BYTES)
        if not more:
            return b"", b""
        data += more
    head, _, rest = data.partition(_HEAD_END)
    return head + _HEAD_END, rest


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return int(found[1]) if found else 0
