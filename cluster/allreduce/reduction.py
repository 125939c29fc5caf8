"""One worker's part in the all-reduces of one layout and assignment: what it sends, receives and adds, and when.

With P workers the vector is cut into P slices. Between rank r and every peer p travel:

    r sends      NODES   r's nodes, of each slice p         r receives   NODES   p's nodes, of each slice r
                 SUM     slice r, as it is summed                        SUM     slice p, straight into the result

Slice r is summed block by block as soon as a block of all nodes is there, and what is summed is let go at once; so
sending, receiving and adding go on side by side. A small vector is one slice for everybody, and there is no SUM. With
peers on the same host both ways lead through shared memory, and the connection carries a byte for each block.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from ..errors import Call
from ..tree import Node
from ..vectors import BLOCK_BYTES, Layout, Vector, check_vectors
from .exchange import Connection
from .frames import HEADER_BYTES, Header, Incoming, Kind, Outgoing, bytes_of
from .shared_memory import ENTRY_BYTES, SharedMemory, ShmChannel
from .slices import (
    Expected,
    Scratch,
    SliceSum,
    Source,
    SumSpec,
    blocks_of,
    common_bytes,
    copy_pieces,
    cut,
    first_bytes,
    goes_whole,
    num_bytes,
    slice_layout,
    take,
    whole,
)

# Blocks are small enough that a slice has a few, so that workers add while others still copy, and no smaller than this.
MIN_BLOCK_BYTES = 1 << 17
BLOCKS_PER_SLICE = 2


class Reduction:
    """Planned once, started in every call; between calls it keeps the memory in which nodes arrive.

    Peers on other hosts get and send bytes; those on this host find blocks in shared memory, through a `ShmChannel`.

    Args:
        rank: this worker.
        spec: what is summed.
        memory: shared with the peers on this host.
        scratch: for arriving nodes.

    Raises:
        ValueError: the arguments contradict each other.
    """

    def __init__(
        self,
        rank: int,
        spec: SumSpec,
        memory: SharedMemory | None,
        scratch: Scratch,
    ) -> None:
        expected, layout = spec.expected, spec.layout
        check_vectors([], layout, spec.ops)
        self._rank, self._expected, self._checksum = rank, expected, spec.checksum
        self._goes_whole = goes_whole(layout, expected)
        self._parts = [whole(layout)] * len(expected) if self._goes_whole else cut(layout, len(expected))
        self._layout = slice_layout(layout, self._parts[rank])
        self._slice_bytes = num_bytes(self._layout, whole(self._layout))
        peers = () if memory is None or self._goes_whole else memory.peers
        block_bytes = shared_block_bytes(layout, expected) if peers else 0
        blocks = [blocks_of(slice_layout(layout, part), block_bytes or BLOCK_BYTES) for part in self._parts]
        self._blocks = blocks[rank]
        self._total = SliceSum([node for nodes in expected for node in nodes], spec.ops, self._layout, self._blocks)
        self._channels: dict[int, ShmChannel] = {}
        if memory is not None and block_bytes:
            self._own_sums = memory.own_sums()
            for peer in peers:
                self._channels[peer] = ShmChannel(
                    memory,
                    peer,
                    blocks=blocks[peer],
                    own_blocks=self._blocks,
                    num_peer_nodes=len(expected[peer]),
                )
        self._inboxes = {
            peer: [scratch.vector((peer, place), self._layout) for place in range(len(nodes))]
            for peer, nodes in enumerate(expected)
            if peer != rank and peer not in self._channels
        }
        self.reduce_s = 0.0

    def start(
        self, call: Call, connections: Mapping[int, Connection], nodes: Mapping[Node, Vector], out: Vector
    ) -> None:
        """Begin a call: queue this worker's nodes for their owners and the others' for its slice, then the sums.

        Args:
            call: which.
            connections: to all peers; frames are appended to their queues.
            nodes: this worker's partial sums.
            out: memory of the result.
        """
        self._call, self.reduce_s = call, 0.0
        self._arrivals: list[tuple[Incoming, int]] = []
        self._sums: list[Outgoing] = []
        self._own_slice = take(out, self._parts[self._rank])
        own = [nodes[node] for node in self._expected[self._rank]]
        for peer, connection in connections.items():
            part = self._parts[peer]
            self._queue(connection, [take(vector, part) for vector in own], take(out, part))
        self._total.start(self._inputs([take(vector, self._parts[self._rank]) for vector in own]), self._own_slice)
        self._release()
        if self._channels:
            self.advance()

    def advance(self) -> bool:
        """Sum and copy what can be; with shared memory one block at a time, so that peers learn of each at once.

        Returns:
            whether that was anything.

        Raises:
            ProtocolError: a peer announced blocks that cannot be.
        """
        began_s = time.perf_counter()
        channels = self._channels.values()
        for channel in channels:
            channel.listen()
        moved = [channel.stage() for channel in channels]
        num_done = self._total.num_done
        if self._total.advance(self._available_bytes(), 1 if self._channels else None):
            moved.append(True)
            self._share(num_done)
            self._release()
        moved += [channel.collect() for channel in channels]
        if not any(moved):
            return False
        self.reduce_s += time.perf_counter() - began_s
        return True

    def finish(self) -> tuple[int, int]:
        """Let go of the vectors' memory; returns how many bytes went through shared memory, given and taken."""
        channels = self._channels.values()
        moved = sum(each.bytes_sent for each in channels), sum(each.bytes_received for each in channels)
        self._total.forget()
        for channel in channels:
            channel.forget()
        self._own_slice, self._arrivals, self._sums = (), [], []
        return moved

    def _queue(self, connection: Connection, nodes: Sequence[Vector], out: Vector) -> None:
        """Queue what goes to and comes from a peer, of whose slice these are this worker's nodes and the result."""
        if channel := self._channels.get(connection.peer):
            channel.start(self._call, self._checksum, nodes, out)
            connection.outgoing.append(channel.outgoing)
            connection.incoming.append(channel.incoming)
            return
        kind, inbox = Kind.WHOLE_NODES if self._goes_whole else Kind.NODES, self._inboxes[connection.peer]
        connection.outgoing.append(self._outgoing(kind, nodes))
        connection.incoming.append(self._incoming(kind, inbox))
        self._arrivals.append((connection.incoming[-1], len(inbox)))
        if not self._goes_whole:
            self._sums.append(self._outgoing(Kind.SUM, [self._own_slice], limit=0))
            connection.outgoing.append(self._sums[-1])
            connection.incoming.append(self._incoming(Kind.SUM, [out]))

    def _inputs(self, own: Sequence[Vector]) -> list[Vector | Source]:
        """Where the nodes of all workers lie, by rank and in order; `own` are this worker's."""
        inputs: list[Vector | Source] = []
        for rank, nodes in enumerate(self._expected):
            if channel := self._channels.get(rank):
                inputs += [channel.source(place) for place in range(len(nodes))]
            else:
                inputs += own if rank == self._rank else self._inboxes[rank]
        return inputs

    def _available_bytes(self) -> int:
        """How much of this worker's slice is here for every node."""
        received = [(frame.body_bytes, count) for frame, count in self._arrivals]
        shared = [first_bytes(self._blocks, channel.num_nodes_here) for channel in self._channels.values()]
        return min([common_bytes(received, self._slice_bytes), *shared])

    def _share(self, first: int) -> None:
        """Put the blocks from `first` on, just summed, where peers on this host find them."""
        if self._channels:
            for number in range(first, self._total.num_done):
                block = self._blocks[number]
                copy_pieces(self._own_sums.arrays(number, block), block.of(self._own_slice))
                for channel in self._channels.values():
                    channel.tell_sum()

    def _release(self) -> None:
        """Let go the bytes of the sum that are ready."""
        if self._total.num_done or self._total.is_finished:
            for frame in self._sums:
                frame.limit = HEADER_BYTES + self._total.done_bytes

    def _outgoing(self, kind: Kind, vectors: Iterable[Vector], limit: int | None = None) -> Outgoing:
        pieces = _bytes(vectors)
        return Outgoing(Header.of(self._call, kind, self._checksum, sum(map(len, pieces))), pieces, limit)

    def _incoming(self, kind: Kind, vectors: Iterable[Vector]) -> Incoming:
        pieces = _bytes(vectors)
        header = Header.of(self._call, kind, self._checksum, sum(map(len, pieces)))
        return Incoming(header, pieces, independent=kind is not Kind.SUM)


def shared_block_bytes(layout: Layout, expected: Expected) -> int:
    """Return how much of a node one entry of shared memory takes, the same on all workers; 0 if there are too many."""
    room = ENTRY_BYTES // max(len(nodes) for nodes in expected) // 64 * 64
    # A slice's buckets begin on cache lines of their own; a last block for the few bytes of that would cost a round.
    slice_bytes = num_bytes(layout, whole(layout)) // len(expected) + 2 * 64 * len(layout)
    wanted = -(-slice_bytes // BLOCKS_PER_SLICE // 64) * 64
    return min(room, max(wanted, MIN_BLOCK_BYTES)) if room >= MIN_BLOCK_BYTES // 8 else 0


def _bytes(vectors: Iterable[Vector]) -> list[memoryview]:
    return [bytes_of(bucket) for vector in vectors for bucket in vector]
