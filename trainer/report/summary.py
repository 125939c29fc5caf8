"""What a run came to, as numbers: ``summary.json``, and what reports and commands show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..events import CheckpointCommitted, GroupFormed, Lines, WorkerLost
from .curves import Spent, first_epoch, spent_in, stretches
from .recorded import RecordedRun
from .verdict import Verdict, verdict_of

# What the parts of a worker's time are called where they are shown; what is not here is "other".
GROUPS: Mapping[str, tuple[str, ...]] = {
    "computing": ("compute_s", "local_sum_s"),
    "optimizer": ("apply_s",),
    "waiting for rows": ("input_s",),
    "waiting for others": ("wait_s", "epoch_end_s"),
    "all-reduce": ("all_reduce_s",),
    "validating": ("validate_s",),
    "callbacks": ("hooks_s", "control_s"),
    "checkpoints": ("save_s",),
    "starting": ("first_step_s", "regroup_s"),
    "other": ("rest_s",),
}
_KNOWN = {part for parts in GROUPS.values() for part in parts}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSummary(Lines):
    """A worker of the run.

    Attributes:
        worker, host: its number and machine.
        left: why it is not there at the end; empty if it is.
        microbatches: how many of a step were its own last; None if that was not recorded.
        microbatch_s: how long it computed one on each of its replicas; None likewise.
        seconds: its time by part.
        memory: bytes, by "host" and "device".
    """

    worker: int
    host: str
    left: str
    microbatches: int | None
    microbatch_s: float | None
    seconds: dict[str, float]
    memory: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(Lines):
    """A run.

    Attributes:
        run: its id.
        state: as in ``run.json``; `problem` is why it failed or was paused.
        verdict: what limited it; `sentence` is all of that as one sentence.
        epochs_done, epochs: those that are done, and that were wanted (None if unknown).
        metrics: of the last epoch.
        rows: trained on, over all workers.
        samples_per_s: rows per second from the first step on, pauses left out; None if unknown.
        step_s: seconds of a step, all that comes between steps included; None likewise.
        seconds: of the whole run, as `fit` takes it; None unless it is finished.
        seconds_by_part: the mean over workers.
        workers: all that ever were in it.
        events: how often each happened, by name.
        checkpoint: name of the last one; None without.
        sha256: hashes of the final weights and of the optimizer's state.
    """

    run: str
    state: str
    problem: str
    verdict: Verdict
    sentence: str
    epochs_done: int
    epochs: int | None
    metrics: dict[str, Any]  # whatever metrics give
    rows: int
    samples_per_s: float | None
    step_s: float | None
    seconds: float | None
    seconds_by_part: dict[str, float]
    workers: tuple[WorkerSummary, ...]
    events: dict[str, int]
    checkpoint: str | None
    sha256: dict[str, str]


def summary_of(run: RecordedRun) -> Summary:
    """The run as numbers."""
    record, verdict, between = run.record, verdict_of(run), stretches(run)
    spent, seconds = spent_in(between), sum(each.seconds for each in between)
    steps, rows = sum(each.num_steps for each in between), sum(each.rows for each in between)
    return Summary(
        run=str(record.get("id", "")),
        state=str(record.get("state", "unknown")),
        problem=str(record.get("reason" if record.get("state") == "paused" else "error", "")),
        verdict=verdict,
        sentence=verdict.sentence,
        epochs_done=run.epochs[-1].epoch + 1 if run.epochs else first_epoch(run),
        epochs=record.get("epochs"),
        metrics=run.epochs[-1].logs if run.epochs else {},
        rows=max(sum(each.rows for each in run.epochs), *(each.rows for each in run.samples[-1:]), 0),
        samples_per_s=rows / seconds if seconds > 0 else None,
        step_s=seconds / steps if steps > 0 else None,
        seconds=record.get("seconds"),
        seconds_by_part=mean_seconds(spent),
        workers=_workers(run, spent),
        events=dict(Counter(event.event for event in run.events)),
        checkpoint=next((each.name for each in reversed(run.events) if isinstance(each, CheckpointCommitted)), None),
        sha256=dict(record.get("sha256", {})),
    )


def shares_of(seconds: Mapping[str, float]) -> dict[str, float]:
    """What of some time went where, by group (`GROUPS`): they add up to 1, unless there is none."""
    total = sum(seconds.values()) or 1.0
    known = {group: sum(seconds.get(part, 0.0) for part in parts) / total for group, parts in GROUPS.items()}
    return known | {"other": known["other"] + sum(seconds[part] for part in seconds.keys() - _KNOWN) / total}


def mean_seconds(spent: Spent) -> dict[str, float]:
    """Seconds by part, the mean over workers."""
    parts = dict.fromkeys(part for seconds in spent.values() for part in seconds)
    return {part: sum(seconds.get(part, 0.0) for seconds in spent.values()) / len(spent) for part in parts}


def _workers(run: RecordedRun, spent: Spent) -> tuple[WorkerSummary, ...]:
    formed = [event for event in run.events if isinstance(event, GroupFormed)]
    hosts = {each["worker"]: str(each["host"]) for each in run.record.get("workers", ())}
    hosts |= {worker: host for event in formed for worker, host in event.hosts.items()}
    lost = {event.worker: event.reason for event in run.events if isinstance(event, WorkerLost)}
    told = {each.worker: each for sample in run.samples for each in sample.workers}
    last = formed[-1].workers if formed else hosts
    return tuple(
        WorkerSummary(
            worker=worker,
            host=hosts.get(worker, ""),
            left="" if worker in last else lost.get(worker, "it left"),
            microbatches=sample.microbatches if (sample := told.get(worker)) else None,
            microbatch_s=sample.seconds.get("compute_s", 0.0) / sample.computed if sample and sample.computed else None,
            seconds=dict(spent.get(worker, {})),
            memory=sample.memory if sample else {},
        )
        for worker in sorted({*hosts, *told, *spent})
    )
