"""An all-reduce whose bytes between hosts do not grow with the workers on them: local first (`hosts.py`).

The workers of a host cut the vector into one slice each. A worker sums its slice of its host's nodes, which come
through shared memory, as far as the tree allows. Block k of the slice is then finished on host k modulo their number,
by the worker of equal place there: it gets the other hosts' sums over one connection each, a rail, and sends back the
finished block; from there it goes through shared memory to the workers of each host.

On a rail the order of blocks is fixed, and no block waits for a later one, neither there nor in shared memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import CollectiveError
from ..tree import Layout, Node, SegmentOp, Vector, layout_of
from .exchange import Link
from .hosts import Expected, Hosts, host_nodes, merged_nodes
from .lane import Lane, Lanes
from .rail import Item, Rail, rail_order
from .shared import SharedMemory
from .slices import (
    Block,
    Scratch,
    Slice,
    SliceSum,
    Source,
    as_summed,
    blocks_of,
    copy_pieces,
    cut,
    slice_layout,
    take,
    wire_layout,
)
from .wire import Kind, MakeHeader, bytes_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RailPlan:
    """What a worker prepares once for all local-first all-reduces of one layout and assignment.

    Attributes:
        hosts: where the workers are; `host` and `place` are this worker's, `peers` the ranks of its place per host.
        parts: the slice of each place; `blocks` those of each slice.
        groups: for each host the nodes that it sums by itself; `local` sums those of this host.
        values: the sums of this host's groups, and `sent` the same as they travel.
        inboxes: the sums of the other hosts' groups, by host, as they travel; `sum_sent` the finished slice.
        final: sums the groups of all hosts; `packs` tells that what travels is rounded to bfloat16.
        expected: the nodes of every rank.
    """

    hosts: Hosts
    host: int
    place: int
    peers: tuple[int, ...]
    parts: tuple[Slice, ...]
    blocks: tuple[tuple[Block, ...], ...]
    groups: tuple[tuple[tuple[Node, ...], ...], ...]
    local: tuple[SliceSum, ...]
    values: tuple[Vector, ...]
    sent: tuple[Vector, ...]
    inboxes: Mapping[int, tuple[Vector, ...]]
    sum_sent: Vector
    final: SliceSum
    packs: bool
    expected: Expected
    agreement: int


def make_rail_plan(
    rank: int,
    hosts: Hosts,
    expected: Expected,
    like: Layout,
    ops: Sequence[SegmentOp],
    *,
    block_bytes: int,
    agreement: int,
    scratch: Scratch,
) -> RailPlan:
    """Prepare a worker's part."""
    host, place = hosts.place(rank)
    parts = cut(like, len(hosts.ranks[0]))
    layout = slice_layout(like, parts[place])
    travels = wire_layout(layout, ops)
    blocks = tuple(blocks_of(slice_layout(like, part), block_bytes) for part in parts)
    groups = host_nodes(hosts, expected)
    packs = travels != layout
    values = tuple(scratch.vector(("value", number), layout) for number in range(len(groups[host])))
    all_nodes = [node for each in groups for node in merged_nodes(each)]
    return RailPlan(
        hosts=hosts,
        host=host,
        place=place,
        peers=tuple(ranks[place] for ranks in hosts.ranks),
        parts=parts,
        blocks=blocks,
        groups=groups,
        local=tuple(SliceSum(nodes, ops, layout, blocks[place]) for nodes in groups[host]),
        values=values,
        sent=tuple(scratch.vector(("sent", n), travels) for n in range(len(values))) if packs else values,
        inboxes={
            other: tuple(scratch.vector(("rail", other, n), travels) for n in range(len(groups[other])))
            for other in range(len(hosts.ranks))
            if other != host
        },
        sum_sent=scratch.vector("rail sum", travels) if packs else (),
        final=SliceSum(all_nodes, ops, layout, blocks[place]),
        packs=packs,
        expected=expected,
        agreement=agreement,
    )


class RailReduction:
    """One local-first all-reduce under way on one worker; has the face of `reduction.Reduction`."""

    def __init__(
        self,
        plan: RailPlan,
        rank: int,
        links: Mapping[int, Link],
        memory: SharedMemory | None,
        header: MakeHeader,
        nodes: Mapping[Node, Vector],
        out: Vector,
        refuse: Callable[[int, str], CollectiveError],
    ) -> None:
        if memory is None:
            raise ValueError("local first goes through shared memory")
        self._plan = plan
        self._blocks = plan.blocks[plan.place]
        self._own_slice = take(out, plan.parts[plan.place])
        self._own_ring = memory.own_sums()
        self._num_local = self._num_published = 0
        self._next_own = plan.host
        self.reduce_s = 0.0
        own = [nodes[node] for node in plan.expected[rank]]
        self.lanes = Lanes(refuse)
        for place, peer in enumerate(plan.hosts.ranks[plan.host]):
            if peer != rank:
                self.lanes.add(self._make_lane(memory, peer, place, header, own, out), links[peer])
        self._rails = {host: self._make_rail(host, header) for host in plan.inboxes}
        for host, rail in self._rails.items():
            links[plan.peers[host]].outgoing.append(rail.outgoing)
            links[plan.peers[host]].incoming.append(rail.incoming)
        self._start(rank, own)
        self.advance()

    def advance(self) -> bool:
        """Go on by a block of each kind where that is possible."""
        started_s = time.perf_counter()
        moved = self.lanes.listen_and_stage()
        for rail in self._rails.values():
            rail.listen()
        moved |= self._sum_locally()
        moved |= self._finish_own()
        moved |= self._publish()
        for rail in self._rails.values():
            rail.release(self._num_local, self._next_own)
        moved |= self.lanes.collect()
        if moved:
            self.reduce_s += time.perf_counter() - started_s
        return moved

    def finish(self) -> None:
        """Let go of the vectors' memory."""
        for total in (*self._plan.local, self._plan.final):
            total.forget()

    def _sum_locally(self) -> bool:
        number = self._num_local
        if number == len(self._blocks) or any(lane.num_nodes_here <= number for lane in self.lanes.values()):
            return False
        for total, value, sent in zip(self._plan.local, self._plan.values, self._plan.sent, strict=True):
            total.sum_block(number)
            if self._plan.packs:
                copy_pieces(self._blocks[number].of(sent), self._blocks[number].of(value))
        self._num_local += 1
        return True

    def _finish_own(self) -> bool:
        """Sum the next block that is finished on this host."""
        number = self._next_own
        if number >= self._num_local or any(
            rail.here[False] < number and self._plan.groups[host] for host, rail in self._rails.items()
        ):
            return False
        self._plan.final.sum_block(number)
        if self._plan.packs:
            copy_pieces(self._blocks[number].of(self._plan.sum_sent), self._blocks[number].of(self._own_slice))
        self._next_own += len(self._plan.peers)
        return True

    def _publish(self) -> bool:
        """Hand the next finished block to the workers of this host."""
        number = self._num_published
        if number == self._num_local:  # only what all have brought nodes for: they have emptied its slot (`lane.py`)
            return False
        host, block = number % len(self._plan.peers), self._blocks[number]
        if host == self._plan.host:
            if number >= self._next_own:
                return False
        elif self._rails[host].here[True] < number:
            return False
        elif self._plan.packs:
            copy_pieces(block.of(self._own_slice), block.of(self._plan.sum_sent))
        copy_pieces(self._own_ring.arrays(number, block), block.of(self._own_slice))
        self.lanes.tell_sum()
        self._num_published += 1
        return True

    def _make_lane(
        self,
        memory: SharedMemory,
        peer: int,
        place: int,
        header: MakeHeader,
        own: Sequence[Vector],
        out: Vector,
    ) -> Lane:
        plan = self._plan
        return Lane(
            memory,
            peer,
            header(Kind.BLOCKS, plan.agreement, len(plan.blocks[place]) + len(self._blocks)),
            nodes=[take(vector, plan.parts[place]) for vector in own],
            blocks=plan.blocks[place],
            own_blocks=self._blocks,
            out=take(out, plan.parts[place]),
            num_peer_nodes=len(plan.expected[peer]),
        )

    def _make_rail(self, host: int, header: MakeHeader) -> Rail:
        plan, num_blocks, num_hosts = self._plan, len(self._blocks), len(self._plan.peers)
        finished = plan.sum_sent if plan.packs else self._own_slice

        def pieces(item: Item, values: Sequence[Vector]) -> list[memoryview]:
            vectors = [finished] if item.is_sum else values
            return [bytes_of(array) for vector in vectors for array in self._blocks[item.number].of(vector)]

        return Rail(
            lambda length: header(Kind.RAIL, plan.agreement, length),
            [(item, pieces(item, plan.sent)) for item in rail_order(num_blocks, num_hosts, plan.host, host)],
            [(item, pieces(item, plan.inboxes[host])) for item in rail_order(num_blocks, num_hosts, host, plan.host)],
        )

    def _start(self, rank: int, own: Sequence[Vector]) -> None:
        """Tell the sums where their nodes lie."""
        plan = self._plan
        sources: dict[Node, Vector | Source] = {}
        for peer in plan.hosts.ranks[plan.host]:
            for place, node in enumerate(plan.expected[peer]):
                if peer == rank:
                    sources[node] = take(own[place], plan.parts[plan.place])
                else:
                    sources[node] = self.lanes[peer].source(place)
        for total, nodes, value in zip(plan.local, plan.groups[plan.host], plan.values, strict=True):
            total.start([sources[node] for node in nodes], value)
        layout = layout_of(self._own_slice)
        inputs: list[Vector | Source] = []
        for host in range(len(plan.peers)):
            inputs += (
                plan.values
                if host == plan.host
                else [as_summed(vector, self._blocks, layout) for vector in plan.inboxes[host]]
            )
        plan.final.start(inputs, self._own_slice)
