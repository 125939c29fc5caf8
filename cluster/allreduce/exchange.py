"""Moving one call's frames to and from all peers at once: one thread, full duplex, no waiting on anybody in turn.

Every peer has a queue of frames to send and of frames to receive. Sockets are tried first and polled only when none
moves. A queue may be held back (`Cursor.limit`) until the bytes it sends exist.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .. import instruments
from ..errors import Aborted, Call, PeerError, ProtocolError
from .wakeup import Wakeup
from .wire import (
    HEADER_BYTES,
    MAX_FAREWELL_BYTES,
    Cursor,
    Header,
    Kind,
    Token,
    header_of,
    pack_farewell,
    unpack_farewell,
)

# What one peer may move before the next one has its turn: about as much as the system's buffers hold.
MAX_MOVE_BYTES = 1 << 22
# How long to look before sleeping: to be woken takes longer than a peer that is at the same call needs for its part.
SPIN_S = 100e-6


class Incoming:
    """A frame to come: its header must equal `header`, then the bytes go where `place` says.

    With `at_most` the length may be smaller than the header's. `own_debt` tells that the peer can send it whatever the
    others do, so that it alone is to blame for its absence. `tokens` is where a BLOCKS frame's payload goes.
    """

    def __init__(
        self,
        header: Header,
        place: Callable[[int], Sequence[memoryview]],
        *,
        at_most: bool = False,
        own_debt: bool = True,
        tokens: bytearray | None = None,
    ) -> None:
        self.tokens = tokens
        self.header = header
        self.header_bytes = header.pack()
        self.place = place
        self.at_most = at_most
        self.own_debt = own_debt
        self.start = Cursor([memoryview(bytearray(HEADER_BYTES))])
        self.start_memory = self.start.window(HEADER_BYTES)[0]
        self.body: Cursor | None = None
        self.farewell: bytearray | None = None

    @property
    def body_bytes(self) -> int:
        """Return how many bytes of the payload are here."""
        return 0 if self.body is None else self.body.done

    @property
    def complete(self) -> bool:
        """Whether the whole frame is here."""
        return self.body is not None and self.body.done == self.body.total


@dataclass(slots=True)
class Link:
    """A connection to one peer and what this call still moves over it."""

    peer: int
    sock: socket.socket
    outgoing: deque[Cursor] = field(default_factory=deque)
    incoming: deque[Incoming] = field(default_factory=deque)
    send_failure: str | None = None
    since_s: float = 0.0

    def can_send(self) -> bool:
        """Whether there are bytes that may be sent now."""
        return self.send_failure is None and bool(self.outgoing) and self.outgoing[0].limit > self.outgoing[0].done

    @property
    def busy(self) -> bool:
        """Whether this call still needs the peer."""
        return bool(self.outgoing or self.incoming)


class Traffic(NamedTuple):
    """What one call has moved, and how long it waited."""

    bytes_sent: int
    bytes_received: int
    wait_s: float


class Pending(NamedTuple):
    """A peer that is waited for: whether it holds things up by itself, and since when it has not moved."""

    peer: int
    own_debt: bool
    since_s: float


def suspects(pending: Sequence[Pending]) -> Sequence[Pending]:
    """Leave out the peers that cannot go on before another one has sent its part, unless there are no others."""
    return [wait for wait in pending if wait.own_debt] or pending


def silent_peers(pending: Sequence[Pending], now_s: float, deadline_s: float) -> tuple[int, ...]:
    """Return the peers to blame for a missed deadline, the longest silent first; empty as long as there are none."""
    late = [wait for wait in suspects(pending) if now_s - wait.since_s >= deadline_s]
    return tuple(wait.peer for wait in sorted(late, key=lambda wait: wait.since_s))


class Exchange:
    """One call: run the queues of all links until they are empty. Raises CollectiveError."""

    def __init__(
        self,
        links: Mapping[int, Link],
        wakeup: Wakeup,
        abort_reason: Callable[[], str | None],
        *,
        call: Call,
        deadline_s: float,
        advance: Callable[[], bool] | None = None,
    ) -> None:
        self._links = list(links.values())
        self._by_descriptor = {link.sock.fileno(): link for link in self._links}
        self._wakeup = wakeup
        self._abort_reason = abort_reason
        self._call = call
        self._deadline_s = deadline_s
        self._advance = advance
        self._sent = self._received = 0
        self._wait_s = 0.0

    def run(self) -> Traffic:
        """Move everything; returns when the last byte is taken by the system or received."""
        now_s = time.monotonic()
        for link in self._links:
            link.since_s = now_s
        ready = self._links
        while True:
            moved = [link for link in ready if self._move(link)]
            advanced = self._advance is not None and self._advance()
            if advanced:
                moved = self._release()
            elif not any(link.busy for link in self._links):
                return Traffic(self._sent, self._received, self._wait_s)
            if (reason := self._abort_reason()) is not None:
                raise Aborted(self._call, reason, self._unresponsive())
            ready = moved if moved or advanced else self._wait()

    def _release(self) -> list[Link]:
        """More results may be sent: whoever can take some owes us that from now on."""
        now_s = time.monotonic()
        for link in self._links:
            link.since_s = max(link.since_s, now_s)
        return self._links

    def _move(self, link: Link) -> bool:
        sent, received = self._send(link), self._receive(link)
        self._sent += sent
        self._received += received
        if sent:
            instruments.fault_point("sending")
        if received:
            instruments.fault_point("receiving")
        if sent or received:
            link.since_s = time.monotonic()
        return bool(sent or received)

    def _send(self, link: Link) -> int:
        total = 0
        while link.can_send():
            cursor = link.outgoing[0]
            try:
                count = link.sock.sendmsg(cursor.window(MAX_MOVE_BYTES))
            except BlockingIOError:
                break
            except OSError as error:
                self._sending_failed(link, error)
                break
            total += count
            cursor.advance(count)
            if cursor.done == cursor.total:
                link.outgoing.popleft()
            if total >= MAX_MOVE_BYTES:
                break
        return total

    def _sending_failed(self, link: Link, error: OSError) -> None:
        """The peer takes nothing more; what it sent before may still say why, so all of that is read first."""
        link.send_failure = str(error)
        farewell = header_of(self._call, Kind.FAREWELL, 0, 0)
        link.incoming.append(Incoming(farewell, lambda _: []))

    def _receive(self, link: Link) -> int:
        total = 0
        while link.incoming and total < MAX_MOVE_BYTES:
            frame = link.incoming[0]
            cursor = frame.start if frame.body is None else frame.body
            if cursor.done < cursor.total:
                try:
                    count = link.sock.recvmsg_into(cursor.window(MAX_MOVE_BYTES))[0]
                except BlockingIOError:
                    break
                except OSError as error:
                    raise self._lost(link, link.send_failure or str(error)) from error
                if count == 0:
                    raise self._lost(link, "it closed the connection")
                total += count
                cursor.advance(count)
                if frame.tokens is not None and cursor is frame.body:
                    frame = self._watch_for_farewell(link, frame, count)
            if frame.body is None and frame.start.done == HEADER_BYTES:
                frame.body = Cursor(self._open(link, frame))
            if frame.complete:
                self._finish(link, frame)
        return total

    def _watch_for_farewell(self, link: Link, frame: Incoming, count: int) -> Incoming:
        """Return the frame to go on with: a farewell if the last `count` tokens contain the mark of one."""
        tokens, done = frame.tokens or b"", frame.body_bytes
        at = tokens.find(Token.LEFT, done - count, done)
        if at < 0:
            return frame
        farewell = Incoming(frame.header, frame.place, own_debt=frame.own_debt)
        head, rest = tokens[at + 1 : at + 1 + HEADER_BYTES], tokens[at + 1 + HEADER_BYTES : done]
        head, rest = head[: done - at - 1], rest[:MAX_FAREWELL_BYTES]
        farewell.start_memory[: len(head)] = head
        farewell.start.advance(len(head))
        if len(head) == HEADER_BYTES:
            farewell.body = Cursor(self._open(link, farewell))
            if farewell.farewell is None or len(rest) > farewell.body.total:
                raise self._refuse(link, "something else than a farewell follows the mark of one")
            farewell.farewell[: len(rest)] = rest
            farewell.body.advance(len(rest))
        link.incoming[0] = farewell
        return farewell

    def _open(self, link: Link, frame: Incoming) -> Sequence[memoryview]:
        """Compare a header with the one expected; return where the payload goes."""
        if frame.start_memory == frame.header_bytes:
            return frame.place(frame.header.length)
        try:
            header = Header.unpack(frame.start_memory)
        except ValueError as error:
            raise self._refuse(link, str(error)) from None
        expected = frame.header
        if header.kind is Kind.FAREWELL:
            if header.length > MAX_FAREWELL_BYTES:
                raise self._refuse(link, f"a farewell of {header.length} bytes")
            frame.farewell = bytearray(header.length)
            return [memoryview(frame.farewell)]
        if header.generation != expected.generation:
            raise self._refuse(link, f"it is of generation {header.generation}")
        if (header.sequence, header.kind.call) != (expected.sequence, expected.kind.call):
            own, theirs = (f"{each.kind.call} {each.sequence}" for each in (expected, header))
            raise ProtocolError.out_of_step(self._call, link.peer, own, theirs)
        if header.kind is not expected.kind or header.agreement != expected.agreement:
            raise self._refuse(
                link, "the two do not agree on the microbatches present, their assignment or the layout of the vector"
            )
        if header.length > expected.length or (header.length < expected.length and not frame.at_most):
            bound = "at most " if frame.at_most else ""
            raise self._refuse(link, f"{header.length} bytes announced where {bound}{expected.length} are expected")
        return frame.place(header.length)

    def _finish(self, link: Link, frame: Incoming) -> None:
        if frame.farewell is not None:
            raise self._lost(link, f"it stopped: {unpack_farewell(frame.farewell)}", self._unresponsive())
        link.incoming.popleft()
        now_s = time.monotonic()
        for other in self._links:  # whoever waited for this part could not move before
            if other.incoming and not other.incoming[0].own_debt:
                other.since_s = now_s

    def _unresponsive(self) -> tuple[int, ...]:
        """The peers of which nothing has come for half the deadline, although they could send."""
        return silent_peers(self._pending(), time.monotonic(), self._deadline_s / 2)

    def _pending(self) -> list[Pending]:
        """What each peer owes us."""
        return [
            Pending(link.peer, link.can_send() or link.incoming[0].own_debt, link.since_s)
            for link in self._links
            if link.incoming or link.can_send()
        ]

    def _wait(self) -> list[Link]:
        """Sleep until a socket can move; raise PeerError if a peer's deadline passes meanwhile."""
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        for link in self._links:
            mask = (select.POLLIN if link.incoming else 0) | (select.POLLOUT if link.can_send() else 0)
            if mask:
                poll.register(link.sock, mask)
        waiting = self._pending()
        started_s, began_s = time.monotonic(), time.perf_counter()
        silent = silent_peers(waiting, started_s, self._deadline_s)
        if silent:
            raise self._silent(silent)
        timeout_s = min(wait.since_s for wait in suspects(waiting)) + self._deadline_s - started_s
        events = _poll_briefly(poll, started_s + SPIN_S) or poll.poll(max(1.0, timeout_s * 1000.0))
        self._wait_s += time.monotonic() - started_s
        instruments.note("wait", began_s)
        return [self._by_descriptor[descriptor] for descriptor, _ in events if descriptor in self._by_descriptor]

    def _silent(self, peers: tuple[int, ...]) -> PeerError:
        link = next(link for link in self._links if link.peer == peers[0])
        frame = link.incoming[0] if link.incoming else None
        doing = f"waiting for its {frame.header.kind.name.lower()}" if frame is not None else "sending to it"
        return PeerError.silent(self._call, peers, self._deadline_s, doing)

    def _lost(self, link: Link, reason: str, unresponsive: tuple[int, ...] = ()) -> PeerError:
        also = tuple(other.peer for other in self._links if other is not link and _is_closed(other.sock))
        return PeerError.lost(self._call, link.peer, reason, also=also, unresponsive=unresponsive)

    def _refuse(self, link: Link, detail: str) -> ProtocolError:
        return ProtocolError.frame(self._call, link.peer, detail)


def _poll_briefly(poll: select.poll, until_s: float) -> list[tuple[int, int]]:
    """Return what is ready before `until_s`, without sleeping; others who want the processor have it meanwhile."""
    while not (events := poll.poll(0)) and time.monotonic() < until_s:
        os.sched_yield()
    return events


def _is_closed(sock: socket.socket) -> bool:
    """Whether the peer has closed or reset this connection."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))


def say_farewell(links: Mapping[int, Link], call: Call, reason: str) -> None:
    """Tell every peer why this worker stops, where no other frame is half sent, then close all connections."""
    payload = pack_farewell(reason)
    header = header_of(call, Kind.FAREWELL, 0, len(payload)).pack()
    for link in links.values():
        with contextlib.suppress(OSError):
            sending = link.outgoing[0] if link.outgoing else None
            if sending is None or sending.done == 0:
                link.sock.send(header + payload)
            elif sending.of_tokens and sending.done >= HEADER_BYTES:
                link.sock.send(bytes([Token.LEFT]) + header + payload)
            link.sock.shutdown(socket.SHUT_RDWR)
        link.sock.close()
