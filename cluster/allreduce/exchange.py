"""Moving one call's frames to and from all peers at once: one thread, full duplex, no waiting on anybody in turn.

Every peer has a queue of frames to send and one of frames to receive. Sockets are tried first and polled only when none
moves; a frame may be held back (`Cursor.limit`) until the bytes that it sends exist. So a call is as fast as the
slowest pair of workers, and no order of sending and receiving can lock it up.

Who is unresponsive. A deadline that is missed must end the call and name the worker to blame, since the driver leaves
that one out of the next generation. But while one worker hangs, others cannot send either, because they wait for it.
So every awaited frame says whether its sender can send it whatever the others do (`Incoming.independent`); only such
peers are blamed, as long as there are any. And a peer's clock starts anew whenever it could not have sent before. A
slow network moves bytes, and is never taken for a dead peer. Time in which this process itself stood still counts for
nobody (`awake.py`).

Not done: a thread per connection, or asyncio. Python runs one thread at a time, and switching between them costs about
as much as a small call; what moves bytes here are a few system calls on memory that stays where it is.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .. import instruments
from ..errors import Aborted, Call, PeerError
from .awake import AwakeClock, sleep
from .frames import HEADER_BYTES, Header, Incoming, Kind, Notice, Outgoing, pack_goodbye, unpack_goodbye
from .listener import Wakeup

# What one peer may move before the next one has its turn: about as much as the system's buffers hold.
MAX_MOVE_BYTES = 1 << 22
# How long to look before sleeping: to be woken takes longer than a peer that is at the same call needs for its part.
SPIN_S = 100e-6


@dataclass(slots=True)
class Connection:
    """A connection to one peer and what this call still moves over it.

    Attributes:
        peer: its rank.
        sock: not blocking.
        outgoing: frames to send, in order.
        incoming: frames to come, in order.
        send_failure: why nothing can be sent any more.
        since_s: the peer could have moved since then, and has not; by the call's clock.
    """

    peer: int
    sock: socket.socket
    outgoing: deque[Outgoing] = field(default_factory=deque)
    incoming: deque[Incoming] = field(default_factory=deque)
    send_failure: str | None = None
    since_s: float = 0.0

    def can_send(self) -> bool:
        """Whether there are bytes that may be sent now."""
        return self.send_failure is None and bool(self.outgoing) and self.outgoing[0].limit > self.outgoing[0].done


class Awaited(NamedTuple):
    """A peer that is waited for: whether it holds things up by itself, and since when it has not moved."""

    peer: int
    independent: bool
    since_s: float


def holding_up(awaited: Sequence[Awaited]) -> Sequence[Awaited]:
    """Leave out the peers that cannot go on before another one has sent its part, unless there are no others."""
    return [each for each in awaited if each.independent] or awaited


def unresponsive(awaited: Sequence[Awaited], now_s: float, limit_s: float) -> tuple[int, ...]:
    """Return the peers that hold things up and have not moved for so long, the longest silent first."""
    late = [each for each in holding_up(awaited) if now_s - each.since_s >= limit_s]
    return tuple(each.peer for each in sorted(late, key=lambda each: each.since_s))


class Exchange:
    """One call: its queues are run until they are empty.

    Args:
        connections: to all peers, by rank; their queues hold what is to be moved.
        wakeup: ends a wait from another thread.
        call: which call it is.
        deadline_s: how long to wait for a peer that does not move.

    Attributes:
        bytes_sent: over the connections so far; likewise `bytes_received`.
        wait_s: seconds asleep so far until every peer had begun the call, that is, until something of it had come from
            each that owes something. What is slept after that is the network's, and is not counted.

    Its methods raise PeerError, Aborted or ProtocolError.
    """

    def __init__(self, connections: Mapping[int, Connection], wakeup: Wakeup, call: Call, deadline_s: float) -> None:
        self.connections = list(connections.values())
        self._by_descriptor = {each.sock.fileno(): each for each in self.connections}
        self._wakeup, self._call, self._deadline_s = wakeup, call, deadline_s
        self.bytes_sent = self.bytes_received = 0
        self.wait_s = 0.0
        self._unheard = {each.peer for each in self.connections if each.incoming}
        self._clock = AwakeClock()
        now_s = self._clock.now_s()
        for each in self.connections:
            each.since_s = now_s

    @property
    def is_done(self) -> bool:
        """Whether all is sent (taken by the system, that is) and received."""
        return not any(each.outgoing or each.incoming for each in self.connections)

    def move(self, connections: Sequence[Connection]) -> list[Connection]:
        """Move what can be moved over these connections without waiting; returns those where something did."""
        return [each for each in connections if self._move(each)]

    def release(self) -> list[Connection]:
        """More may be sent: whoever can take some is waited for from now on. Returns all connections."""
        now_s = self._clock.now_s()
        for each in self.connections:
            each.since_s = max(each.since_s, now_s)
        return self.connections

    def wait(self) -> list[Connection]:
        """Sleep until a connection can move, or for a while; returns those that can."""
        awaited, now_s, began_s = self._awaited(), self._clock.now_s(), time.perf_counter()
        if (reason := self._wakeup.reason) is not None:
            raise Aborted(self._call, reason, unresponsive(awaited, now_s, self._deadline_s / 2))
        if silent := unresponsive(awaited, now_s, self._deadline_s):
            raise PeerError.silent(self._call, silent, self._deadline_s, self._doing(silent[0]))
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        for each in self.connections:
            mask = (select.POLLIN if each.incoming else 0) | (select.POLLOUT if each.can_send() else 0)
            if mask:
                poll.register(each.sock, mask)
        timeout_s = min(each.since_s for each in holding_up(awaited)) + self._deadline_s - now_s
        events = _poll_briefly(poll, began_s + SPIN_S) or sleep(poll, timeout_s)
        self.wait_s += time.perf_counter() - began_s if self._unheard else 0.0
        instruments.note("wait", began_s)
        return [self._by_descriptor[descriptor] for descriptor, _ in events if descriptor in self._by_descriptor]

    def _move(self, connection: Connection) -> bool:
        """Send and receive what goes without waiting; whether that was anything."""
        sent, received = self._send(connection), self._receive(connection)
        self.bytes_sent += sent
        self.bytes_received += received
        if sent:
            instruments.fault_point("sending")
        if received:
            self._unheard.discard(connection.peer)
            instruments.fault_point("receiving")
        if sent or received:
            connection.since_s = self._clock.now_s()
        return bool(sent or received)

    def _send(self, connection: Connection) -> int:
        """Send until the system takes no more; returns how many bytes."""
        total = 0
        while connection.can_send() and total < MAX_MOVE_BYTES:
            frame = connection.outgoing[0]
            try:
                count = connection.sock.sendmsg(frame.window(MAX_MOVE_BYTES))
            except BlockingIOError:
                break
            except OSError as error:
                # The peer takes nothing more; what it sent before may still say why, so all of that is read first.
                connection.send_failure = str(error)
                connection.incoming.append(Incoming(Header.of(self._call, Kind.GOODBYE, 0, 0), None))
                break
            total += count
            frame.advance(count)
            if frame.done == frame.total:
                connection.outgoing.popleft()
        return total

    def _receive(self, connection: Connection) -> int:
        """Receive until nothing more is there; returns how many bytes."""
        total = 0
        while connection.incoming and total < MAX_MOVE_BYTES:
            frame = connection.incoming[0]
            if not frame.is_complete:
                try:
                    count = connection.sock.recvmsg_into(frame.cursor.window(MAX_MOVE_BYTES))[0]
                except BlockingIOError:
                    break
                except OSError as error:
                    raise self._lost(connection, connection.send_failure or str(error)) from error
                if count == 0:
                    raise self._lost(connection, "it closed the connection")
                total += count
                frame.cursor.advance(count)
                frame.open(self._call, connection.peer)
            if frame.is_complete:
                self._finish(connection, frame)
        return total

    def _finish(self, connection: Connection, frame: Incoming) -> None:
        """A frame is complete: go on to the next one, if there is any."""
        if frame.is_goodbye:
            silent = unresponsive(self._awaited(), self._clock.now_s(), self._deadline_s / 2)
            raise self._lost(connection, f"it stopped: {unpack_goodbye(frame.payload)}", silent)
        connection.incoming.popleft()
        if frame.header.kind is Kind.NOTICES and frame.last_byte == Notice.LEFT:
            goodbye = Incoming(Header.of(self._call, Kind.GOODBYE, 0, 0), None, independent=frame.independent)
            connection.incoming.appendleft(goodbye)
        now_s = self._clock.now_s()
        for other in self.connections:  # whoever waited for this part could not move before
            if other.incoming and not other.incoming[0].independent:
                other.since_s = now_s

    def _awaited(self) -> list[Awaited]:
        """What each peer owes us."""
        return [
            Awaited(each.peer, each.can_send() or each.incoming[0].independent, each.since_s)
            for each in self.connections
            if each.incoming or each.can_send()
        ]

    def _doing(self, peer: int) -> str:
        """What this worker does while it waits for a peer, in words."""
        incoming = next(each.incoming for each in self.connections if each.peer == peer)
        return f"waiting for its {incoming[0].header.kind.name.lower()}" if incoming else "sending to it"

    def _lost(self, connection: Connection, reason: str, silent: tuple[int, ...] = ()) -> PeerError:
        others = [each for each in self.connections if each is not connection]
        also = tuple(each.peer for each in others if _is_closed(each.sock))
        return PeerError.lost(self._call, connection.peer, reason, also=also, unresponsive=silent)


def _poll_briefly(poll: select.poll, until_s: float) -> list[tuple[int, int]]:
    """Return what is ready before `until_s`, without sleeping; others who want the processor have it meanwhile."""
    while not (events := poll.poll(0)) and time.perf_counter() < until_s:
        os.sched_yield()
    return events


def _is_closed(sock: socket.socket) -> bool:
    """Whether the peer has closed or reset this connection."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))


def say_goodbye(connections: Mapping[int, Connection], call: Call, reason: str) -> None:
    """Tell every peer why this worker stops, where no other frame is half sent, then close all connections."""
    payload = pack_goodbye(reason)
    goodbye = Header.of(call, Kind.GOODBYE, 0, len(payload)).pack() + payload
    for connection in connections.values():
        sending = connection.outgoing[0] if connection.outgoing else None
        with contextlib.suppress(OSError):
            if sending is None or sending.done == 0:
                connection.sock.send(goodbye)
            elif sending.header.kind is Kind.NOTICES and sending.done >= HEADER_BYTES:
                connection.sock.send(bytes([Notice.LEFT]) * (sending.total - sending.done) + goodbye)
            connection.sock.shutdown(socket.SHUT_RDWR)
        connection.sock.close()
