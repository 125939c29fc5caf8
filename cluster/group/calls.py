"""Calls that all workers of a task make together: each is made again, as the group changes, until its result is here.

An all-reduce (`SumCall`) adds up what every worker has computed; a broadcast brings all what the chief, the worker of
rank 0, says. Between the methods of a `SumCall` the worker computes its microbatches; what it has computed stays its
own when the group changes, so nothing is computed twice by the same worker. A call knows nothing of gradients.

A step of the run may need several sums, each a call by itself: what the first has brought decides what is computed for
the second. Survivors of a loss go on inside of the step. Somebody new cannot, for it lacks what the calls so far have
brought; so only at the first one of a step the group may change in every way (`JoinRequest.waiting_at`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from .. import instruments
from ..allreduce.slices import SumSpec
from ..assignment import Range, assign, reassign
from ..errors import MENDABLE
from ..tree import Node, present_nodes
from ..vectors import BucketOp, Layout, Vector
from .liveness import Activity
from .member import Member
from .messages import JoinRequest, WaitingAt
from .results import Buckets


class SumCall:
    """One all-reduce of a task: made again, as the group changes, until this worker has its sum.

        while (total := call.result()) is None:
            ...  # compute those of call.ranges() that are not held yet
            call.all_reduce(nodes, held)

    Attributes:
        assigned: in order of rank (worker's number, ranges of microbatches it was to bring), as of the last `ranges()`.

    Args:
        member: this worker's membership.
        present: whether each microbatch of the step has rows.
        buckets: dtype, length and operation of each part of a vector; the same object in every step.
        first: whether it is the first one of its step: this worker holds the complete state, and has changed nothing.
    """

    def __init__(self, member: Member, present: Sequence[bool], buckets: Buckets, *, first: bool = True) -> None:
        self._member, self._present, self._buckets = member, tuple(present), buckets
        self._waiting_at: WaitingAt = "step" if first else "phase"
        self._sum: Vector | None = None
        self.assigned: tuple[tuple[int, tuple[Range, ...]], ...] = ()

    def result(self) -> Vector | None:
        """The sum, the same bits on every worker; None until it is here. The next calls overwrite its memory."""
        member = self._member
        if self._sum is None:
            self._sum = member.results.take_sum(member.call, self._buckets, alone=member.num_workers == 1)
            if self._sum is not None:
                member.call += 1
                instruments.fault_point("summed", member.step)
        return self._sum

    def ranges(self) -> tuple[Range, ...]:
        """Begin to compute: the microbatches that this worker is to bring, as the group is now."""
        member = self._member
        ranges = _ranges_by_rank(member, len(self._present))
        self.assigned = tuple(zip(member.members, ranges, strict=True))
        member.note_activity(Activity.COMPUTE)
        instruments.fault_point("compute", member.step)
        return ranges[member.rank]

    def all_reduce(self, nodes: Mapping[Node, Vector], held: tuple[Range, ...]) -> None:
        """Add up with the other workers; returns when that is done, or when the group has changed.

        Args:
            nodes: this worker's partial sums, one per maximal node of the tree inside every range that it holds.
            held: the ranges over which these are complete.
        """
        member = self._member
        stops = member.place is not None and member.place.stop_at_step  # somebody waits to join, or to pause
        if stops and self._waiting_at == "step":
            member.regroup(JoinRequest(waiting_at="step", held=held, reason="the group is to change"))
            return
        ranges = tuple(ranges for _, ranges in self.assigned)
        spec = _sum_spec(ranges, self._present, self._buckets.layout, self._buckets.ops)
        member.note_activity(Activity.ALL_REDUCE)
        instruments.fault_point("reduce", member.step)
        collective = member.connections(self._waiting_at, held)
        if collective is None:
            return
        began_s = time.perf_counter()
        try:
            total = collective.all_reduce(
                member.next_sequence(),
                nodes,
                spec,
                out=member.results.memory(member.call, self._buckets, alone=member.num_workers == 1),
                deadline_s=member.deadline_s,
            )
        except MENDABLE as error:
            member.mend(error, self._waiting_at, "all-reduce", began_s, held)
        else:
            instruments.note("all-reduce", began_s)
            member.results.keep(member.call, total)


def _ranges_by_rank(member: Member, num_microbatches: int) -> tuple[tuple[Range, ...], ...]:
    """The microbatches of the present call that each worker brings."""
    place = member.place
    if place is not None and place.held and place.call == member.call:
        return reassign(num_microbatches, place.held)
    if place is not None and place.ranges:
        return tuple((own,) for own in place.ranges)
    return _usual_ranges(num_microbatches, member.num_workers)


@lru_cache(maxsize=8)
def _usual_ranges(num_microbatches: int, num_workers: int) -> tuple[tuple[Range, ...], ...]:
    """By rank, the microbatches that each worker brings to a call that nobody has entered yet."""
    return tuple((own,) for own in assign(num_microbatches, num_workers))


@lru_cache(maxsize=8)
def _sum_spec(
    ranges: tuple[tuple[Range, ...], ...], present: tuple[bool, ...], layout: Layout, ops: tuple[BucketOp, ...]
) -> SumSpec:
    """What is summed where the workers bring these ranges, by rank; alike for most steps of a generation."""
    return SumSpec.of(
        ([node for lo, hi in own for node in present_nodes(lo, hi, present)] for own in ranges), layout, ops
    )


class Told(NamedTuple):
    """What the chief of a broadcast has produced, and whether that was this worker.

    Who is the chief when the broadcast is over says nothing: its last words may have reached one worker only, and the
    one that has taken its place hears them from there.
    """

    payload: memoryview
    is_own: bool


def broadcast(member: Member, produce: Callable[[], memoryview], max_bytes: int, wait_s: float) -> Told:
    """Return on every worker what the chief produced; a worker that becomes the chief meanwhile produces it itself,
    unless somebody has heard what the last one did.

    Args:
        member: this worker's membership.
        produce: called on the chief.
        max_bytes: the most that is accepted.
        wait_s: how long the chief may take.

    Raises:
        ProtocolError: the chief has produced more than `max_bytes`.
    """
    made: memoryview | None = None
    is_own = False
    while member.call not in member.results:
        member.note_activity(Activity.CALLBACKS if member.is_chief else Activity.AWAIT_CALLBACKS)
        if member.is_chief and made is None:
            made = produce()
        collective = member.connections("call")
        if collective is None:
            continue
        own, began_s = made if member.is_chief else None, time.perf_counter()
        try:
            told = collective.broadcast(member.next_sequence(), own, root=0, max_bytes=max_bytes, deadline_s=wait_s)
        except MENDABLE as error:
            member.mend(error, "call", "broadcast", began_s)
        else:
            instruments.note("broadcast", began_s)
            member.results.keep(member.call, told)
            is_own = own is not None
    member.call += 1
    return Told(member.results.payload(member.call - 1), is_own)
