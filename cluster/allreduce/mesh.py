"""The all-reduce over TCP: `TcpMesh`, one connection between every two workers; those of one host also share memory.

    listener = Listener("10.0.0.5")                    # on every worker; addresses go to the driver and back to all
    peers = Peers(rank=0, addresses=[...], generation=3, secret=...)
    mesh = connect(listener, peers, timeout_s=30.0, deadline_s=60.0)
    total = mesh.all_reduce(0, nodes, SumSpec.of(expected, layout, ops=("sum",)))

Reduce-scatter and all-gather: every worker owns 1/P of the vector, receives the other workers' tree nodes for that
slice, adds them in tree order, and sends the sum to all. Each byte crosses a connection once, 2 (P - 1)/P of the vector
per worker where each brings one node, which is the least there can be. Small vectors go whole to everybody, in one
round. The parts: who sums which slice (`slices.py`), one worker's part in it (`reduction.py`), frames to and from all
peers at once (`exchange.py`), blocks in shared memory (`shared_memory.py`).

What was not done, and why:

- A ring (Patarasuk and Yuan, 2009) moves as few bytes, in 2 (P - 1) rounds instead of two, and adds in the order of the
  ring: its bits depend on who is where.
- Recursive halving and doubling (Rabenseifner, 2004) takes 2 log2(P) rounds and adds along a tree of ranks, which is
  not ours: ranks change with every loss. Messages along our tree would gain at most 2.5 ms of a step on 64 machines
  (docs/explanation/benchmarks/all-reduce.md).
- gloo and NCCL can neither add in our tree nor lose a member and go on with the others; on loopback, plain sockets with
  numpy were faster than gloo at every size. TensorFlow's collectives have an order of their own as well, and a server
  that takes commands from anybody.
- Adding up on each host first: `MirroredStrategy` does it inside of a worker, so one worker per machine with all of its
  devices sends as little.
- Encryption. The handshake keeps strangers and mistakes out; who can change the network's traffic is not kept out.

After an error no connection is used again: the mesh says goodbye to its peers, closes its connections, and they raise
PeerError at once. The next generation makes new ones.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from ..errors import Call
from ..tree import Node
from ..vectors import Vector, empty_vector
from .collective import Collective, CollectiveStatistics
from .connect import sockets_to
from .exchange import Connection, Exchange, say_goodbye
from .frames import Header, Incoming, Kind, Outgoing
from .handshake import Peers
from .listener import Listener, Wakeup
from .reduction import Reduction
from .shared_memory import SharedMemory, make_shared_memory
from .slices import Scratch, SumSpec

MAX_REDUCTIONS = 16


def connect(
    listener: Listener, peers: Peers, *, timeout_s: float, deadline_s: float, share_memory: bool = True
) -> TcpMesh:
    """Connect with all other workers of a generation.

    Args:
        listener: this worker's; it stays open.
        peers: who they are.
        timeout_s: bounds this call, in seconds.
        deadline_s: bounds later waits for a peer that does not move, in seconds.
        share_memory: whether to share memory with workers of the same host, where all of this works.

    Returns:
        the connections, as soon as this worker has all of its own.

    Raises:
        PeerError: a peer did not come, or could not prove that it belongs to the run.
        Aborted: `listener.abort` was called for this generation.
        ValueError: a time is not positive.
    """
    if deadline_s <= 0:
        raise ValueError(f"deadline_s must be positive, got {deadline_s}")
    memory = make_shared_memory(peers.rank, len(peers.addresses)) if share_memory else None
    try:
        sockets = sockets_to(listener, peers, timeout_s, memory)
    except BaseException:
        if memory is not None:
            memory.close()
        raise
    return TcpMesh(sockets, rank=peers.rank, generation=peers.generation, deadline_s=deadline_s, memory=memory)


class TcpMesh(Collective):
    """All-reduce and broadcast over ready connections; made by `connect`.

    Args:
        sockets: to every peer, by rank; they belong to the mesh from now on.
        rank: of this worker.
        generation: of the group.
        deadline_s: how long to wait for a peer that does not move, in seconds.
        memory: shared with peers on this host; belongs to the mesh from now on.
    """

    def __init__(
        self,
        sockets: Mapping[int, socket.socket],
        *,
        rank: int,
        generation: int,
        deadline_s: float,
        memory: SharedMemory | None = None,
    ) -> None:
        super().__init__(rank=rank, num_workers=len(sockets) + 1, generation=generation)
        self._connections = {peer: Connection(peer, sock) for peer, sock in sorted(sockets.items())}
        self._deadline_s, self._memory = deadline_s, memory
        self._sharing = () if memory is None else memory.peers
        self._wakeup = Wakeup()
        self._is_closed = False
        self._scratch = Scratch()
        self._reductions: dict[SumSpec, Reduction] = {}
        self._bytes_sent = self._bytes_received = self._bytes_shared = 0
        self._wait_s = self._reduce_s = 0.0

    def abort(self, reason: str) -> None:
        """See `Collective.abort`."""
        super().abort(reason)
        self._wakeup.set(reason)

    def statistics(self) -> CollectiveStatistics:
        """See `Collective.statistics`."""
        return CollectiveStatistics(
            calls=self._num_calls,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            bytes_shared=self._bytes_shared,
            wait_s=self._wait_s,
            reduce_s=self._reduce_s,
            sharing=self._sharing,
        )

    def _all_reduce(
        self,
        call: Call,
        nodes: Mapping[Node, Vector],
        spec: SumSpec,
        out: Vector | None,
        deadline_s: float | None,
    ) -> Vector:
        reduction = self._reduction(spec)
        result = empty_vector(spec.layout) if out is None else out
        reduction.start(call, self._connections, nodes, result)
        try:
            self._exchange(call, deadline_s, reduction)
        finally:
            given, taken = reduction.finish()
        self._bytes_sent += given
        self._bytes_shared += given
        self._bytes_received += taken
        self._reduce_s += reduction.reduce_s
        return result

    def _broadcast(
        self, call: Call, payload: bytes | memoryview | None, root: int, max_bytes: int, deadline_s: float | None
    ) -> memoryview:
        """Straight from the root to everybody."""
        if payload is not None:
            header = Header.of(call, Kind.BROADCAST, root, len(payload))
            for connection in self._connections.values():
                connection.outgoing.append(Outgoing(header, [payload]))
            self._exchange(call, deadline_s)
            return memoryview(payload)
        arrival = Incoming(Header.of(call, Kind.BROADCAST, root, max_bytes), None)
        self._connections[root].incoming.append(arrival)
        self._exchange(call, deadline_s)
        return arrival.payload

    def _reduction(self, spec: SumSpec) -> Reduction:
        """This worker's part in such all-reduces; the oldest ones are forgotten."""
        if spec not in self._reductions:
            if len(self._reductions) == MAX_REDUCTIONS:
                del self._reductions[next(iter(self._reductions))]
            self._reductions[spec] = Reduction(self.rank, spec, self._memory, self._scratch)
        return self._reductions[spec]

    def _exchange(self, call: Call, deadline_s: float | None, reduction: Reduction | None = None) -> None:
        """Run the queues of all connections until they are empty, and add up what has come in between."""
        limit_s = self._deadline_s if deadline_s is None else deadline_s
        exchange = Exchange(self._connections, self._wakeup, call, limit_s)
        ready = exchange.connections
        while True:
            ready = exchange.move(ready)
            if reduction is not None and reduction.advance():
                ready = exchange.release()
            elif exchange.is_done:
                break
            elif not ready:
                ready = exchange.wait()
        self._bytes_sent += exchange.bytes_sent
        self._bytes_received += exchange.bytes_received
        self._wait_s += exchange.wait_s

    def _end(self, call: Call, reason: str) -> None:
        super()._end(call, reason)
        if self._is_closed:
            return
        self._is_closed = True
        say_goodbye(self._connections, call, reason)
        self._wakeup.close()
        for connection in self._connections.values():  # what was under way holds on to shared memory
            connection.outgoing.clear()
            connection.incoming.clear()
        self._reductions.clear()
        if self._memory is not None:
            self._memory.close()
