"""How fast every two workers talk: bandwidth and latency of the all-reduce between them, measured one pair at a time.

A task of its own: the workers join, and the driver tells two at a time to measure, so that no pair disturbs another.
They do so over connections of their own, made as those of a step are: the same listeners, handshake and sockets.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..allreduce.collective import Collective
from ..errors import ClusterError
from .member import Member
from .membership import Pulse
from .task_state import Failure, Formed

NUM_SMALL, NUM_LARGE = 65, 5
FIRST_BYTES, LONG_S = 1 << 20, 0.05
_NODES = ((0, 0), (0, 1))  # what the two bring: the leaves of the smallest tree


@dataclass(frozen=True, slots=True, kw_only=True)
class LinksJob:
    """What to measure: vectors of up to `max_bytes`, or until an all-reduce takes `LONG_S`."""

    max_bytes: int = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What one pair of workers reached.

    Attributes:
        workers: their numbers.
        latency_s: duration of an all-reduce of four bytes, the median.
        bytes_per_s: bytes of a long vector over the duration of its all-reduce, the median; as many go each way.
    """

    workers: tuple[int, int]
    latency_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkAsked:
    """A worker asks whom to measure with, and tells what it found with the last one."""

    found: Link | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Answer: measure with this worker, over a connection of this number."""

    peer: int
    number: int


def measure_links(job: LinksJob, member: Member) -> Any:
    """A worker's part of the task."""
    member.join(digest="", fresh=True)
    found: Link | None = None
    while True:
        turn = member.ask(LinkAsked(found=found), "waiting for other pairs")
        if not isinstance(turn, Turn):
            return member.end()
        member.enter_phase("measuring a link")
        pair = member.pair(turn.peer, turn.number)
        try:
            found = _measure(pair, (member.worker, turn.peer), job.max_bytes)
        finally:
            pair.close()


def _measure(pair: Collective, workers: tuple[int, int], max_bytes: int) -> Link:
    low, high = sorted(workers)
    numbers = itertools.count()
    latency_s = _median_s(pair, numbers, 4, NUM_SMALL)
    num_bytes = FIRST_BYTES
    while True:
        duration_s = _median_s(pair, numbers, num_bytes, NUM_LARGE)
        enough = b"y" if num_bytes * 2 > max_bytes or duration_s > LONG_S else b"n"
        if pair.broadcast(next(numbers), enough if pair.rank == 0 else None) == b"y":  # the two clocks may differ
            return Link(workers=(low, high), latency_s=latency_s, bytes_per_s=num_bytes / duration_s)
        num_bytes *= 2


def _median_s(pair: Collective, numbers: itertools.count[int], num_bytes: int, num: int) -> float:
    """The median duration of `num` all-reduces."""
    own, out = np.ones(num_bytes // 4, np.float32), np.ones(num_bytes // 4, np.float32)
    nodes, expected, layout = {_NODES[pair.rank]: (own,)}, [[node] for node in _NODES], ((own.dtype, own.size),)
    durations = []
    for _ in range(num):
        began = time.perf_counter()
        pair.all_reduce(next(numbers), nodes, expected, layout, ops=("sum",), out=(out,))
        durations.append(time.perf_counter() - began)
    return statistics.median(durations)


@dataclass(slots=True)
class LinkBook:
    """The driver's part: tells pair after pair to measure, and keeps what they found."""

    _pairs: list[tuple[int, int]] | None = None
    _active: tuple[int, int] | None = None
    _number: int = 0
    _waiting: set[int] = field(default_factory=set)
    _found: dict[tuple[int, int], list[Link]] = field(default_factory=dict)

    @property
    def links(self) -> tuple[Link, ...]:
        """What was found, by pair: the slower of the two workers' views."""
        return tuple(_slower(found) for _, found in sorted(self._found.items()))

    def handle(self, worker: int, event: Any) -> Mapping[int, Any]:
        """See `Handler.handle`."""
        if not isinstance(event, LinkAsked):
            return {}
        self._waiting.add(worker)
        if event.found is not None:
            self._found.setdefault(event.found.workers, []).append(event.found)
            if len(self._found[event.found.workers]) == 2:
                self._active = None
        return self._serve()

    def lost(self, failure: Failure, num_left: int) -> Mapping[int, Any]:
        """See `Handler.lost`; raises ClusterError, as nothing is left to be found out."""
        raise ClusterError(
            f"Worker {failure.worker} was lost while the links between workers were measured: {failure.reason}"
        )

    def formed(self, formed: Formed) -> Mapping[int, Any]:
        """See `Handler.formed`; raises ClusterError when the group changes, as pairs may be in the middle."""
        if self._pairs is not None:
            raise ClusterError(
                "A worker joined while the links between workers were measured. Measure again: the group has "
                f"{len(formed.members)} workers now."
            )
        self._pairs = list(itertools.combinations(sorted(formed.members), 2))
        return self._serve()

    def late(self, worker: int, pulse: Pulse, stacks: str) -> None:
        """See `Handler.late`."""

    def _serve(self) -> dict[int, Any]:
        if self._pairs is None or self._active is not None:
            return {}
        if not self._pairs:
            answers = dict.fromkeys(self._waiting)
        elif set(self._pairs[0]) <= self._waiting:
            self._active = one, other = self._pairs.pop(0)
            self._number += 1
            answers = {one: Turn(peer=other, number=self._number), other: Turn(peer=one, number=self._number)}
        else:
            return {}
        self._waiting -= set(answers)
        return answers


def _slower(found: Sequence[Link]) -> Link:
    return Link(
        workers=found[0].workers,
        latency_s=max(each.latency_s for each in found),
        bytes_per_s=min(each.bytes_per_s for each in found),
    )
