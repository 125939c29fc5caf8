"""One all-reduce under way on one worker: what it sends, what it receives, and the sums between the two."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from ..errors import Call
from ..tree import Node, Vector
from .exchange import Incoming, Link
from .lane import Lane, Lanes
from .plan import Plan
from .shared import SharedMemory
from .slices import Source, common_bytes, copy_pieces, take
from .wire import HEADER_BYTES, Cursor, Kind, bytes_of, header_of


class Reduction:
    """Queues this worker's nodes for their owners and the others' nodes for its slice, then the sums.

    Peers on other hosts get and send bytes; those on this host find blocks in shared memory, through a `Lane`.

    Args:
        plan: who sums what.
        links: the connections; frames are appended to their queues.
        memory: shared with the peers in `plan.sharing`.
        call: which call it is.
        nodes: this worker's partial sums.
        out: the result.
    """

    def __init__(
        self,
        plan: Plan,
        links: Mapping[int, Link],
        memory: SharedMemory | None,
        call: Call,
        nodes: Mapping[Node, Vector],
        out: Vector,
    ) -> None:
        self._plan, self._rank, self._call = plan, call.rank, call
        rank = call.rank
        self.lanes = Lanes(call)
        self._arrivals: list[tuple[Incoming, int]] = []
        self._sums: list[Cursor] = []
        self.reduce_s = 0.0
        own = [nodes[node] for node in plan.expected[rank]]
        self._own_slice = take(out, plan.parts[rank])
        for peer, link in links.items():
            if memory is not None and peer in plan.sharing:
                self._add_lane(memory, peer, link, own, out)
            else:
                self._add_streams(peer, link, own)
        if plan.kind is Kind.CONTRIBUTION:
            for peer, link in links.items():
                if peer not in self.lanes:
                    self._add_sums(peer, link, out)
        self._own_ring = memory.own_sums() if memory is not None and self.lanes else None
        own_inputs = [take(vector, plan.parts[rank]) for vector in own]
        inputs: list[Vector | Source] = []
        for sender, brought in enumerate(plan.expected):
            if sender in self.lanes:
                inputs += [self.lanes[sender].source(place) for place in range(len(brought))]
            elif sender == rank:
                inputs += own_inputs
            else:
                inputs += plan.inboxes[sender]
        plan.total.start(inputs, self._own_slice)
        self._release()
        if self.lanes:
            self.advance()

    def advance(self) -> bool:
        """Sum and copy what can be; with shared memory one block at a time, so that peers learn of each at once."""
        started_s = time.perf_counter()
        moved = self.lanes.listen_and_stage()
        num_done = self._plan.total.num_done
        if self._plan.total.advance(self._available_bytes(), 1 if self.lanes else None):
            moved = True
            self._publish(num_done)
            self._release()
        moved |= self.lanes.collect()
        if moved:
            self.reduce_s += time.perf_counter() - started_s
        return moved

    def finish(self) -> None:
        """Let go of the vectors' memory."""
        self._plan.total.forget()

    def _available_bytes(self) -> int:
        """How much of this worker's slice is here for every node."""
        blocks = self._plan.blocks[self._rank]
        received = [(frame.body_bytes, count) for frame, count in self._arrivals]
        streamed = common_bytes(received, self._plan.slice_bytes)
        shared = [lane.num_nodes_here for lane in self.lanes.values()]
        return min([streamed, *(blocks[number - 1].end_bytes if number else 0 for number in shared)])

    def _publish(self, first: int) -> None:
        """Put the blocks from `first` on that were just summed where peers on this host find them."""
        if self._own_ring is None:
            return
        blocks, done = self._plan.blocks[self._rank], self._plan.total.num_done
        for number in range(first, done):
            copy_pieces(self._own_ring.arrays(number, blocks[number]), blocks[number].of(self._own_slice))
        self.lanes.tell_sum()

    def _release(self) -> None:
        """Let go the bytes of the sum that are ready."""
        total, blocks = self._plan.total, self._plan.blocks[self._rank]
        ready_bytes = blocks[total.num_done - 1].end_bytes + HEADER_BYTES if total.num_done else 0
        for cursor in self._sums:
            cursor.limit = cursor.total if total.finished else ready_bytes

    def _add_lane(self, memory: SharedMemory, peer: int, link: Link, own: Sequence[Vector], out: Vector) -> None:
        plan = self._plan
        blocks, own_blocks = plan.blocks[peer], plan.blocks[self._rank]
        lane = Lane(
            memory,
            peer,
            header_of(self._call, Kind.BLOCKS, plan.agreement, len(blocks) + len(own_blocks)),
            nodes=[take(vector, plan.parts[peer]) for vector in own],
            blocks=blocks,
            own_blocks=own_blocks,
            out=take(out, plan.parts[peer]),
            num_peer_nodes=len(plan.expected[peer]),
        )
        self.lanes.add(lane, link)

    def _add_streams(self, peer: int, link: Link, own: Sequence[Vector]) -> None:
        """Queue nodes: ours for the peer's slice, and the peer's for ours."""
        plan = self._plan
        arrival = self._incoming(plan.kind, plan.inbox_pieces[peer])
        self._arrivals.append((arrival, len(plan.inboxes[peer])))
        link.incoming.append(arrival)
        link.outgoing.append(self._outgoing(plan.kind, _bytes(take(vector, plan.parts[peer]) for vector in own)))

    def _add_sums(self, peer: int, link: Link, out: Vector) -> None:
        """Queue sums: our finished slice, held back for now, and the peer's slice straight into the result."""
        self._sums.append(self._outgoing(Kind.SUM, _bytes([self._own_slice])))
        link.outgoing.append(self._sums[-1])
        link.incoming.append(self._incoming(Kind.SUM, _bytes([take(out, self._plan.parts[peer])])))

    def _outgoing(self, kind: Kind, pieces: Sequence[memoryview]) -> Cursor:
        return Cursor([header_of(self._call, kind, self._plan.agreement, sum(map(len, pieces))).pack(), *pieces])

    def _incoming(self, kind: Kind, pieces: Sequence[memoryview]) -> Incoming:
        header = header_of(self._call, kind, self._plan.agreement, sum(map(len, pieces)))
        return Incoming(header, lambda _: pieces, own_debt=kind is not Kind.SUM)


def _bytes(vectors: Iterable[Vector]) -> list[memoryview]:
    return [bytes_of(bucket) for vector in vectors for bucket in vector]
