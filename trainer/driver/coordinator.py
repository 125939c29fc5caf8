"""The driver's side of a task: it merges what workers report, checks that they agree, and answers.

It computes no gradient and imports no TensorFlow. Events go in, answers come out, by worker. A worker may ask the same
again after a change of the group; asking twice changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from heliostat.cluster.group.controller_state import Formed, WorkerDeath
from heliostat.cluster.group.driver_loop import GroupEvent, WorkerLate
from heliostat.cluster.group.messages import Failure, Heartbeat, TaskEvent
from heliostat.cluster.vectors import Vector, reduce_nodes

from ..errors import WorkersDisagreeError
from ..jobs import (
    BUCKET_OPS,
    CheckpointFailed,
    CheckpointWritten,
    ClockAsked,
    EpochLogs,
    EpochPart,
    Final,
    FirstStep,
    Nonfinite,
    PassStart,
    PassSum,
    Progress,
    Ready,
    Shard,
    ShardResult,
    WorkerTrace,
)
from .events import EpochRecord
from .shares import ShardQueue


@dataclass(slots=True, kw_only=True)
class Listeners:
    """Who is told what happens in a task."""

    ready: Callable[[Ready], str] = lambda _: ""
    progress: Callable[[Progress], None] = lambda _: None
    epoch: Callable[[EpochRecord], None] = lambda _: None
    checkpoint: Callable[[CheckpointWritten | CheckpointFailed], None] = lambda _: None
    nonfinite: Callable[[int, Nonfinite], None] = lambda _worker, _event: None
    first_step: Callable[[int, FirstStep], None] = lambda _worker, _event: None
    traced: Callable[[int, WorkerTrace], None] = lambda _worker, _event: None
    lost: Callable[[Failure, int], None] = lambda _failure, _left: None
    formed: Callable[[Formed], None] = lambda _: None
    late: Callable[[int, Heartbeat, str], None] = lambda _worker, _heartbeat, _stacks: None


@dataclass(slots=True)
class Coordinator:
    """Collects the workers' reports of one task.

    Args:
        listeners: who is told what happens.
    """

    listeners: Listeners = field(default_factory=Listeners)
    finals: dict[int, Final] = field(default_factory=dict)
    outputs: dict[int, Any] = field(default_factory=dict)
    _members: tuple[int, ...] = ()
    _first: Ready | None = None
    _parts: dict[int, EpochPart] = field(default_factory=dict)
    _epoch: int = -1
    _agreed: bool = False
    _book: ShardQueue | None = None
    _results: dict[tuple[int, int], ShardResult] = field(default_factory=dict)
    _sum: PassSum | None = None
    _waiting: set[int] = field(default_factory=set)

    def take(self, event: GroupEvent) -> Mapping[int, Any]:
        """Take what happens; returns the answers it makes possible, by worker.

        Raises:
            WorkersDisagreeError: workers hold different states or metrics.
        """
        match event:
            case TaskEvent(worker=worker, content=content):
                return self.handle(worker, content)
            case WorkerDeath(failure=failure, num_left=num_left):
                return self.lost(failure, num_left)
            case Formed():
                return self.formed(event)
            case WorkerLate(worker=worker, heartbeat=heartbeat, stacks=stacks):
                self.listeners.late(worker, heartbeat, stacks)
        return {}

    def handle(self, worker: int, event: Any) -> Mapping[int, Any]:
        """Take one event of a worker; returns the answers it makes possible, by worker.

        Raises:
            WorkersDisagreeError: workers hold different states or metrics.
        """
        if isinstance(event, Progress):
            self.listeners.progress(event)
        elif isinstance(event, (CheckpointWritten, CheckpointFailed)):
            self.listeners.checkpoint(event)
        elif isinstance(event, Nonfinite):
            self.listeners.nonfinite(worker, event)
        elif isinstance(event, FirstStep):
            self.listeners.first_step(worker, event)
        elif isinstance(event, WorkerTrace):
            self.listeners.traced(worker, event)
        elif isinstance(event, ClockAsked):
            return {worker: time.perf_counter()}
        elif isinstance(event, Ready):
            return {worker: self._ready(event)}
        elif isinstance(event, EpochLogs):
            self.listeners.epoch(self._record(event))
            return {worker: None}
        elif isinstance(event, Final):
            self.finals[worker] = event
            return {worker: None}
        elif isinstance(event, EpochPart):
            return self._meet(worker, event)
        elif isinstance(event, PassStart):
            if self._book is None:
                self._open(event.num_microbatches)
            self._waiting.add(worker)
            return self._serve()
        elif isinstance(event, ShardResult):
            self._take(worker, event)
            self._waiting.add(worker)
            return self._serve()
        return {}

    def lost(self, failure: Failure, num_left: int) -> Mapping[int, Any]:
        """A member is lost: what it had not finished goes to the others."""
        self.listeners.lost(failure, num_left)
        worker = failure.worker
        self._members = tuple(each for each in self._members if each != worker)
        self._waiting.discard(worker)
        self._parts.pop(worker, None)
        self.finals.pop(worker, None)
        if self._book is not None:
            self._book.lost(worker, len(self._members))
        return self._serve() if self._members else {}

    def formed(self, formed: Formed) -> Mapping[int, Any]:
        """A new generation works."""
        if formed.restarted:
            self._parts, self._epoch, self._book, self._sum, self._waiting = {}, -1, None, None, set()
            self._results, self.finals = {}, {}
        self._members = formed.members
        if self._book is not None:
            self._book.keep(formed.members)
        self.listeners.formed(formed)
        return {}

    def _ready(self, ready: Ready) -> str:
        """Why a worker cannot be of this group; empty if it can."""
        first = self._first
        if first is None:
            self._first = ready
            return self.listeners.ready(ready)
        for what, one, other in (
            ("the platform they run on", first.platform, ready.platform),
            ("the shapes of the model", first.shapes, ready.shapes),
        ):
            if one != other:
                return _disagreement(what, {0: one, 1: other})
        return ""

    def _meet(self, worker: int, part: EpochPart) -> Mapping[int, Any]:
        if part.epoch != self._epoch:
            self._epoch, self._parts, self._agreed = part.epoch, {}, False
            self._open(part.num_microbatches)
        self._parts[worker] = part
        self._waiting.add(worker)
        return self._serve()

    def _open(self, num_microbatches: int) -> None:
        """Begin a pass."""
        self._book = ShardQueue(num_microbatches, self._members)
        self._results, self._sum, self._waiting = {}, None, set()

    def _take(self, worker: int, part: ShardResult) -> None:
        share = (part.shard.lo, part.shard.hi)
        if self._book is not None and self._book.done(worker, share):
            self._results[share] = part
            if part.outputs is not None:
                self.outputs[part.shard.lo] = part.outputs

    def _serve(self) -> dict[int, Any]:
        """Answer those who wait: with a share, or with the result once all of the pass is done."""
        book = self._book
        if book is None:
            return {}
        answers: dict[int, Any] = {}
        for worker in sorted(self._waiting):
            share = book.next_for(worker)
            if share is not None:
                answers[worker] = Shard(lo=share[0], hi=share[1])
        if book.complete and self._all_met():
            if self._sum is None:
                self._sum = merge(list(self._results.values()), book.num_microbatches)
            answers = dict.fromkeys(self._waiting, self._sum)
        self._waiting -= set(answers)
        return answers

    def _all_met(self) -> bool:
        """Whether all members have told how the epoch's training ended, and agree; true outside of training."""
        if self._epoch < 0 or self._agreed:
            return True
        if not set(self._members) <= set(self._parts):
            return False
        parts = {worker: self._parts[worker] for worker in self._members}
        epoch = self._epoch
        _agree(f"training state at the end of epoch {epoch + 1}", {w: part.digest for w, part in parts.items()})
        _agree(f"global metrics of epoch {epoch + 1}", {w: repr(part.logs) for w, part in parts.items()})
        self._agreed = True
        return True

    def _record(self, event: EpochLogs) -> EpochRecord:
        part = next(iter(self._parts.values()))
        return EpochRecord(
            epoch=event.epoch,
            logs=event.logs,
            rows=part.rows,
            rows_by_worker=part.rows_by_worker,
            seconds_by_worker={worker: each.times for worker, each in sorted(self._parts.items())},
            row_ids=part.row_ids,
            stopped=event.stopped,
        )


def merge(parts: list[ShardResult], num_microbatches: int) -> PassSum:
    """Add up the tree nodes of all shares, in the tree's order: the same bits for any cut among workers."""
    nodes = {node: vector for part in parts for node, vector in part.nodes.items()}
    total: Vector = reduce_nodes(nodes, BUCKET_OPS, num_microbatches) if nodes else ()
    return PassSum(vector=total, rows=sum(part.rows for part in parts))


def _agree(what: str, values: Mapping[int, str]) -> None:
    if len(set(values.values())) > 1:
        raise WorkersDisagreeError(_disagreement(f"the {what}", values))


def _disagreement(what: str, values: Mapping[int, Any]) -> str:
    by_worker = "; ".join(f"worker {worker}: {value}" for worker, value in values.items())
    return (
        f"The workers disagree about {what}: {by_worker}. They ran different code, different versions of "
        "TensorFlow or different types of processor (check that all machines have the same environment), build_model "
        "makes different models on different workers, or a callback changed weights between two steps (it may do so "
        "in epoch hooks)."
    )
