"""One handshake under way over one socket that does not block: what has come so far, and what is due next."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from .handshake import Hello, Refused, Steps


@dataclass(slots=True, eq=False)
class Attempt:
    """One handshake under way.

    Attributes:
        peer: whom this worker dials; None if it was dialled.
        until_s: when it is given up.
        is_connecting: the system has not connected it yet.
        has_spoken: the other side has said a first thing that makes sense.
        theirs: the peer's hello, as soon as the handshake is over; what is left is the offer of shared memory.
        offered: whether this worker has offered memory.
    """

    sock: socket.socket
    steps: Steps
    peer: int | None
    until_s: float
    is_connecting: bool
    to_send: bytes = b""
    wanted: int = 0
    received: bytes = b""
    has_spoken: bool = False
    theirs: Hello | None = None
    offered: bool = False

    def start(self) -> None:
        """Take the first step of the handshake."""
        self.to_send, self.wanted = next(self.steps)

    def pump(self) -> Hello | None:
        """Go on as far as the socket allows; return the peer's hello at the end. Raises Refused or OSError."""
        if self.is_connecting:
            if error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error))
            self.is_connecting = False
        try:
            while True:
                if self.to_send:
                    self.to_send = self.to_send[self.sock.send(self.to_send) :]
                elif len(self.received) < self.wanted:
                    data = self.sock.recv(self.wanted - len(self.received))
                    if not data:
                        self.steps.throw(Refused("it closed the connection during the handshake"))
                    self.received += data
                else:
                    self.to_send, self.wanted = self.steps.send(self.received)
                    self.received, self.has_spoken = b"", True
        except BlockingIOError:
            return None
        except StopIteration as finished:
            hello: Hello = finished.value
            return hello
