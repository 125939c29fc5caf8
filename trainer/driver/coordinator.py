"""The driver's half of a task: it merges what workers report, checks that they agree, and answers.

Events go in, answers come out, by worker; nothing else is touched: no file, no screen, no clock but the one that
workers ask for. It computes no gradient and imports no TensorFlow. A worker may ask the same again after a change of
the group; asking twice changes nothing.

Of an epoch every worker brings its view of the training metrics, which must agree, and its shards of the validation, as
nodes of one tree over the whole pass. The nodes are added up here in the tree's order, so that the result has the same
bits for any cut of the pass among workers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from heliostat.cluster.assignment import Range
from heliostat.cluster.group.controller_state import Formed, WorkerDeath
from heliostat.cluster.group.messages import TaskEvent
from heliostat.cluster.group.task import GroupEvent
from heliostat.cluster.vectors import Vector, reduce_nodes

from ..errors import WorkersDisagreeError
from ..events import EpochRecord, FirstStepDone
from ..hardware import DESCRIPTIONS, HARDWARE, differing, refusal, told
from ..jobs import EpochLogs, EpochPart, Final, Ready, StepsTraced, TraceAsked
from ..pass_messages import BUCKET_OPS, NonfiniteRows, PassProgress, PassStart, PassSum, Shard, ShardResult
from ..single_steps import ClockAsked, WorkerTrace
from ..trainer_config import MixedHardware
from .shards import OrderedShards, ShardQueue, Shards

Answers = Mapping[int, object]  # by worker


@dataclass(slots=True)
class Coordinator:
    """Collects the workers' reports of one task.

    Attributes:
        mixed_hardware: what to do about a worker whose hardware selects other kernels.
        finals: the hashes with which workers ended the run, by worker.
        shard_size: microbatches of a shard where outputs are taken as they come, in order; None deals out large ones.
        outputs: predictions, by shard.
        traces: what workers recorded, by worker.
    """

    mixed_hardware: MixedHardware = "refuse"
    shard_size: int | None = None
    finals: dict[int, Final] = field(default_factory=dict)
    outputs: dict[Range, object] = field(default_factory=dict)
    traces: dict[int, WorkerTrace] = field(default_factory=dict)
    _attributes: dict[str, Any] | None = None  # of `StepsTraced`
    _tracing: set[int] = field(default_factory=set)  # who has traced, and waits for the others
    _all_trace: bool = False  # all have
    _stepped: bool = False
    _members: tuple[int, ...] = ()
    _first: tuple[int, Ready] | None = None  # who has told first, and what
    _parts: dict[int, EpochPart] = field(default_factory=dict)
    _epoch: int = -1
    _agreed: bool = False
    _shards: Shards | None = None
    _num_taken: int = 0  # microbatches whose outputs were taken
    _results: dict[Range, ShardResult] = field(default_factory=dict)
    _sum: PassSum | None = None
    _waiting: set[int] = field(default_factory=set)
    _num_rows: int = 0  # of the pass, that are known to be computed

    def take(self, event: GroupEvent) -> Answers:
        """Take what happens; returns the answers it makes possible, by worker.

        Raises:
            WorkersDisagreeError: workers hold different states or metrics.
        """
        match event:
            case TaskEvent(worker=worker, content=content):
                return self._told(worker, content)
            case WorkerDeath(failure=failure):
                return self._lost(failure.worker)
            case Formed():
                self._formed(event)
        return {}

    def epoch_of(self, event: EpochLogs) -> EpochRecord:
        """The record of the epoch whose numbers the chief has told; the workers have met at its end before."""
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

    @property
    def is_traced(self) -> bool:
        """Whether the steps to be traced were there, and all workers of the group have told what they did in them."""
        return set(self._members) <= self.traces.keys() and any(each.spans for each in self.traces.values())

    @property
    def is_before_first_step(self) -> bool:
        """Whether workers have built the model, and none has done a step."""
        return self._first is not None and not self._stepped

    @property
    def memory(self) -> Mapping[str, int]:
        """Bytes of what a worker holds, by name; empty before one has built the model."""
        return {} if self._first is None else self._first[1].memory

    @property
    def stage(self) -> str:
        """What workers do that have not come to the first step, in a few words."""
        if self._first is None:
            return "building the model"
        return "setting up workers" if self._stepped else "compiling the step, and computing the first"

    @property
    def rows_passed(self) -> int | None:
        """How many rows of a pass without training are computed, as far as workers have told; None outside of one."""
        return None if self._shards is None or self._sum is not None else self._num_rows

    def taken_outputs(self) -> list[object]:
        """The outputs that have come since, up to the first that is missing; they are not kept."""
        found = []
        for lo, hi in sorted(self.outputs):
            if lo != self._num_taken:
                break
            found.append(self.outputs.pop((lo, hi)))
            self._num_taken = hi
        return found

    def _told(self, worker: int, content: object) -> Answers:
        match content:
            case FirstStepDone():
                self._stepped = True
            case ClockAsked():
                return {worker: time.perf_counter()}
            case Ready():
                return {worker: self._ready(worker, content)}
            case TraceAsked():
                return {worker: self._attributes}
            case StepsTraced(attributes=attributes):
                self._attributes = attributes
                self._tracing.add(worker)
                return self._all_traced()
            case EpochPart():
                return self._meet(worker, content)
            case EpochLogs():
                return {worker: None}
            case PassStart(num_microbatches=num_microbatches):
                if self._shards is None:
                    self._open(num_microbatches)
                self._waiting.add(worker)
                return self._serve()
            case PassProgress(rows=rows):
                self._num_rows += rows
            case ShardResult():
                self._keep(worker, content)
                self._waiting.add(worker)
                return self._serve()
            case WorkerTrace():
                self.traces[worker] = content
            case Final():
                self.finals[worker] = content
                return {worker: None}
        return {}

    def _lost(self, worker: int) -> Answers:
        """A member is lost: what it had not finished goes to the others."""
        self._members = tuple(each for each in self._members if each != worker)
        self._waiting.discard(worker)
        self._tracing.discard(worker)
        self._parts.pop(worker, None)
        self.finals.pop(worker, None)
        if self._shards is not None:
            self._shards.lost(worker, len(self._members))
        return {**self._all_traced(), **self._serve()} if self._members else {}

    def _all_traced(self) -> Answers:
        """Answer those that have traced the steps, once all members have."""
        self._all_trace = self._all_trace or set(self._members) <= self._tracing
        if not self._all_trace:
            return {}
        answers, self._tracing = dict.fromkeys(self._tracing), set()
        return answers

    def _formed(self, formed: Formed) -> None:
        """A new generation works."""
        if formed.restarted:
            self._parts, self._epoch, self._shards, self._sum, self._waiting = {}, -1, None, None, set()
            self._results, self.finals, self.outputs = {}, {}, {}
            self._attributes, self._tracing, self._all_trace = None, set(), False
        self._members = formed.members
        if self._shards is not None:
            self._shards.keep(formed.members)

    def _ready(self, worker: int, ready: Ready) -> str:
        """Why a worker cannot be of this group; empty if it can."""
        if self._first is None:
            self._first = worker, ready
        other_worker, first = self._first
        hardware = differing(first.platform, ready.platform, HARDWARE)
        if hardware and self.mixed_hardware == "refuse":
            return refusal(told(hardware, f"on worker {other_worker}", f"on worker {worker}"))
        software = first.platform.keys() - {*HARDWARE, *DESCRIPTIONS}
        if differing(first.platform, ready.platform, software):
            return _disagreement("the platform they run on", {other_worker: first.platform, worker: ready.platform})
        if first.shapes != ready.shapes:
            return _disagreement("the shapes of the model", {other_worker: first.shapes, worker: ready.shapes})
        return ""

    def _meet(self, worker: int, part: EpochPart) -> Answers:
        if part.epoch != self._epoch:
            self._epoch, self._parts, self._agreed = part.epoch, {}, False
            self._open(part.num_microbatches)
        self._parts[worker] = part
        self._waiting.add(worker)
        return self._serve()

    def _open(self, num_microbatches: int) -> None:
        """Begin a pass."""
        if self.shard_size is None:
            self._shards = ShardQueue(num_microbatches, self._members)
        else:
            self._shards = OrderedShards(num_microbatches, self.shard_size, len(self._members), self._num_taken)
        self._results, self._sum, self._waiting, self._num_rows = {}, None, set(), 0

    def _keep(self, worker: int, result: ShardResult) -> None:
        shard = (result.shard.lo, result.shard.hi)
        if self._shards is not None and self._shards.done(worker, shard):
            self._results[shard] = result
            if result.outputs is not None:
                self.outputs[shard] = result.outputs

    def _serve(self) -> Answers:
        """Answer those who wait: with a shard, or with the result once all of the pass is done."""
        shards = self._shards
        if shards is None:
            return {}
        answers: dict[int, object] = {}
        for worker in sorted(self._waiting):
            shard = shards.next_for(worker)
            if shard is not None:
                answers[worker] = Shard(lo=shard[0], hi=shard[1])
        if shards.complete and self._all_met():
            if self._sum is None:
                self._sum = merge(list(self._results.values()), shards.num_microbatches)
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
        epoch = self._epoch + 1
        _agree(f"the training state at the end of epoch {epoch}", {w: part.digest for w, part in parts.items()})
        _agree(f"the global metrics of epoch {epoch}", {w: repr(part.logs) for w, part in parts.items()})
        self._agreed = True
        return True


def merge(results: list[ShardResult], num_microbatches: int) -> PassSum:
    """Add up the tree nodes of all shards of a pass, in the tree's order."""
    nodes = {node: vector for result in results for node, vector in result.nodes.items()}
    total: Vector = reduce_nodes(nodes, BUCKET_OPS, num_microbatches) if nodes else ()
    nonfinite = NonfiniteRows()
    for result in results:
        nonfinite = nonfinite.plus(result.nonfinite.first, result.nonfinite.num_rows)
    return PassSum(vector=total, rows=sum(result.rows for result in results), nonfinite=nonfinite)


def _agree(what: str, values: Mapping[int, str]) -> None:
    if len(set(values.values())) > 1:
        raise WorkersDisagreeError(_disagreement(what, values))


def _disagreement(what: str, values: Mapping[int, object]) -> str:
    by_worker = "; ".join(f"worker {worker}: {value}" for worker, value in values.items())
    return (
        f"The workers disagree about {what}: {by_worker}. They ran different code or different "
        "versions of TensorFlow (check that all machines have the same environment), build_model "
        "makes different models on different workers, or a callback changed weights between two steps (it may do so "
        "in epoch hooks)."
    )
