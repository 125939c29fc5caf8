"""How the workers of a generation find each other: each dials and accepts at once.

A worker dials every lower rank and is dialled by every higher one, so every two share one connection. All handshakes
run side by side in one thread, each with a time limit of its own, whoever has dialled. After theirs, two workers of one
host also exchange the memory that they share.

Strangers hold nobody up: they are let in a few at a time, another user's process not at all; who says nothing, or
nonsense, is dropped, first of all when there are too many; and who has proved that it is a peer is never dropped for
them. A peer on this host that does not answer at its local socket is dialled at its port.

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

from ..errors import Aborted, Call, PeerError
from .attempt import Attempt
from .awake import AwakeClock, sleep
from .handshake import Hello, Peers, Refused, Steps, Verdict, answer, dial
from .listener import BUFFER_BYTES, Listener, Wakeup, dial_locally, is_of_this_user, shown
from .shared_memory import SharedMemory, offer, take_offer

HANDSHAKE_LIMIT_S = 5.0
RETRY_S = 0.05
MAX_STRANGERS = 64
MAX_ACCEPTED = 16  # at each socket in one turn: a flood must not keep this worker from its peers


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


class _Connecting:
    """The state of one `sockets_to`.

    Attributes:
        sockets: ready connections, by rank.
        attempts: handshakes under way.
        redial_s: when to dial a lower rank (again).
        by_port: workers that did not answer at their local socket.
        notes: why the last handshake with a worker failed, or with whoever claimed to be it.
        generations: in which a worker was when it was reached.
        unanswered: what became of it when a worker was dialled.
        num_strangers: connections that were turned away.

    All times are by its own clock, in seconds.
    """

    def __init__(self, listener: Listener, peers: Peers, timeout_s: float, memory: SharedMemory | None) -> None:
        self.listener, self.peers, self.timeout_s, self.memory = listener, peers, timeout_s, memory
        self.call = Call(peers.rank, peers.generation, None)
        self.clock = AwakeClock()
        self.until_s = self.clock.now_s() + timeout_s
        self.sockets: dict[int, socket.socket] = {}
        self.attempts: list[Attempt] = []
        self.redial_s: dict[int, float] = dict.fromkeys(range(peers.rank), 0.0)
        self.by_port: set[int] = set()
        self.notes: dict[int, str] = {}
        self.generations: dict[int, int] = {}
        self.unanswered: dict[int, str] = {}
        self.num_strangers = 0

    def run(self, wakeup: Wakeup) -> None:
        """Dial, accept and shake hands until all peers are connected; errors as in `sockets_to`."""
        while len(self.sockets) < len(self.peers.addresses) - 1:
            if (reason := self.listener.abort_reason(self.peers.generation)) is not None:
                raise Aborted(self.call, reason)
            now_s = self.clock.now_s()
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
        is_local = self.peers.may_be_here(peer) and peer not in self.by_port
        local = dial_locally(address) if is_local else None
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

    def begin(self, sock: socket.socket, steps: Steps, peer: int | None, now_s: float) -> Attempt:
        """Begin a handshake.

        Args:
            sock: its connection, which need not stand yet.
            steps: this worker's side.
            peer: who was dialled; None for somebody who knocked.
            now_s: the time.
        """
        sock.setblocking(False)
        if sock.family == socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        limit_s = HANDSHAKE_LIMIT_S if peer is None else min(HANDSHAKE_LIMIT_S, self.timeout_s / 2)
        until_s = min(now_s + limit_s, self.until_s)
        attempt = Attempt(sock, steps, peer, until_s, is_connecting=peer is not None)
        attempt.start()
        self.attempts.append(attempt)
        return attempt

    def accept(self, now_s: float) -> None:
        """Take those who knock, a few at a time."""
        for listening in self.listener.sockets:
            with contextlib.suppress(OSError):
                for _ in range(MAX_ACCEPTED):
                    sock, _ = listening.accept()
                    if is_of_this_user(sock):
                        self.pump(self.begin(sock, answer(self.peers), None, now_s))
                    else:
                        sock.close()
                        self.num_strangers += 1
        self.make_room()

    def make_room(self) -> None:
        """If too many have knocked that are not known to be peers, some must go: the silent first, then the oldest."""
        strangers = [attempt for attempt in self.attempts if attempt.peer is None and attempt.theirs is None]
        strangers.sort(key=lambda attempt: attempt.has_spoken)
        num_too_many = len(strangers) - MAX_STRANGERS - len(self.peers.addresses)
        for attempt in strangers[: max(0, num_too_many)]:
            self.failed(attempt, Refused("too many connections at once"))

    def sleep(self, wakeup: Wakeup, now_s: float) -> list[Attempt]:
        """Wait for something to do; return the handshakes that can go on."""
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        for listening in self.listener.sockets:
            poll.register(listening, select.POLLIN)
        by_descriptor = {attempt.sock.fileno(): attempt for attempt in self.attempts}
        for attempt in self.attempts:
            poll.register(attempt.sock, select.POLLOUT if attempt.is_connecting or attempt.to_send else select.POLLIN)
        next_s = min([self.until_s, *self.redial_s.values(), *(attempt.until_s for attempt in self.attempts)])
        events = sleep(poll, next_s - now_s)
        now_s = self.clock.now_s()
        for attempt in [attempt for attempt in self.attempts if attempt.until_s <= now_s]:
            self.failed(attempt, TimeoutError("it did not finish the handshake"))
        self.accept(now_s)
        ready = [by_descriptor[descriptor] for descriptor, _ in events if descriptor in by_descriptor]
        return [attempt for attempt in ready if attempt in self.attempts]

    def pump(self, attempt: Attempt) -> None:
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

    def finished(self, attempt: Attempt) -> Hello | None:
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

    def is_local_peer(self, attempt: Attempt) -> bool:
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
            self.redial_s[dialled] = self.clock.now_s() + RETRY_S

    def failed(self, attempt: Attempt, error: Exception) -> None:
        """Drop a handshake; dial again unless that is pointless."""
        attempt.sock.close()
        self.attempts.remove(attempt)
        peer = attempt.peer
        if peer is None:
            self.num_strangers += 1
            if isinstance(error, Refused) and error.claimed is not None:
                self.notes[error.claimed] = str(error)
            return
        if isinstance(error, Refused):
            self.notes[peer] = str(error)
            if error.claimed is not None:
                raise PeerError.stranger(self.call, peer, str(error))
        elif isinstance(error, ConnectionRefusedError):  # nobody listens any more: its process has ended
            reason = f"cannot connect to {shown(self.peers.addresses[peer])}: {error}"
            raise PeerError.lost(self.call, peer, reason, unresponsive=(peer,))
        elif isinstance(error, TimeoutError):
            self.unanswered[peer] = "does not answer" if attempt.is_connecting else "is open, but no worker answers"
            if attempt.sock.family == socket.AF_UNIX:
                self.by_port.add(peer)
        else:
            self.unanswered[peer] = f"cannot be reached ({error})"
        self.redial_s[peer] = self.clock.now_s() + RETRY_S

    def missing(self) -> PeerError:
        """The error for the first worker that is not connected: the most telling one that there is."""
        peers = self.peers
        absent = [peer for peer in range(len(peers.addresses)) if peer != peers.rank and peer not in self.sockets]
        for peer in absent:
            if peer in self.generations:
                return PeerError.of_generation(self.call, peer, self.generations[peer])
            if peer in self.notes:
                return PeerError.stranger(self.call, peer, self.notes[peer])
        return PeerError.unreachable(self.call, tuple(absent), self.timeout_s, self.tried(absent[0]))

    def tried(self, peer: int) -> str:
        """What was tried to connect with a worker, with addresses."""
        own, theirs = (shown(self.peers.addresses[rank]) for rank in (self.peers.rank, peer))
        strangers = f" ({self.num_strangers} strangers turned away)" if self.num_strangers else ""
        if peer > self.peers.rank:
            return f"the worker at {theirs} has not called {own}{strangers}"
        return f"{theirs} {self.unanswered.get(peer, 'has not answered')}, called from {own}"
