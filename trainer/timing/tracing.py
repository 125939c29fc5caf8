"""Traces of steps: the worker records what it does in the steps asked for, the driver collects it.

Nothing is written here; ``heliostat trace`` makes a file of a `TraceBook`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from heliostat.cluster.group.controller_state import Formed
from heliostat.cluster.group.member import Member
from heliostat.cluster.instruments import Recorder, Span

from ..jobs import ClockAsked, Traced, TraceWanted
from .clock import ClockReading, clock_identity, read_clock

EPOCHS, CHANGES = 0, 1  # lanes of the driver


class Tracer:
    """A worker's part: turns its recorder on for the steps asked for, and tells the driver what it holds.

    Args:
        wanted: which steps.
        member: this worker's membership in the group.
    """

    def __init__(self, wanted: TraceWanted, member: Member) -> None:
        self._wanted, self._member = wanted, member
        self.recorder = Recorder(wanted.capacity)
        self._clocks: list[ClockReading] = []
        self._told = False

    def before_step(self, position: int) -> None:
        """A step of the run begins; validation and callbacks after a step count as part of it."""
        if self._told or position < self._wanted.first:
            return
        if position >= self._wanted.last:
            self.finish()
            return
        if not self.recorder.on:
            self._read_clock()
            self.recorder.on = True
        self.recorder.step = position

    def finish(self) -> None:
        """Tell the driver, once."""
        if self._told:
            return
        self.recorder.on = False
        self._read_clock()
        self._told = True
        self._member.mailbox.tell(
            Traced(
                spans=tuple(self.recorder.spans()),
                dropped=self.recorder.dropped,
                readings=tuple(self._clocks),
                clock=clock_identity(),
            )
        )

    def _read_clock(self) -> None:
        self._clocks.append(read_clock(lambda: float(self._member.ask(ClockAsked(), "comparing clocks"))))


@dataclass(slots=True, kw_only=True)
class TraceBook:
    """The driver's part.

    Attributes:
        wanted: which steps.
        on_complete: called once all workers of the group have told.
        hosts: name of the host of every worker that told.
        workers: what they told, by number.
        driver: spans of the driver: epochs (lane `EPOCHS`), changes of the group and checkpoints (lane `CHANGES`).
        lost: workers that were lost before they told.
    """

    wanted: TraceWanted
    on_complete: Callable[[], None] = lambda: None
    hosts: dict[int, str] = field(default_factory=dict)
    workers: dict[int, Traced] = field(default_factory=dict)
    driver: list[Span] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    _members: set[int] = field(default_factory=set)
    _epoch_s: float = field(default_factory=time.perf_counter)
    _lost_s: float | None = None

    @property
    def num_spans(self) -> int:
        """Spans of all workers."""
        return sum(len(each.spans) for each in self.workers.values())

    @property
    def complete(self) -> bool:
        """Whether all workers of the group have told, and something."""
        return bool(self._members) and self._members <= set(self.workers) and self.num_spans > 0

    def take(self, worker: int, host: str, traced: Traced) -> None:
        """A worker tells."""
        self.workers[worker], self.hosts[worker] = traced, host
        if self.complete:
            self.on_complete()

    def formed(self, formed: Formed) -> None:
        """A generation begins to work."""
        self._members = set(formed.members)
        if formed.generation == 0:
            self._epoch_s = time.perf_counter()
        began_s = self._lost_s
        self._lost_s = None
        self._note(f"generation {formed.generation}", time.perf_counter() if began_s is None else began_s, CHANGES)

    def left(self, worker: int) -> None:
        """A worker is lost; the group changes from now until `formed`."""
        self._members.discard(worker)
        if worker not in self.workers:
            self.lost.append(worker)
        self._lost_s = self._lost_s or time.perf_counter()
        if self.complete:
            self.on_complete()

    def epoch_over(self, epoch: int) -> None:
        """An epoch ended, and another one begins."""
        self._note(f"epoch {epoch + 1}", self._epoch_s, EPOCHS)
        self._epoch_s = time.perf_counter()

    def close(self, epoch: int) -> None:
        """The trace ends in the middle of an epoch."""
        self._note(f"epoch {epoch + 1} (to be continued)", self._epoch_s, EPOCHS)

    def committed(self, name: str, began_s: float) -> None:
        """A checkpoint counts."""
        self._note(f"commit {name}", began_s, CHANGES)

    def _note(self, name: str, began_s: float, lane: int) -> None:
        ended_s = time.perf_counter()
        self.driver.append(Span(name=name, lane=lane, step=-1, number=-1, began_s=began_s, ended_s=ended_s))
