"""Who sums what, and when which part can be summed: the pure part of the all-reduce.

A large vector is cut into one slice per worker. Its owner receives the other workers' nodes for that slice, adds them
in tree order and sends the sum to everybody (reduce-scatter, all-gather). Small vectors go whole to everybody, and
everybody adds the same nodes in the same order: one round instead of two, with the same bits.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from .tree import (
    BLOCK_BYTES,
    Array,
    Layout,
    Node,
    Schedule,
    SegmentOp,
    Vector,
    num_temporaries,
    run_schedule,
    schedule,
)

# Sending this much takes about as long as the second round that it saves.
SMALL_BYTES = 1 << 17
_ALIGNMENT_BYTES = 64

Slice = tuple[tuple[int, int], ...]
"""Of each segment: the half-open range of elements."""


def cut(layout: Layout, num_workers: int) -> tuple[Slice, ...]:
    """Return the slice of each worker; borders lie on multiples of 16 elements, so that they lie on cache lines."""

    def border(length: int, part: int) -> int:
        return length if part == num_workers else length * part // num_workers // 16 * 16

    return tuple(
        tuple((border(length, part), border(length, part + 1)) for _, length in layout) for part in range(num_workers)
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
    return tuple(segment[start:stop] for segment, (start, stop) in zip(vector, part, strict=True))


def goes_whole(layout: Layout, expected: Sequence[Sequence[Node]]) -> bool:
    """Decide whether everybody sends everything to everybody: if no worker has to send more than SMALL_BYTES for it."""
    most_nodes = max(len(nodes) for nodes in expected)
    return (len(expected) - 1) * most_nodes * num_bytes(layout, whole(layout)) <= SMALL_BYTES


class Scratch:
    """Memory for incoming nodes that is kept from call to call, because fresh memory is slow to touch first."""

    def __init__(self) -> None:
        self._memory: dict[Hashable, Array] = {}

    def vector(self, slot: Hashable, layout: Layout) -> Vector:
        """Return a vector of undefined contents in the memory of `slot`, each segment on a cache line of its own."""
        offsets = [0]
        for dtype, length in layout:
            size = dtype.itemsize * length
            offsets.append(offsets[-1] + -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES)
        memory = self._memory.get(slot)
        if memory is None or memory.shape[0] < offsets[-1]:
            memory = self._memory[slot] = np.empty(offsets[-1], np.uint8)
        return tuple(
            memory[offset : offset + dtype.itemsize * length].view(dtype)
            for offset, (dtype, length) in zip(offsets, layout, strict=False)
        )


class _Block(NamedTuple):
    segment: int
    part: slice
    end_bytes: int


def common_bytes(received: Sequence[tuple[int, int]], slice_bytes: int) -> int:
    """Return how much of a slice is there for every node.

    `received` has for each peer the bytes that have come and its number of nodes; these come one after another, so the
    last one of each peer is what counts. A peer without nodes holds nothing up.
    """
    lacking = max((count * slice_bytes - num_bytes for num_bytes, count in received if count), default=0)
    return slice_bytes - lacking


class SliceSum:
    """Sums one slice block by block, as far as the nodes of all workers have arrived; used again for every step."""

    def __init__(self, nodes: Sequence[Node], ops: Sequence[SegmentOp], layout: Layout) -> None:
        self._additions: Schedule = schedule(tuple(nodes))
        self._ops = ops
        self._blocks = _blocks(layout)
        self._inputs: list[list[Array]] = []
        self._out: Vector = ()
        self._next = self.ready_bytes = 0
        depth = num_temporaries(self._additions, len(nodes))
        self._spare = [
            [np.empty(min(length, BLOCK_BYTES // dtype.itemsize), dtype) for _ in range(depth)]
            for dtype, length in layout
        ]

    def start(self, vectors: Sequence[Vector], out: Vector) -> None:
        """Begin a new sum of the nodes' slices, in the order of `nodes`, in memory that others may still fill."""
        self._inputs = [[vector[number] for vector in vectors] for number in range(len(out))]
        self._out = out
        self._next = 0
        self.ready_bytes = 0

    def forget(self) -> None:
        """Let go of the memory of the sum that is done."""
        self._inputs, self._out = [], ()

    @property
    def finished(self) -> bool:
        """Whether the whole slice is summed."""
        return self._next == len(self._blocks)

    def advance(self, available_bytes: int) -> bool:
        """Sum the blocks whose first `available_bytes` of the slice are there for every node; say if there were any."""
        before = self._next
        while not self.finished and self._blocks[self._next].end_bytes <= available_bytes:
            segment, part, self.ready_bytes = self._blocks[self._next]
            inputs = [array[part] for array in self._inputs[segment]]
            run_schedule(self._additions, self._ops[segment], inputs, self._out[segment][part], self._spare[segment])
            self._next += 1
        return self._next > before


def _blocks(layout: Layout) -> list[_Block]:
    blocks: list[_Block] = []
    end_bytes = 0
    for number, (dtype, length) in enumerate(layout):
        size = BLOCK_BYTES // dtype.itemsize
        for start in range(0, length, size):
            stop = min(start + size, length)
            end_bytes += (stop - start) * dtype.itemsize
            blocks.append(_Block(number, slice(start, stop), end_bytes))
    return blocks
