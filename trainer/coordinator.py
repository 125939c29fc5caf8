"""The driver's side of a run: it merges what workers report, checks that they agree, and answers.

It computes no gradient and imports no TensorFlow. `handle` is the group's handler: events in, answers by rank out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from heliostat.cluster.tree import Vector, reduce_nodes

from .errors import WorkersDisagreeError
from .jobs import SEGMENT_OPS, EpochLogs, EpochPart, Progress, Ready, ValidationPart, ValidationSum


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """A finished epoch, as the driver publishes it.

    Attributes:
        epoch: its number, from 0.
        logs: global training and validation metrics.
        rows: rows trained on, over all workers.
        rows_by_worker: the same by rank.
        times_by_worker: seconds by part of a step, by rank.
        row_ids: per step the rows of each worker, if recorded.
    """

    epoch: int
    logs: dict[str, Any]
    rows: int
    rows_by_worker: tuple[int, ...]
    times_by_worker: tuple[dict[str, float], ...]
    row_ids: tuple[tuple[tuple[int, ...], ...], ...] = ()


@dataclass(slots=True)
class Coordinator:
    """Collects the workers' reports of one task.

    Args:
        num_workers: size of the group.
        on_ready: called once all workers have built the model.
        on_progress: called with the chief's progress.
        on_epoch: called with every finished epoch.
    """

    num_workers: int
    on_ready: Callable[[list[Ready]], None] = lambda _: None
    on_progress: Callable[[Progress], None] = lambda _: None
    on_epoch: Callable[[EpochRecord], None] = lambda _: None
    _waiting: dict[int, Any] = field(default_factory=dict)
    _parts: list[EpochPart] = field(default_factory=list)

    def handle(self, rank: int, event: Any) -> Mapping[int, Any]:
        """Take one event of a worker; returns the answers it makes possible, by rank.

        Raises:
            WorkersDisagreeError: workers hold different states or metrics.
        """
        if isinstance(event, Progress):
            self.on_progress(event)
            return {}
        if isinstance(event, EpochLogs):
            self.on_epoch(self._record(event))
            return {}
        self._waiting[rank] = event
        if len(self._waiting) < self.num_workers:
            return {}
        events = [self._waiting[each] for each in range(self.num_workers)]
        self._waiting = {}
        answer = self._meet(events)
        return dict.fromkeys(range(self.num_workers), answer)

    def _meet(self, events: list[Any]) -> Any:
        if isinstance(events[0], Ready):
            _agree("platform they run on", [repr(event.platform) for event in events])
            _agree("initial state", [event.digest for event in events])
            self.on_ready(events)
            return True
        if isinstance(events[0], ValidationPart):
            return merge_validation(events)
        self._parts = events
        epoch = events[0].epoch
        _agree(f"training state at the end of epoch {epoch + 1}", [part.digest for part in events])
        _agree(f"global metrics of epoch {epoch + 1}", [repr(part.logs) for part in events])
        if events[0].validation is None:
            return None
        return merge_validation([part.validation for part in events])

    def _record(self, event: EpochLogs) -> EpochRecord:
        parts = self._parts
        steps = zip(*(part.row_ids for part in parts), strict=True)
        return EpochRecord(
            epoch=event.epoch,
            logs=event.logs,
            rows=parts[0].total_rows,
            rows_by_worker=tuple(part.rows for part in parts),
            times_by_worker=tuple(part.times for part in parts),
            row_ids=tuple(tuple(step) for step in steps),
        )


def merge_validation(parts: list[ValidationPart]) -> ValidationSum:
    """Add up the workers' tree nodes of a pass, in the tree's order: the same bits for any cut among workers."""
    nodes = {node: vector for part in parts for node, vector in part.nodes.items()}
    total: Vector = reduce_nodes(nodes, SEGMENT_OPS, parts[0].num_leaves)
    return ValidationSum(vector=total, rows=sum(part.rows for part in parts))


def _agree(what: str, values: list[str]) -> None:
    if len(set(values)) > 1:
        by_worker = "; ".join(f"worker {rank}: {value}" for rank, value in enumerate(values))
        raise WorkersDisagreeError(
            f"The workers disagree about the {what}: {by_worker}. They ran different code, different versions of "
            "TensorFlow or different types of processor (check that all machines have the same environment), or a "
            "callback changed weights between two steps (it may do so in epoch hooks)."
        )
