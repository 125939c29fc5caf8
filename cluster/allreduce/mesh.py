"""The all-reduce over TCP: `TcpMesh`, one connection between every two workers; those of one host also share memory.

    listener = Listener("10.0.0.5")                    # on every worker; addresses go to the driver and back to all
    mesh = connect(listener, rank=0, addresses=[...], generation=3, secret=..., timeout_s=30.0, deadline_s=60.0)

A call that raises ends the mesh: it says farewell to the peers, closes its connections, and they raise PeerError at
once. After an error no connection is used again; the next generation makes new ones.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..errors import Aborted, Call
from ..tree import BucketOp, Layout, Node, Vector, empty_vector
from .collective import (
    MAX_CONTROL_BYTES,
    Collective,
    CollectiveStatistics,
    check_own,
    check_payload,
    check_sequence,
)
from .exchange import Exchange, Incoming, Link, say_farewell
from .listener import Listener
from .plan import Plan, Plans
from .reduction import Reduction
from .rendezvous import meet
from .shared import SharedMemory, make_shared_memory
from .wakeup import Wakeup
from .wire import Cursor, Kind, header_of

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
    share_memory: bool = True,
) -> TcpMesh:
    """Connect with all other workers of a generation; returns when this worker has all its connections.

    `addresses[rank]` is the address of each worker's listener, `secret` (16 bytes or more) is known to the run's
    workers only. `timeout_s` bounds this call, `deadline_s` later waits for a peer that does not move. The listener
    stays open. Workers of one host share memory if all of this works there; `share_memory=False` keeps this worker out.
    Raises PeerError or Aborted; ValueError for arguments.
    """
    if deadline_s <= 0:
        raise ValueError(f"deadline_s must be positive, got {deadline_s}")
    memory = make_shared_memory(rank, len(addresses)) if share_memory and len(addresses) > 1 else None
    try:
        sockets = meet(
            listener,
            rank=rank,
            addresses=addresses,
            generation=generation,
            secret=secret,
            timeout_s=timeout_s,
            memory=memory,
        )
    except BaseException:
        if memory is not None:
            memory.close()
        raise
    return TcpMesh(sockets, rank=rank, generation=generation, deadline_s=deadline_s, memory=memory)


class TcpMesh(Collective):
    """All-reduce and broadcast over ready connections; made by `connect`."""

    def __init__(
        self,
        sockets: Mapping[int, socket.socket],
        *,
        rank: int,
        generation: int,
        deadline_s: float,
        memory: SharedMemory | None = None,
    ) -> None:
        self.rank, self.num_workers, self.generation = rank, len(sockets) + 1, generation
        self._links = {peer: Link(peer, sock) for peer, sock in sorted(sockets.items())}
        self._deadline_s = deadline_s
        self._wakeup = Wakeup()
        self._abort_reason: str | None = None
        self._ended: str | None = None
        self._last_sequence: int | None = None
        self._memory = memory
        self._plans = Plans(rank, self.num_workers, self.sharing)
        self._calls = self._bytes_sent = self._bytes_received = self._bytes_shared = 0
        self._wait_s = self._reduce_s = 0.0

    def all_reduce(
        self,
        sequence: int,
        nodes: Mapping[Node, Vector],
        expected: Sequence[Sequence[Node]],
        like: Layout,
        *,
        ops: Sequence[BucketOp],
        out: Vector | None = None,
        deadline_s: float | None = None,
    ) -> Vector:
        """Sum all workers' nodes, slice by slice or whole (`Collective.all_reduce`, `slices.goes_whole`)."""

        with self._call(sequence) as call:
            plan = self._plans.get(expected, like, ops)
            check_own(self.rank, nodes, plan.expected[self.rank], like, ops, out)
            result = empty_vector(like) if out is None else out
            self._reduce(call, plan, nodes, result, deadline_s)
            return result

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

        with self._call(sequence) as call:
            check_payload(self, payload, root, max_bytes)
            if payload is not None:
                start = header_of(call, Kind.BROADCAST, root, len(payload)).pack()
                for link in self._links.values():
                    link.outgoing.append(Cursor([start, payload]))
                self._run(call, deadline_s, None)
                return bytes(payload)
            received: list[bytearray] = []

            def place(length: int) -> Sequence[memoryview]:
                received.append(bytearray(length))
                return [memoryview(received[0])]

            header = header_of(call, Kind.BROADCAST, root, max_bytes)
            self._links[root].incoming.append(Incoming(header, place, at_most=True))
            self._run(call, deadline_s, None)
            return bytes(received[0])

    def abort(self, reason: str) -> None:
        """End the wait of a blocked call with Aborted, and forbid every later one; from any thread."""
        if self._abort_reason is None:
            self._abort_reason = reason
        self._wakeup.set()

    def close(self) -> None:
        """Say farewell and close all connections; not while another thread is in a call (abort that one first)."""
        self._end(Call(self.rank, self.generation, self._last_sequence), "the worker closed its connections")

    @property
    def sharing(self) -> tuple[int, ...]:
        """The peers with which this worker shares memory."""
        return tuple(sorted(() if self._memory is None else self._memory.peers))

    def statistics(self) -> CollectiveStatistics:
        """Return counters since the mesh was made."""
        return CollectiveStatistics(
            calls=self._calls,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            bytes_shared=self._bytes_shared,
            wait_s=self._wait_s,
            reduce_s=self._reduce_s,
        )

    @contextlib.contextmanager
    def _call(self, sequence: int) -> Iterator[Call]:
        """Make a call in the block if the mesh is still alive; whatever the block raises ends the mesh."""
        call = Call(self.rank, self.generation, sequence)
        ended = self._abort_reason or (self._ended and f"the mesh has ended before: {self._ended}")
        try:
            if ended:
                raise Aborted(call, ended)
            check_sequence(sequence, self._last_sequence)
            self._last_sequence = sequence
            yield call
        except BaseException as error:
            self._end(call, f"{type(error).__name__}: {error}")
            raise
        self._calls += 1

    def _end(self, call: Call, reason: str) -> None:
        if self._ended is None:
            self._ended = reason
            say_farewell(self._links, call, reason)
            self._wakeup.close()
            for link in self._links.values():  # what was under way holds on to shared memory
                link.outgoing.clear()
                link.incoming.clear()
            if self._memory is not None:
                self._memory.close()

    def _run(self, call: Call, deadline_s: float | None, advance: Callable[[], bool] | None) -> None:
        traffic = Exchange(
            self._links,
            self._wakeup,
            lambda: self._abort_reason,
            call=call,
            deadline_s=self._deadline_s if deadline_s is None else deadline_s,
            advance=advance,
        ).run()
        self._bytes_sent += traffic.bytes_sent
        self._bytes_received += traffic.bytes_received
        self._wait_s += traffic.wait_s

    def _reduce(
        self, call: Call, plan: Plan, nodes: Mapping[Node, Vector], out: Vector, deadline_s: float | None
    ) -> None:
        reduction = Reduction(plan, self._links, self._memory, call, nodes, out)
        try:
            self._run(call, deadline_s, reduction.advance)
        finally:
            reduction.finish()
        self._bytes_sent += reduction.lanes.bytes_sent
        self._bytes_shared += reduction.lanes.bytes_sent
        self._bytes_received += reduction.lanes.bytes_received
        self._reduce_s += reduction.reduce_s
