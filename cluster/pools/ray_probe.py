"""Whether the head of a Ray cluster answers at an address, and takes this machine's token: asked without Ray.

Ray's own connection waits for minutes where nobody answers, and in C++, where no signal reaches Python. And of a wrong
token it says, after half a minute, that it failed to connect. So one call is made here first, by hand: gRPC is HTTP/2,
and a single call with an empty message is two frames. The call is the first that Ray itself would make, for the id of
the cluster. The package `grpc` could do it as well, with threads and hooks on `fork` that stay in the process.
Sources: RFC 9113 (frames), RFC 7541 (headers: literals that no table remembers), gRPC's PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import re
import socket
import time
from enum import Enum

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_CALL = "/ray.rpc.NodeInfoGcsService/GetClusterId"
_DATA, _HEADERS, _RESET, _SETTINGS, _GO_AWAY = 0, 1, 3, 4, 7
_END_STREAM, _END_HEADERS = 1, 4
_FRAME_HEADER_BYTES, _MAX_FRAME_BYTES = 9, 1 << 14
# Headers that HTTP/2 knows by number (RFC 7541, appendix A); the last one may be kept by nobody on the way.
_POST, _HTTP = b"\x83", b"\x86"
_AUTHORITY, _PATH, _CONTENT_TYPE, _NEW, _AUTHORIZATION = b"\x01", b"\x04", b"\x0f\x10", b"\x00", b"\x1f\x08"
_EMPTY_MESSAGE = bytes(5)
_STATUS = re.compile(rb"grpc-status.([0-9]{1,2})", re.DOTALL)
_UNIMPLEMENTED, _UNAUTHENTICATED = b"12", b"16"


class Answer(Enum):
    """What became of the call."""

    TAKEN = "the head of a Ray cluster answers"
    OTHER = "what listens there is not the head of a Ray cluster"
    REFUSED = "it takes commands only from who has its token"


def ask_head(host: str, port: int, authorization: str, limit_s: float) -> Answer:
    """Call the head of a Ray cluster.

    Args:
        host: where.
        port: likewise.
        authorization: the header with the token, empty without one.
        limit_s: how long to wait for the answer, in seconds.

    Raises:
        TimeoutError: nobody answers.
        OSError: there is no connection.
    """
    until_s = time.monotonic() + limit_s
    with socket.create_connection((host, port), limit_s) as connection:
        try:
            connection.sendall(_request(f"{host}:{port}", authorization))
            return _answer(_Frames(connection, until_s))
        except (ConnectionError, EOFError):  # it hung up on what a client of gRPC says
            return Answer.OTHER


class _Frames:
    """The frames that arrive on a connection."""

    def __init__(self, connection: socket.socket, until_s: float) -> None:
        self._connection, self._until_s = connection, until_s

    def next(self) -> tuple[int, int, bytes]:
        """Kind, stream and content of the next frame; raises EOFError at the end, TimeoutError when time is over."""
        head = self._read(_FRAME_HEADER_BYTES)
        size = int.from_bytes(head[:3])
        if size > _MAX_FRAME_BYTES:  # of more than HTTP/2 allows: it speaks something else
            raise EOFError
        return head[3], int.from_bytes(head[5:]), self._read(size)

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            self._connection.settimeout(max(0.001, self._until_s - time.monotonic()))
            if not (more := self._connection.recv(size - len(found))):
                raise EOFError
            found += more
        return found


def _answer(frames: _Frames) -> Answer:
    kind, _, _ = frames.next()
    if kind != _SETTINGS:
        return Answer.OTHER
    while True:
        kind, stream, content = frames.next()
        if kind == _GO_AWAY or (kind == _RESET and stream):
            return Answer.OTHER
        if kind == _DATA:  # an answer that is none of the two below
            return Answer.TAKEN
        if kind == _HEADERS and (status := _STATUS.search(content)) is not None:
            return {_UNIMPLEMENTED: Answer.OTHER, _UNAUTHENTICATED: Answer.REFUSED}.get(status[1], Answer.TAKEN)


def _request(authority: str, authorization: str) -> bytes:
    headers = _POST + _HTTP + _PATH + _text(_CALL) + _AUTHORITY + _text(authority)
    headers += _CONTENT_TYPE + _text("application/grpc") + _NEW + _text("te") + _text("trailers")
    if authorization:
        headers += _AUTHORIZATION + _text(authorization)
    call = _frame(_HEADERS, _END_HEADERS, 1, headers) + _frame(_DATA, _END_STREAM, 1, _EMPTY_MESSAGE)
    return _PREFACE + _frame(_SETTINGS, 0, 0, b"") + call


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return len(content).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + content


def _text(text: str) -> bytes:
    """A string of a header: its length as an integer with a prefix of seven bits, and the bytes as they are."""
    content = text.encode()
    if len(content) < 127:
        return bytes((len(content),)) + content
    rest, length = len(content) - 127, bytes((127,))
    while rest >= 128:
        length += bytes((128 + rest % 128,))
        rest //= 128
    return length + bytes((rest,)) + content
