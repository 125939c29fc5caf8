"""The all-reduce over TCP: `TcpMesh`, one connection between every two workers.

    listener = Listener("10.0.0.5")                    # on every worker; addresses go to the driver and back to all
    mesh = connect(listener, rank=0, addresses=[...], generation=3, secret=..., timeout_s=30.0, deadline_s=60.0)

A call that raises ends the mesh: it says farewell to the peers, closes its connections, and they raise PeerLost at
once. After an error no connection is used again; the next generation makes new ones.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from .collective import (
    MAX_CONTROL_BYTES,
    Collective,
    CollectiveStatistics,
    check_own,
    check_payload,
    check_sequence,
)
from .errors import Aborted
from .exchange import Exchange, Incoming, Link, say_farewell
from .listener import Listener
from .plan import Plan, Plans
from .rendezvous import meet
from .slices import common_bytes, take
from .tree import Layout, Node, SegmentOp, Vector, empty_vector
from .wakeup import Wakeup
from .wire import HEADER_BYTES, Cursor, Header, Kind, bytes_of

_T = TypeVar("_T")

__all__ = ["Listener", "TcpMesh", "connect"]


def connect(
    listener: Listener,
    *,
    rank: int,
    addresses: Sequence[tuple[str, int]],
    generation: int,
    secret: bytes,
    timeout_s: float,
    deadline_s: float,
) -> TcpMesh:
    """Connect with all other workers of a generation; returns when this worker has all its connections.

    `addresses[rank]` is the address of each worker's listener, `secret` (16 bytes or more) is known to the run's
    workers only. `timeout_s` bounds this call, `deadline_s` later waits for a peer that does not move. The listener
    stays open. Raises PeerLost, PeerSilent, HandshakeError, GenerationMismatch or Aborted; ValueError for arguments.
    """
    if deadline_s <= 0:
        raise ValueError(f"deadline_s must be positive, got {deadline_s}")
    sockets = meet(listener, rank=rank, addresses=addresses, generation=generation, secret=secret, timeout_s=timeout_s)
    return TcpMesh(sockets, rank=rank, generation=generation, deadline_s=deadline_s)


class TcpMesh(Collective):
    """All-reduce and broadcast over ready connections; made by `connect`."""

    def __init__(self, sockets: Mapping[int, socket.socket], *, rank: int, generation: int, deadline_s: float) -> None:
        self.rank, self.num_workers, self.generation = rank, len(sockets) + 1, generation
        self._links = {peer: Link(peer, sock) for peer, sock in sorted(sockets.items())}
        self._deadline_s = deadline_s
        self._wakeup = Wakeup()
        self._abort_reason: str | None = None
        self._ended: str | None = None
        self._last_sequence: int | None = None
        self._plans = Plans(self.rank, self.num_workers)
        self._calls = self._bytes_sent = self._bytes_received = 0
        self._wait_s = self._reduce_s = 0.0

    def all_reduce(
        self,
        sequence: int,
        nodes: Mapping[Node, Vector],
        expected: Sequence[Sequence[Node]],
        like: Layout,
        *,
        ops: Sequence[SegmentOp],
        out: Vector | None = None,
        deadline_s: float | None = None,
    ) -> Vector:
        """Sum all workers' nodes, slice by slice or whole (`Collective.all_reduce`, `slices.goes_whole`)."""

        def call() -> Vector:
            plan = self._plans.get(expected, like, ops)
            check_own(self.rank, nodes, plan.expected[self.rank], like, ops, out)
            result = empty_vector(like) if out is None else out
            self._reduce(sequence, plan, nodes, result, deadline_s)
            return result

        return self._guard(sequence, call)

    def broadcast(
        self,
        sequence: int,
        payload: bytes | None,
        root: int = 0,
        max_bytes: int = MAX_CONTROL_BYTES,
        *,
        deadline_s: float | None = None,
    ) -> bytes:
        """Send the root's payload to everybody, straight from the root (`Collective.broadcast`)."""

        def call() -> bytes:
            check_payload(self, payload, root, max_bytes)
            if payload is not None:
                start = self._header(Kind.BROADCAST, sequence, root, len(payload)).pack()
                for link in self._links.values():
                    link.outgoing.append(Cursor([start, payload]))
                self._run(sequence, deadline_s, None)
                return bytes(payload)
            received: list[bytearray] = []

            def place(length: int) -> Sequence[memoryview]:
                received.append(bytearray(length))
                return [memoryview(received[0])]

            header = self._header(Kind.BROADCAST, sequence, root, max_bytes)
            self._links[root].incoming.append(Incoming(header, place, at_most=True))
            self._run(sequence, deadline_s, None)
            return bytes(received[0])

        return self._guard(sequence, call)

    def abort(self, reason: str) -> None:
        """End the wait of a blocked call with Aborted, and forbid every later one; from any thread."""
        if self._abort_reason is None:
            self._abort_reason = reason
        self._wakeup.set()

    def close(self) -> None:
        """Say farewell and close all connections; not while another thread is in a call (abort that one first)."""
        self._end(self._last_sequence or 0, "the worker closed its connections")

    def statistics(self) -> CollectiveStatistics:
        """Return counters since the mesh was made."""
        return CollectiveStatistics(
            calls=self._calls,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            wait_s=self._wait_s,
            reduce_s=self._reduce_s,
        )

    def _guard(self, sequence: int, call: Callable[[], _T]) -> _T:
        """Make one call if the mesh is still alive; whatever it raises ends the mesh."""
        ended = self._abort_reason or (self._ended and f"the mesh has ended before: {self._ended}")
        try:
            if ended:
                raise Aborted(rank=self.rank, generation=self.generation, sequence=sequence, reason=ended)
            check_sequence(sequence, self._last_sequence)
            self._last_sequence = sequence
            result = call()
        except BaseException as error:
            self._end(sequence, error)
            raise
        self._calls += 1
        return result

    def _end(self, sequence: int, error: BaseException | str) -> None:
        if self._ended is None:
            self._ended = str(error)
            say_farewell(self._links, generation=self.generation, sequence=max(sequence, 0), error=error)
            self._wakeup.close()

    def _run(self, sequence: int, deadline_s: float | None, advance: Callable[[], bool] | None) -> None:
        traffic = Exchange(
            self._links,
            self._wakeup,
            lambda: self._abort_reason,
            rank=self.rank,
            generation=self.generation,
            sequence=sequence,
            deadline_s=self._deadline_s if deadline_s is None else deadline_s,
            advance=advance,
        ).run()
        self._bytes_sent += traffic.bytes_sent
        self._bytes_received += traffic.bytes_received
        self._wait_s += traffic.wait_s

    def _header(self, kind: Kind, sequence: int, agreement: int, length: int) -> Header:
        return Header(kind=kind, generation=self.generation, sequence=sequence, agreement=agreement, length=length)

    def _reduce(
        self, sequence: int, plan: Plan, nodes: Mapping[Node, Vector], out: Vector, deadline_s: float | None
    ) -> None:
        """Queue this worker's nodes for their owners and the others' nodes for our slice; then the sums, and run."""
        own = [nodes[node] for node in plan.expected[self.rank]]
        own_slice = take(out, plan.parts[self.rank])
        inboxes = {**plan.inboxes, self.rank: [take(vector, plan.parts[self.rank]) for vector in own]}
        arrivals: list[tuple[Incoming, int]] = []
        for peer, link in self._links.items():
            arrivals.append(
                (self._incoming(sequence, plan, plan.kind, plan.inbox_pieces[peer]), len(plan.inboxes[peer]))
            )
            link.incoming.append(arrivals[-1][0])
            outbox = [bytes_of(segment) for vector in own for segment in take(vector, plan.parts[peer])]
            link.outgoing.append(self._outgoing(sequence, plan, plan.kind, outbox))
        total = plan.total
        total.start([vector for rank in range(self.num_workers) for vector in inboxes[rank]], own_slice)
        sums = self._queue_sums(sequence, plan, own_slice, out) if plan.kind is Kind.CONTRIBUTION else []

        def release() -> None:
            for cursor in sums:
                cursor.limit = (
                    cursor.total if total.finished else total.ready_bytes and total.ready_bytes + HEADER_BYTES
                )

        def advance() -> bool:
            started_s = time.perf_counter()
            received = [(frame.body_bytes, count) for frame, count in arrivals]
            if not total.advance(common_bytes(received, plan.slice_bytes)):
                return False
            release()
            self._reduce_s += time.perf_counter() - started_s
            return True

        release()
        self._run(sequence, deadline_s, advance)
        total.forget()

    def _queue_sums(self, sequence: int, plan: Plan, own_slice: Vector, out: Vector) -> list[Cursor]:
        """Queue our finished slice for everybody, held back for now, and the others' slices straight into `out`."""
        outbox = [bytes_of(segment) for segment in own_slice]
        sums: list[Cursor] = []
        for peer, link in self._links.items():
            sums.append(self._outgoing(sequence, plan, Kind.SUM, outbox))
            link.outgoing.append(sums[-1])
            inbox = [bytes_of(segment) for segment in take(out, plan.parts[peer])]
            link.incoming.append(self._incoming(sequence, plan, Kind.SUM, inbox))
        return sums

    def _outgoing(self, sequence: int, plan: Plan, kind: Kind, pieces: Sequence[memoryview]) -> Cursor:
        return Cursor([self._header(kind, sequence, plan.agreement, sum(map(len, pieces))).pack(), *pieces])

    def _incoming(self, sequence: int, plan: Plan, kind: Kind, pieces: Sequence[memoryview]) -> Incoming:
        header = self._header(kind, sequence, plan.agreement, sum(map(len, pieces)))
        return Incoming(header, lambda _: pieces, own_debt=kind is not Kind.SUM)
