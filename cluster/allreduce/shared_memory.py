"""Memory that the workers of one host share, so that a vector's bytes need not pass through the system.

Every worker makes one region: for each peer on its host a ring of entries for this worker's nodes of the peer's slice,
and one ring for the sums of its own slice, which all of them read. Peers receive its descriptor over their Unix
connection and map it. A region has no name and no file, so nobody finds it by searching, and it is gone with the last
process that maps it, however that ends; one that belongs to another user or is open to others is refused. What lies in
it is announced over the connection, a byte for each block, and those system calls also order the accesses to memory; so
death, deadline and abort work as without.

A worker copies a block of its nodes into the peer's ring, the peer adds straight out of it, writes the sum into its
result and once into its own ring, and everybody copies it from there. The rings are small enough to stay in the
processor's cache, so a vector passes through memory about as often as in a plain copy.

Nobody says that an entry is free again, because that follows. A block of nodes is put into an entry only when the
peer's sum of the block that lay there has come; so the peer has read it. And a sum is put into an entry only when all
have put in nodes that they could not before they had copied out what lay there.

Measured, two workers, 20 MB: 3.1 ms against 8.6 ms over Unix sockets (docs/explanation/benchmarks/all-reduce.md).
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import stat
from collections.abc import Sequence

import numpy as np

from ..errors import Call, ProtocolError
from ..vectors import Array, Vector
from .frames import HEADER_BYTES, Header, Incoming, Kind, Notice, Outgoing
from .slices import Block, Source, copy_pieces, first_bytes

# Small enough that the rings of a few workers stay in the processor's cache, where a copy costs half.
ENTRY_BYTES = 1 << 19
NUM_ENTRIES = 4
RING_BYTES = ENTRY_BYTES * NUM_ENTRIES
_MODE = 0o600
_HAS_REGION, _HAS_NONE = b"\1", b"\0"


class Ring:
    """A ring of entries; block number n of a call lies in entry n modulo their number."""

    def __init__(self, memory: Array) -> None:
        self._memory = memory

    def arrays(self, number: int, block: Block, place: int = 0) -> list[Array]:
        """Return views of a block's pieces in its entry.

        Args:
            number: of the block in its slice.
            block: that block.
            place: how many other blocks of its kind lie before it in the entry, one per node.
        """
        start = number % NUM_ENTRIES * ENTRY_BYTES + place * block.room
        return [
            self._memory[start + piece.offset : start + piece.offset + piece.num_bytes].view(piece.dtype)
            for piece in block.pieces
        ]


class SharedMemory:
    """This worker's region and those of its peers on the same host.

    A peer's region is used as long as this object is; it holds what its owner last wrote even if that has died.

    Args:
        rank: of this worker.
        num_workers: of the generation.

    Raises:
        OSError: the system has no such memory.
    """

    def __init__(self, rank: int, num_workers: int) -> None:
        self._rank = rank
        self._size = RING_BYTES * num_workers  # pages that nobody touches cost nothing
        self._descriptor = os.memfd_create(f"heliostat-{rank}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.fchmod(self._descriptor, _MODE)
            os.ftruncate(self._descriptor, self._size)
            # Nobody can make it shorter: touching what is cut off would kill the process.
            fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self._own = _map(self._descriptor, self._size)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._theirs: dict[int, Array] = {}

    @property
    def peers(self) -> tuple[int, ...]:
        """The ranks of the peers that share memory with this worker."""
        return tuple(sorted(self._theirs))

    def attach(self, peer: int, descriptor: int) -> None:
        """Map a peer's region; raises ValueError if it is none. Closes the descriptor."""
        try:
            found, seals = os.fstat(descriptor), fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != _MODE:
                raise ValueError(f"its shared memory is user {found.st_uid}'s, mode {stat.S_IMODE(found.st_mode):o}")
            if found.st_size != self._size or not seals & fcntl.F_SEAL_SHRINK:
                size = found.st_size
                raise ValueError(f"its shared memory has {size} bytes (seals {seals:#x}) instead of {self._size}")
            self._theirs[peer] = _map(descriptor, self._size)
        except OSError as error:
            raise ValueError(f"its shared memory cannot be used: {error}") from None
        finally:
            os.close(descriptor)

    def nodes_for(self, peer: int) -> Ring:
        """Where this worker puts its nodes for a peer's slice."""
        return _ring(self._own, peer)

    def nodes_of(self, peer: int) -> Ring:
        """Where a peer puts its nodes for this worker's slice."""
        return _ring(self._theirs[peer], self._rank)

    def own_sums(self) -> Ring:
        """Where this worker puts the sums of its slice."""
        return _ring(self._own, self._rank)

    def sums_of(self, peer: int) -> Ring:
        """Where a peer puts the sums of its slice."""
        return _ring(self._theirs[peer], peer)

    def close(self) -> None:
        """Give up the descriptor and, as soon as no view of them is left, the mappings."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._own = np.empty(0, np.uint8)
        self._theirs.clear()

    def send(self, sock: socket.socket) -> None:
        """Give a peer the region."""
        socket.send_fds(sock, [_HAS_REGION], [self._descriptor])


def make_shared_memory(rank: int, num_workers: int) -> SharedMemory | None:
    """Make a region, None where the system has nothing of the kind, or there is nobody to share it with."""
    if num_workers == 1 or not hasattr(os, "memfd_create") or not hasattr(socket, "recv_fds"):
        return None
    try:
        return SharedMemory(rank, num_workers)
    except OSError:
        return None


def offer(sock: socket.socket, memory: SharedMemory | None) -> bool:
    """Tell a peer on the same host, right after the handshake, whether there is memory to share, and which."""
    if memory is not None:
        with contextlib.suppress(OSError):  # descriptors may be forbidden to travel
            memory.send(sock)
            return True
    sock.send(_HAS_NONE)
    return False


def take_offer(sock: socket.socket) -> int | None:
    """Read a peer's offer: a descriptor, or None if there is none. Raises BlockingIOError, OSError or ValueError."""
    said, descriptors, _, _ = socket.recv_fds(sock, 1, 1, socket.MSG_CMSG_CLOEXEC)
    if said == _HAS_REGION and len(descriptors) == 1:
        return descriptors[0]
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    if not said:
        raise ConnectionResetError("it closed the connection")
    if said == _HAS_NONE:
        return None
    raise ValueError("it did not say whether it shares memory")


class ShmChannel:
    """The way to one peer through shared memory: nodes for its slice one way, the sums of its slice back.

    Args:
        memory: where blocks lie.
        peer: the rank of the other side.
        blocks: of the peer's slice.
        own_blocks: of this worker's slice.
        num_peer_nodes: how many nodes the peer brings.

    Attributes:
        outgoing, incoming: the frames that announce blocks in the present call.
        num_nodes_here: how many blocks of the peer's nodes are there.
    """

    def __init__(
        self,
        memory: SharedMemory,
        peer: int,
        *,
        blocks: Sequence[Block],
        own_blocks: Sequence[Block],
        num_peer_nodes: int,
    ) -> None:
        self.peer, self._blocks, self._own_blocks = peer, blocks, own_blocks
        self._num_peer_nodes = num_peer_nodes
        self._nodes_for, self._nodes_of = memory.nodes_for(peer), memory.nodes_of(peer)
        self._sums_of = memory.sums_of(peer)

    def start(self, call: Call, layout_checksum: int, nodes: Sequence[Vector], out: Vector) -> None:
        """Begin a call.

        Args:
            call: which.
            layout_checksum: of the frames (`Header`).
            nodes: this worker's nodes, of each the peer's slice.
            out: where the peer's slice of the sum goes.
        """
        self._call, self._nodes, self._out = call, nodes, out
        self._num_staged = self._num_collected = self._num_told = 0
        self.num_nodes_here = self._num_sums_here = self._num_read = 0
        length = len(self._blocks) + len(self._own_blocks)
        header = Header.of(call, Kind.NOTICES, layout_checksum, length)
        self._said, self._heard = bytearray(length), bytearray(length)
        self.outgoing = Outgoing(header, [memoryview(self._said)], HEADER_BYTES)
        self.incoming = Incoming(header, [memoryview(self._heard)])

    def forget(self) -> None:
        """Let go of the vectors' memory."""
        self._nodes, self._out = (), ()

    def listen(self) -> None:
        """Count what the peer has announced.

        Raises:
            ProtocolError: that is more than there can be.
        """
        heard = self._heard[self._num_read : self.incoming.body_bytes]
        self._num_read += len(heard)
        self.num_nodes_here += heard.count(Notice.NODES)
        self._num_sums_here += heard.count(Notice.SUM)
        if self.num_nodes_here > len(self._own_blocks) or self._num_sums_here > len(self._blocks):
            raise ProtocolError.frame(self._call, self.peer, "it announced more blocks than there are")
        self.incoming.independent = self.num_nodes_here < min(len(self._own_blocks), self._num_told + NUM_ENTRIES)

    def stage(self) -> bool:
        """Put the next block of the nodes into its entry, if that is free."""
        number = self._num_staged
        if number == min(len(self._blocks), self._num_collected + NUM_ENTRIES):
            return False
        block = self._blocks[number]
        for place, vector in enumerate(self._nodes):
            copy_pieces(self._nodes_for.arrays(number, block, place), block.of(vector))
        self._num_staged += 1
        self._say(Notice.NODES)
        return True

    def source(self, place: int) -> Source:
        """Return where the blocks of the peer's node number `place` lie once they are here."""
        ring, blocks = self._nodes_of, self._own_blocks
        return lambda number: ring.arrays(number, blocks[number], place)

    def tell_sum(self) -> None:
        """Announce that the next block of this worker's sums is in its entry."""
        self._num_told += 1
        self._say(Notice.SUM)

    def collect(self) -> bool:
        """Copy the next block of the peer's sums into the result, if it is here."""
        number = self._num_collected
        if number == self._num_sums_here:
            return False
        block = self._blocks[number]
        copy_pieces(block.of(self._out), self._sums_of.arrays(number, block))
        self._num_collected += 1
        return True

    @property
    def bytes_sent(self) -> int:
        """Return how much the peer has been given in this call."""
        nodes, sums = first_bytes(self._blocks, self._num_staged), first_bytes(self._own_blocks, self._num_told)
        return len(self._nodes) * nodes + sums

    @property
    def bytes_received(self) -> int:
        """Return how much the peer has given in this call."""
        nodes = first_bytes(self._own_blocks, self.num_nodes_here)
        return self._num_peer_nodes * nodes + first_bytes(self._blocks, self._num_collected)

    def _say(self, notice: Notice) -> None:
        self._said[self.outgoing.limit - HEADER_BYTES] = notice
        self.outgoing.limit += 1


def _map(descriptor: int, size: int) -> Array:
    return np.frombuffer(mmap.mmap(descriptor, size), np.uint8)


def _ring(memory: Array, number: int) -> Ring:
    return Ring(memory[number * RING_BYTES : (number + 1) * RING_BYTES])
