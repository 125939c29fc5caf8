"""How the workers of a generation find each other: each dials and accepts at once.

A worker dials every lower rank and is dialled by every higher one, so every two share one connection. All handshakes
run side by side in one thread, each with a time limit of its own: a stranger that connects and says nothing, or
nonsense, is dropped and holds nobody up. After theirs, two workers of one host also exchange the memory that they
share.

Workers come at different times, and some have not yet left the generation before. So a peer that cannot be reached is
dialled again until the time is over, and a connection with an older generation is dropped and dialled again; one with a
newer generation ends this worker's call, whose place is gone. Only a refused connection ends it at once: a listener
lives as long as its process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from dataclasses import dataclass

from ..errors import Aborted, Call, PeerError
from .handshake import Hello, Peers, Refused, Steps, Verdict, answer, dial
from .listener import BUFFER_BYTES, Listener, Wakeup, dial_locally
from .shared_memory import SharedMemory, offer, take_offer

HANDSHAKE_LIMIT_S = 5.0
RETRY_S = 0.05
MAX_STRANGERS = 64


def sockets_to(
    listener: Listener, peers: Peers, timeout_s: float, memory: SharedMemory | None = None
) -> dict[int, socket.socket]:
    """Connect with every other worker of the generation.

    Args:
        listener: this worker's.
        peers: who they are.
        timeout_s: bounds the call, in seconds.
        memory: offered to the peers on this host, and theirs attached to it.

    Returns:
        a non-blocking connection to each, by rank.

    Raises:
        PeerError: a peer did not come, or could not prove that it belongs to the run.
        Aborted: `listener.abort` was called for this generation.
        ValueError: `timeout_s` is not positive.
    """
    if timeout_s <= 0:
        raise ValueError(f"timeout_s must be positive, got {timeout_s}")
    connecting, wakeup = _Connecting(listener, peers, timeout_s, memory), Wakeup()
    listener.watch(wakeup)
    try:
        connecting.run(wakeup)
    except BaseException:
        for sock in connecting.sockets.values():
            sock.close()
        raise
    finally:
        for attempt in connecting.attempts:
            attempt.sock.close()
        listener.watch(None)
        wakeup.close()
    return connecting.sockets


@dataclass(slots=True, eq=False)
class _Attempt:
    """One handshake under way.

    Attributes:
        peer: whom this worker dials; None if it was dialled.
        until_s: when it is given up, by the monotonic clock.
        is_connecting: the system has not connected it yet.
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
                    self.received = b""
        except BlockingIOError:
            return None
        except StopIteration as finished:
            hello: Hello = finished.value
            return hello


class _Connecting:
    """The state of one `sockets_to`.

    Attributes:
        sockets: ready connections, by rank.
        attempts: handshakes under way.
        redial_s: when to dial a lower rank (again), by the monotonic clock.
        notes: why the last handshake with a worker failed, or with whoever claimed to be it.
        generations: in which a worker was when it was reached.
        unreachable: what the system said when a worker was dialled.
        num_strangers: connections that were turned away.
    """

    def __init__(self, listener: Listener, peers: Peers, timeout_s: float, memory: SharedMemory | None) -> None:
        self.listener, self.peers, self.timeout_s, self.memory = listener, peers, timeout_s, memory
        self.call = Call(peers.rank, peers.generation, None)
        self.until_s = time.monotonic() + timeout_s
        self.sockets: dict[int, socket.socket] = {}
        self.attempts: list[_Attempt] = []
        self.redial_s: dict[int, float] = dict.fromkeys(range(peers.rank), 0.0)
        self.notes: dict[int, str] = {}
        self.generations: dict[int, int] = {}
        self.unreachable: dict[int, str] = {}
        self.num_strangers = 0

    def run(self, wakeup: Wakeup) -> None:
        """Dial, accept and shake hands until all peers are connected; errors as in `sockets_to`."""
        while len(self.sockets) < len(self.peers.addresses) - 1:
            if (reason := self.listener.abort_reason(self.peers.generation)) is not None:
                raise Aborted(self.call, reason)
            now_s = time.monotonic()
            if now_s >= self.until_s:
                raise self.missing()
            for peer in [peer for peer, due_s in self.redial_s.items() if due_s <= now_s]:
                del self.redial_s[peer]
                self.dial(peer, now_s)
            for attempt in self.sleep(wakeup, now_s):
                self.pump(attempt)

    def dial(self, peer: int, now_s: float) -> None:
        """Begin a connection with a worker of lower rank: a Unix socket if it is here, else TCP."""
        address = self.peers.addresses[peer]
        local = dial_locally(address) if self.peers.may_be_here(peer) else None
        steps = dial(self.peers, peer)
        if local is not None:
            self.begin(local, steps, peer, now_s)
            return
        family, kind, protocol, _, target = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
        attempt = self.begin(sock, steps, peer, now_s)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        error = sock.connect_ex(target)
        if error not in (0, errno.EINPROGRESS):
            self.failed(attempt, OSError(error, os.strerror(error)))

    def begin(self, sock: socket.socket, steps: Steps, peer: int | None, now_s: float) -> _Attempt:
        """Begin a handshake.

        Args:
            sock: its connection, which need not stand yet.
            steps: this worker's side.
            peer: who was dialled; None for somebody who knocked.
            now_s: by the monotonic clock.
        """
        sock.setblocking(False)
        if sock.family == socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        until_s = now_s + HANDSHAKE_LIMIT_S if peer is None else self.until_s  # who is dialled may come late
        attempt = _Attempt(sock, steps, peer, until_s, is_connecting=peer is not None)
        attempt.start()
        self.attempts.append(attempt)
        return attempt

    def accept(self, now_s: float) -> None:
        """Take whoever knocks; if there are too many at once, the one who has been silent longest must go."""
        for listening in self.listener.sockets:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listening.accept()
                    self.begin(sock, answer(self.peers), None, now_s)
                    strangers = [attempt for attempt in self.attempts if attempt.peer is None]
                    if len(strangers) > MAX_STRANGERS + len(self.peers.addresses):
                        self.failed(strangers[0], Refused("too many connections at once"))

    def sleep(self, wakeup: Wakeup, now_s: float) -> list[_Attempt]:
        """Wait for something to do; return the handshakes that can go on."""
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        for listening in self.listener.sockets:
            poll.register(listening, select.POLLIN)
        by_descriptor = {attempt.sock.fileno(): attempt for attempt in self.attempts}
        for attempt in self.attempts:
            poll.register(attempt.sock, select.POLLOUT if attempt.is_connecting or attempt.to_send else select.POLLIN)
        next_s = min([self.until_s, *self.redial_s.values(), *(attempt.until_s for attempt in self.attempts)])
        events = poll.poll(max(1.0, (next_s - now_s) * 1000.0))
        now_s = time.monotonic()
        for attempt in [attempt for attempt in self.attempts if attempt.until_s <= now_s]:
            self.failed(attempt, Refused("it did not finish the handshake"))
        self.accept(now_s)
        ready = [by_descriptor[descriptor] for descriptor, _ in events if descriptor in by_descriptor]
        return [attempt for attempt in ready if attempt in self.attempts]

    def pump(self, attempt: _Attempt) -> None:
        """Go on with a handshake; at its end keep the connection, or turn the other one away."""
        try:
            theirs = self.finished(attempt)
        except BlockingIOError:
            return
        except (Refused, OSError) as error:
            self.failed(attempt, error)
            return
        if theirs is None:
            return
        self.attempts.remove(attempt)
        if theirs.generation != self.peers.generation:
            attempt.sock.close()
            self.other_generation(attempt.peer, theirs)
        elif attempt.peer is None and self.peers.judge(theirs) is not Verdict.WELCOME:
            attempt.sock.close()
            self.notes[theirs.sender] = f"it says it is worker {theirs.sender} of {theirs.num_workers}"
        else:
            if theirs.sender in self.sockets:  # it gave up on the first connection and dialled again
                self.sockets.pop(theirs.sender).close()
            self.sockets[theirs.sender] = attempt.sock

    def finished(self, attempt: _Attempt) -> Hello | None:
        """Go on; return the peer's hello when all is done that comes before the first call.

        On one host the two offer each other memory to share; both use it, or neither. Raises Refused or OSError.
        """
        if attempt.theirs is None:
            attempt.theirs = attempt.pump()
            if attempt.theirs is None or not self.is_local_peer(attempt):
                return attempt.theirs
            attempt.offered = offer(attempt.sock, self.memory)
        if self.is_local_peer(attempt):
            try:
                descriptor = take_offer(attempt.sock)
                if descriptor is not None and attempt.offered and self.memory is not None:
                    self.memory.attach(attempt.theirs.sender, descriptor)
                elif descriptor is not None:
                    os.close(descriptor)
            except ValueError as error:
                raise Refused(str(error), claimed=attempt.theirs.sender) from None
        return attempt.theirs

    def is_local_peer(self, attempt: _Attempt) -> bool:
        """Whether a handshake has brought a member of this generation on the same host, so that memory is offered."""
        theirs = attempt.theirs
        if theirs is None or attempt.sock.family != socket.AF_UNIX or theirs.generation != self.peers.generation:
            return False
        return attempt.peer is not None or self.peers.judge(theirs) is Verdict.WELCOME

    def other_generation(self, dialled: int | None, theirs: Hello) -> None:
        """An older worker is turned away (dialled again, if it is the one to be reached); a newer one ends this."""
        if theirs.generation > self.peers.generation:
            raise PeerError.of_generation(self.call, theirs.sender, theirs.generation)
        if dialled is not None:
            self.generations[dialled] = theirs.generation
            self.redial_s[dialled] = time.monotonic() + RETRY_S

    def failed(self, attempt: _Attempt, error: Exception) -> None:
        """Drop a handshake; dial again unless that is pointless."""
        attempt.sock.close()
        self.attempts.remove(attempt)
        peer = attempt.peer
        if isinstance(error, Refused):
            self.num_strangers += peer is None
            claimed = peer if peer is not None else error.claimed
            if claimed is not None:
                self.notes[claimed] = str(error)
            if peer is not None and error.claimed is not None:
                raise PeerError.stranger(self.call, peer, str(error))
        elif peer is not None:
            self.unreachable[peer] = str(error)
            if isinstance(error, ConnectionRefusedError):  # nobody listens any more: its process has ended
                raise self.missing()
        if peer is not None:
            self.redial_s[peer] = time.monotonic() + RETRY_S

    def missing(self) -> PeerError:
        """The error for the first worker that is not connected: the most telling one that there is."""
        peers = self.peers
        absent = [peer for peer in range(len(peers.addresses)) if peer != peers.rank and peer not in self.sockets]
        for peer in absent:
            if peer in self.unreachable:
                reason = f"cannot connect to {peers.addresses[peer]}: {self.unreachable[peer]}"
                return PeerError.lost(self.call, peer, reason)
        for peer in absent:
            if peer in self.generations:
                return PeerError.of_generation(self.call, peer, self.generations[peer])
            if peer in self.notes:
                return PeerError.stranger(self.call, peer, self.notes[peer])
        strangers = f", {self.num_strangers} strangers turned away" if self.num_strangers else ""
        return PeerError.silent(self.call, tuple(absent), self.timeout_s, f"connecting{strangers}")
