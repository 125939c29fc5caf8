"""Who sums what, and when which part can be summed: the pure part of the all-reduce.

A large vector is cut into one slice per worker. Its owner receives the other workers' nodes for that slice, adds them
in tree order and sends the sum to everybody (reduce-scatter, all-gather). Small vectors go whole to everybody, and
everybody adds the same nodes in the same order: one round instead of two, with the same bits.

A slice is summed and handed on block by block, so that workers add while bytes still travel, and what is added lies in
the processor's cache.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..tree import Node, additions_of, num_temporaries
from ..vectors import BLOCK_BYTES, Array, BucketOp, Layout, Vector, run_additions

# Sending this much takes about as long as the second round that it saves.
SMALL_BYTES = 1 << 17
_ALIGNMENT_BYTES = 64

Slice = tuple[tuple[int, int], ...]
"""Of each bucket: the half-open range of elements."""
Expected = tuple[tuple[Node, ...], ...]
"""By rank: the nodes that each worker brings."""


@dataclass(frozen=True, slots=True)
class SumSpec:
    """What all workers have in common in an all-reduce.

    Attributes:
        expected: by rank, the nodes that each worker brings.
        layout: dtype and length of each bucket.
        ops: how each bucket is summed.
    """

    expected: Expected
    layout: Layout
    ops: tuple[BucketOp, ...]

    @classmethod
    def of(cls, expected: Iterable[Iterable[Node]], layout: Layout, ops: Iterable[BucketOp]) -> SumSpec:
        """Make one of any sequences."""
        return cls(tuple(map(tuple, expected)), tuple(layout), tuple(ops))

    @property
    def checksum(self) -> int:
        """What frames carry of it: two workers whose sums differ do not take each other's."""
        layout = [(dtype.name, length) for dtype, length in self.layout]
        return zlib.crc32(repr((self.expected, layout, self.ops)).encode())


def cut(layout: Layout, num_workers: int) -> tuple[Slice, ...]:
    """Return the slice of each worker; in a bucket that begins on a cache line all slices do."""

    def border(dtype: np.dtype, length: int, part: int) -> int:
        line = _ALIGNMENT_BYTES // dtype.itemsize
        return length if part == num_workers else length * part // num_workers // line * line

    return tuple(
        tuple((border(*bucket, part), border(*bucket, part + 1)) for bucket in layout) for part in range(num_workers)
    )


def whole(layout: Layout) -> Slice:
    """Return the slice that is the whole vector."""
    return tuple((0, length) for _, length in layout)


def num_bytes(layout: Layout, part: Slice) -> int:
    """Return the size of a slice of one vector."""
    return sum((stop - start) * dtype.itemsize for (dtype, _), (start, stop) in zip(layout, part, strict=True))


def slice_layout(layout: Layout, part: Slice) -> Layout:
    """Return the layout of a slice."""
    return tuple((dtype, stop - start) for (dtype, _), (start, stop) in zip(layout, part, strict=True))


def take(vector: Vector, part: Slice) -> Vector:
    """Return views of the slice of a vector."""
    return tuple(bucket[start:stop] for bucket, (start, stop) in zip(vector, part, strict=True))


def goes_whole(layout: Layout, expected: Expected) -> bool:
    """Decide whether everybody sends everything to everybody: if no worker has to send more than SMALL_BYTES for it."""
    most_nodes = max(len(nodes) for nodes in expected)
    return (len(expected) - 1) * most_nodes * num_bytes(layout, whole(layout)) <= SMALL_BYTES


class Scratch:
    """Memory for incoming nodes that is kept from call to call, because fresh memory is slow to touch first."""

    def __init__(self) -> None:
        self._memory: dict[Hashable, Array] = {}

    def vector(self, use: Hashable, layout: Layout) -> Vector:
        """Return a vector of undefined contents, each bucket on a cache line of its own.

        Args:
            use: what it is for; the same use gets the same memory, whatever its layout.
            layout: of the vector.
        """
        offsets = [0]
        for dtype, length in layout:
            offsets.append(offsets[-1] + _aligned(dtype.itemsize * length))
        memory = self._memory.get(use)
        if memory is None or memory.shape[0] < offsets[-1]:
            memory = self._memory[use] = np.empty(offsets[-1], np.uint8)
        return tuple(
            memory[offset : offset + dtype.itemsize * length].view(dtype)
            for offset, (dtype, length) in zip(offsets, layout, strict=False)
        )


class Piece(NamedTuple):
    """A run of elements of one bucket of a slice.

    Attributes:
        bucket: its number.
        part: the elements.
        offset: where they lie in memory that is shared block by block, in bytes.
        dtype: of the elements.
    """

    bucket: int
    part: slice
    offset: int
    dtype: np.dtype

    @property
    def num_bytes(self) -> int:
        """Return the size of the piece."""
        return (self.part.stop - self.part.start) * self.dtype.itemsize


class Block(NamedTuple):
    """What is summed and handed on at a time: pieces of a slice that follow one another.

    Attributes:
        pieces: in order.
        end_bytes: where it ends in the bytes of the slice.
        room: the memory that its pieces take, each on a cache line of its own, in bytes.
    """

    pieces: tuple[Piece, ...]
    end_bytes: int
    room: int

    def of(self, vector: Vector) -> list[Array]:
        """Return views of the block in a vector of the slice's layout."""
        return [vector[piece.bucket][piece.part] for piece in self.pieces]


def blocks_of(layout: Layout, block_bytes: int = BLOCK_BYTES) -> tuple[Block, ...]:
    """Cut a slice into blocks that take at most `block_bytes` of memory; small buckets share one."""
    blocks: list[Block] = []
    pieces: list[Piece] = []
    end_bytes = room = 0
    for number, (dtype, length) in enumerate(layout):
        start = 0
        while start < length:
            if room + dtype.itemsize > block_bytes:
                blocks.append(Block(tuple(pieces), end_bytes, room))
                pieces, room = [], 0
            stop = min(start + (block_bytes - room) // dtype.itemsize, length)
            pieces.append(Piece(number, slice(start, stop), room, dtype))
            end_bytes += pieces[-1].num_bytes
            room += _aligned(pieces[-1].num_bytes)
            start = stop
    if pieces:
        blocks.append(Block(tuple(pieces), end_bytes, room))
    return tuple(blocks)


def first_bytes(blocks: Sequence[Block], number: int) -> int:
    """Return the size of the first blocks of a slice, so many."""
    return blocks[number - 1].end_bytes if number else 0


def common_bytes(received: Sequence[tuple[int, int]], slice_bytes: int) -> int:
    """Return how much of a slice is there for every node.

    Args:
        received: of each peer the bytes that have come and its number of nodes; these come one after another, so the
            last one of each peer is what counts. A peer without nodes holds nothing up.
        slice_bytes: of one node.
    """
    lacking = max((count * slice_bytes - num_bytes for num_bytes, count in received if count), default=0)
    return slice_bytes - lacking


Source = Callable[[int], Sequence[Array]]
"""Where a node's part of the block of a given number lies, piece by piece."""


def copy_pieces(targets: Sequence[Array], sources: Sequence[Array]) -> None:
    """Copy piece by piece."""
    for target, source in zip(targets, sources, strict=True):
        np.copyto(target, source)


class SliceSum:
    """Sums one slice block by block, as far as the nodes of all workers have arrived; used again for every step.

    Args:
        nodes: what is added, in the order in which inputs are given.
        ops: of each bucket.
        layout: of the slice.
        blocks: of the slice.

    Attributes:
        num_done: how many blocks are summed.
    """

    def __init__(self, nodes: Sequence[Node], ops: Sequence[BucketOp], layout: Layout, blocks: Sequence[Block]) -> None:
        self._additions = additions_of(tuple(nodes))
        self._ops, self._blocks = ops, blocks
        self._sources: list[Source] = []
        self._out: Vector = ()
        self.num_done = 0
        longest = [0] * len(layout)
        for piece in (piece for block in blocks for piece in block.pieces):
            longest[piece.bucket] = max(longest[piece.bucket], piece.part.stop - piece.part.start)
        temporaries = range(num_temporaries(self._additions, len(nodes)))
        self._temporaries = [
            [np.empty(length, dtype) for _ in temporaries] for (dtype, _), length in zip(layout, longest, strict=True)
        ]

    def start(self, inputs: Sequence[Vector | Source], out: Vector) -> None:
        """Begin a new sum.

        Args:
            inputs: of each node the slice, or where its blocks will lie; others may still fill that memory.
            out: the sum's memory, a slice as well.
        """

        def source(vector: Vector) -> Source:
            return lambda number: self._blocks[number].of(vector)

        self._sources = [each if callable(each) else source(each) for each in inputs]
        self._out = out
        self.num_done = 0

    def forget(self) -> None:
        """Let go of the memory of the sum that is done."""
        self._sources, self._out = [], ()

    @property
    def is_finished(self) -> bool:
        """Whether the whole slice is summed."""
        return self.num_done == len(self._blocks)

    @property
    def done_bytes(self) -> int:
        """Return how many bytes of the slice are summed."""
        return first_bytes(self._blocks, self.num_done)

    def advance(self, available_bytes: int, max_blocks: int | None = None) -> bool:
        """Sum what can be; whether that was anything.

        Args:
            available_bytes: how much of the slice is there for every node.
            max_blocks: not more than that many at once.
        """
        before = self.num_done
        until = len(self._blocks) if max_blocks is None else min(len(self._blocks), before + max_blocks)
        while self.num_done < until and self._blocks[self.num_done].end_bytes <= available_bytes:
            self._sum_block(self.num_done)
            self.num_done += 1
        return self.num_done > before

    def _sum_block(self, number: int) -> None:
        block = self._blocks[number]
        inputs = zip(*(source(number) for source in self._sources), strict=True)
        for piece, operands, out in zip(block.pieces, inputs, block.of(self._out), strict=True):
            temporaries = self._temporaries[piece.bucket]
            run_additions(self._additions, self._ops[piece.bucket], operands, out, temporaries)


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
