"""One call's way to one peer through shared memory: nodes for its slice one way, the sums of its slice back.

Neither side says when it has emptied a slot, because that follows. A block of nodes is put into a slot again only when
the peer's sum of the block that lay there has come and was copied out; so the peer has read it. And a sum is put into a
slot again only when all have put in nodes that they could not before they had copied out what lay there.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import Call, ProtocolError
from ..tree import Vector
from .exchange import Incoming, Link
from .shared import NUM_SLOTS, SharedMemory
from .slices import Block, Source, copy_pieces
from .wire import HEADER_BYTES, Cursor, Header, Token


class Lane:
    """Blocks to and from one peer; `outgoing` and `incoming` are the frames that announce them.

    Args:
        memory: where blocks lie.
        peer: the rank of the other side.
        header: of the frames, both ways alike; its length is their number of blocks.
        nodes: this worker's nodes, of each the peer's slice.
        blocks: of the peer's slice.
        own_blocks: of this worker's slice.
        out: where the peer's slice of the sum goes.
        num_peer_nodes: how many nodes the peer brings.
    """

    def __init__(
        self,
        memory: SharedMemory,
        peer: int,
        header: Header,
        *,
        nodes: Sequence[Vector],
        blocks: Sequence[Block],
        own_blocks: Sequence[Block],
        out: Vector,
        num_peer_nodes: int,
    ) -> None:
        self.peer = peer
        self._nodes, self._blocks, self._own_blocks, self._out = nodes, blocks, own_blocks, out
        self._nodes_for, self._nodes_of, self._sums_of = (
            memory.nodes_for(peer),
            memory.nodes_of(peer),
            memory.sums_of(peer),
        )
        self._num_staged = self._num_collected = self._num_told = 0
        self.num_nodes_here = self._num_sums_here = self._num_read = 0
        self._num_peer_nodes = num_peer_nodes
        self._said = bytearray(header.length)
        self.outgoing = Cursor([header.pack(), memoryview(self._said)], HEADER_BYTES, of_tokens=True)
        self._heard = heard = bytearray(header.length)
        self.incoming = Incoming(header, lambda _: [memoryview(heard)], tokens=heard)
        self.bytes_staged = self.bytes_told = self.bytes_collected = 0

    def listen(self) -> bool:
        """Count what the peer has announced; False if that is more than there can be."""
        heard = self._heard[self._num_read : self.incoming.body_bytes]
        self._num_read += len(heard)
        num_nodes = heard.count(Token.NODES)
        self.num_nodes_here += num_nodes
        self._num_sums_here += len(heard) - num_nodes
        self.incoming.own_debt = self.num_nodes_here < min(len(self._own_blocks), self._num_told + NUM_SLOTS)
        return self.num_nodes_here <= len(self._own_blocks) and self._num_sums_here <= len(self._blocks)

    def stage(self) -> bool:
        """Put the next block of the nodes into its slot, if that is free."""
        number = self._num_staged
        if number == min(len(self._blocks), self._num_collected + NUM_SLOTS):
            return False
        block = self._blocks[number]
        for place, vector in enumerate(self._nodes):
            copy_pieces(self._nodes_for.arrays(number, block, place), block.of(vector))
        self._num_staged += 1
        self.bytes_staged += len(self._nodes) * block.num_bytes
        self._say(Token.NODES)
        return True

    def source(self, place: int) -> Source:
        """Return where the blocks of the peer's node number `place` lie once they are here."""
        ring, blocks = self._nodes_of, self._own_blocks
        return lambda number: ring.arrays(number, blocks[number], place)

    def tell_sum(self) -> None:
        """Announce that the next block of this worker's sums is in its slot."""
        self.bytes_told += self._own_blocks[self._num_told].num_bytes
        self._num_told += 1
        self._say(Token.SUM)

    def collect(self) -> bool:
        """Copy the next block of the peer's sums into the result, if it is here."""
        number = self._num_collected
        if number == self._num_sums_here:
            return False
        block = self._blocks[number]
        copy_pieces(block.of(self._out), self._sums_of.arrays(number, block))
        self._num_collected += 1
        self.bytes_collected += block.num_bytes
        return True

    @property
    def bytes_sent(self) -> int:
        """Return how much the peer has been given through memory."""
        return self.bytes_staged + self.bytes_told

    @property
    def bytes_received(self) -> int:
        """Return how much the peer has given through memory."""
        nodes = self._own_blocks[self.num_nodes_here - 1].end_bytes if self.num_nodes_here else 0
        return self._num_peer_nodes * nodes + self.bytes_collected

    def _say(self, token: Token) -> None:
        self._said[self.outgoing.limit - HEADER_BYTES] = token
        self.outgoing.limit += 1


class Lanes(dict[int, Lane]):
    """One call's lanes, by peer."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call

    def add(self, lane: Lane, link: Link) -> None:
        """Queue a lane's frames on the connection to its peer."""
        self[lane.peer] = lane
        link.outgoing.append(lane.outgoing)
        link.incoming.append(lane.incoming)

    def listen_and_stage(self) -> bool:
        """Count what all peers have announced, and give each the next block of nodes; whether there were any.

        Raises:
            ProtocolError: a peer announced more blocks than there are.
        """
        moved = False
        for lane in self.values():
            if not lane.listen():
                raise ProtocolError.frame(self._call, lane.peer, "it announced more blocks than there are")
            moved |= lane.stage()
        return moved

    def tell_sum(self) -> None:
        """Announce the next block of this worker's sums to all peers."""
        for lane in self.values():
            lane.tell_sum()

    def collect(self) -> bool:
        """Copy the next block of every peer's sums that is here; whether there were any."""
        moved = False
        for lane in self.values():
            moved |= lane.collect()
        return moved

    @property
    def bytes_sent(self) -> int:
        """Return what was given to peers through memory."""
        return sum(lane.bytes_sent for lane in self.values())

    @property
    def bytes_received(self) -> int:
        """Return what peers gave through memory."""
        return sum(lane.bytes_received for lane in self.values())
