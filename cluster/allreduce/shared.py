"""Memory that the workers of one host share, so that a vector's bytes need not pass through the system.

Every worker makes one region: a ring of slots for each peer on its host, which takes this worker's nodes for that
peer's slice, and one that takes the sums of its own slice for all of them. Peers receive its descriptor over their Unix
connection and map it. A region has no name and no file: it is gone with the last process that maps it, however that
ends. What lies in it is announced over the connection, and those system calls also order the accesses to memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
from collections.abc import Mapping

import numpy as np

from ..tree import Array
from .slices import Block

# Small enough that the rings of a few workers stay in the processor's cache, where a copy costs half.
SLOT_BYTES = 1 << 19
NUM_SLOTS = 4
RING_BYTES = SLOT_BYTES * NUM_SLOTS
_HAS_REGION, _HAS_NONE = b"\1", b"\0"


class Ring:
    """A ring of slots; block number n of a call lies in slot n modulo their number."""

    def __init__(self, memory: Array) -> None:
        self._memory = memory

    def arrays(self, number: int, block: Block, place: int = 0) -> list[Array]:
        """Return views of a block's pieces in its slot, behind `place` other blocks of its kind."""
        start = number % NUM_SLOTS * SLOT_BYTES + place * block.room
        return [
            self._memory[start + piece.offset : start + piece.offset + piece.num_bytes].view(piece.dtype)
            for piece in block.pieces
        ]


class SharedMemory:
    """This worker's region and those of its peers on the same host.

    A peer's region is used as long as this object is; it holds what its owner last wrote even if that has died.
    """

    def __init__(self, rank: int, num_workers: int) -> None:
        """Make a region; raises OSError where that is not possible."""
        self._rank = rank
        self._size = RING_BYTES * num_workers  # pages that nobody touches cost nothing
        self._descriptor = os.memfd_create(f"heliostat-{rank}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._descriptor, self._size)
            # Nobody can make it shorter: touching what is cut off would kill the process.
            fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self._own = _map(self._descriptor, self._size)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._theirs: dict[int, Array] = {}

    @property
    def peers(self) -> Mapping[int, object]:
        """The peers that share memory with this worker, by rank."""
        return self._theirs

    def attach(self, peer: int, descriptor: int) -> None:
        """Map a peer's region; raises ValueError if it is none. Closes the descriptor."""
        try:
            size, seals = os.fstat(descriptor).st_size, fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
            if size != self._size or not seals & fcntl.F_SEAL_SHRINK:
                raise ValueError(f"its shared memory has {size} bytes (seals {seals:#x}) instead of {self._size}")
            self._theirs[peer] = _map(descriptor, size)
        except OSError as error:
            raise ValueError(f"its shared memory cannot be used: {error}") from None
        finally:
            os.close(descriptor)

    def nodes_for(self, peer: int) -> Ring:
        """Where this worker puts its nodes for a peer's slice."""
        return Ring(_part(self._own, peer))

    def nodes_of(self, peer: int) -> Ring:
        """Where a peer puts its nodes for this worker's slice."""
        return Ring(_part(self._theirs[peer], self._rank))

    def own_sums(self) -> Ring:
        """Where this worker puts the sums of its slice."""
        return Ring(_part(self._own, self._rank))

    def sums_of(self, peer: int) -> Ring:
        """Where a peer puts the sums of its slice."""
        return Ring(_part(self._theirs[peer], peer))

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
    """Make a region, None where the system has nothing of the kind."""
    if not hasattr(os, "memfd_create") or not hasattr(socket, "recv_fds"):
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


def _map(descriptor: int, size: int) -> Array:
    return np.frombuffer(mmap.mmap(descriptor, size), np.uint8)


def _part(memory: Array, number: int) -> Array:
    return memory[number * RING_BYTES : (number + 1) * RING_BYTES]
