"""What an all-reduce prepares once and uses in every step: who sums what, and the memory it arrives in."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..tree import BLOCK_BYTES, BucketOp, Layout, Node, Vector, check_vectors
from .shared import SLOT_BYTES
from .slices import (
    Block,
    Scratch,
    Slice,
    SliceSum,
    blocks_of,
    cut,
    goes_whole,
    num_bytes,
    slice_layout,
    whole,
)
from .wire import Kind, bytes_of

Expected = tuple[tuple[Node, ...], ...]
MAX_PLANS = 16
# Blocks are small enough that a slice has a few, so that workers add while others still copy, and no smaller than this.
MIN_BLOCK_BYTES = 1 << 17
BLOCKS_PER_SLICE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One worker's part in all all-reduces of one layout, assignment and set of present microbatches.

    `inboxes[peer]` receives the peer's nodes for this worker's slice, `inbox_pieces[peer]` is the same memory as bytes.
    `sharing` are the peers whose nodes and sums come through shared memory instead, block by block: `blocks[rank]` are
    those of a rank's slice.
    """

    kind: Kind
    agreement: int
    expected: Expected
    like: Layout
    ops: tuple[BucketOp, ...]
    parts: Sequence[Slice]
    slice_bytes: int
    inboxes: Mapping[int, Sequence[Vector]]
    inbox_pieces: Mapping[int, Sequence[memoryview]]
    sharing: Sequence[int]
    blocks: Sequence[tuple[Block, ...]]
    total: SliceSum


class Plans:
    """The plans of one worker, made when first needed; the oldest are forgotten."""

    def __init__(self, rank: int, num_workers: int, sharing: Iterable[int] = ()) -> None:
        self._rank, self._num_workers, self._sharing = rank, num_workers, tuple(sorted(sharing))
        self._scratch = Scratch()
        self._plans: dict[tuple[Expected, Layout, tuple[BucketOp, ...]], Plan] = {}

    def get(self, expected: Sequence[Sequence[Node]], like: Layout, ops: Sequence[BucketOp]) -> Plan:
        """Return the plan; ValueError if the three do not fit each other or the group."""
        key = (tuple(map(tuple, expected)), tuple(like), tuple(ops))
        plan = self._plans.get(key)
        if plan is None:
            if len(expected) != self._num_workers:
                raise ValueError(f"expected names {len(expected)} workers, this group has {self._num_workers}")
            check_vectors([], key[1], key[2])
            if len(self._plans) == MAX_PLANS:
                del self._plans[next(iter(self._plans))]
            plan = self._plans[key] = self._make(*key)
        return plan

    def _make(self, expected: Expected, like: Layout, ops: tuple[BucketOp, ...]) -> Plan:
        at_once = goes_whole(like, expected)
        block_bytes = 0 if at_once else shared_block_bytes(like, expected)
        common = repr((expected, [(dtype.name, length) for dtype, length in like], ops))
        parts = (whole(like),) * self._num_workers if at_once else cut(like, self._num_workers)
        layout = slice_layout(like, parts[self._rank])
        sharing = self._sharing if block_bytes else ()
        blocks = [blocks_of(slice_layout(like, part), block_bytes if sharing else BLOCK_BYTES) for part in parts]
        remote = [peer for peer in range(self._num_workers) if peer != self._rank and peer not in sharing]
        inboxes = {
            peer: [self._scratch.vector((peer, place), layout) for place in range(len(expected[peer]))]
            for peer in remote
        }
        return Plan(
            kind=Kind.EXCHANGE if at_once else Kind.CONTRIBUTION,
            agreement=zlib.crc32(common.encode()),
            expected=expected,
            like=like,
            ops=ops,
            parts=parts,
            slice_bytes=num_bytes(layout, whole(layout)),
            inboxes=inboxes,
            inbox_pieces={
                peer: [bytes_of(bucket) for vector in vectors for bucket in vector] for peer, vectors in inboxes.items()
            },
            sharing=sharing,
            blocks=blocks,
            total=SliceSum([node for nodes in expected for node in nodes], ops, layout, blocks[self._rank]),
        )


def shared_block_bytes(like: Layout, expected: Sequence[Sequence[Node]]) -> int:
    """Return how much of a node one slot of shared memory takes, the same on all workers; 0 if there are too many."""
    room = SLOT_BYTES // max(len(nodes) for nodes in expected) // 64 * 64
    # A slice's buckets begin on cache lines of their own; a last block for the few bytes of that would cost a round.
    slice_bytes = num_bytes(like, whole(like)) // len(expected) + 2 * 64 * len(like)
    wanted = -(-slice_bytes // BLOCKS_PER_SLICE // 64) * 64
    return min(room, max(wanted, MIN_BLOCK_BYTES)) if room >= MIN_BLOCK_BYTES // 8 else 0
