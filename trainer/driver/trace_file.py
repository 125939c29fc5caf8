"""A Chrome trace of what workers did in some steps, and the run meanwhile, on the driver's clock.

The driver records nothing for it: its epochs, commits and changes of the group are in the run folder with their times.
The file is trace-event JSON in its object form, as https://ui.perfetto.dev and chrome://tracing load
it (https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from heliostat.cluster.instruments import CHECKPOINTS, STEPS, Span

from ..environment import TraceWanted
from ..events import CheckpointCommitted, EpochRecord, Event, GroupFormed, WorkerLost
from ..single_steps import ClockReading, WorkerTrace
from ..worker.tracer import clock_identity

EPOCHS, CHANGES = 0, 1  # lanes of the driver
_DRIVER_PID = 0
_WORKER_LANES = {STEPS: "steps", CHECKPOINTS: "checkpoints"}
_DRIVER_LANES = {EPOCHS: "epochs", CHANGES: "group and checkpoints"}
_MICROSECONDS = 1e6


def chrome_trace(
    wanted: TraceWanted,
    traces: Mapping[int, WorkerTrace],
    events: Sequence[Event],
    epochs: Sequence[EpochRecord],
    next_epoch: int | None,
) -> dict[str, Any]:
    """The object that the file holds; its times are microseconds since the first span, by this process's clock.

    Args:
        wanted: the steps that were asked for.
        traces: what workers told, by number; there must be a span.
        events: of the run.
        epochs: those that are done.
        next_epoch: number of the epoch that is not over; None if there is none.
    """
    spans = {worker: list(_on_drivers_clock(trace)) for worker, trace in sorted(traces.items())}
    origin_s = min(began_s for each in spans.values() for _, began_s, _ in each)
    end_s = max(ended_s for each in spans.values() for _, _, ended_s in each)
    wall_s = time.time() - time.perf_counter()
    lost = {each.worker for each in events if isinstance(each, WorkerLost) and each.time > origin_s + wall_s}
    found = list(_names(_DRIVER_PID, "driver", _DRIVER_LANES))
    for name, lane, began_s, ended_s in _of_driver(events, epochs, next_epoch):
        began_s, ended_s = max(began_s - wall_s, origin_s), min(ended_s - wall_s, end_s)
        if began_s <= ended_s:
            found.append(_event(name, _DRIVER_PID, lane, began_s - origin_s, ended_s - origin_s))
    for worker, of_worker in spans.items():
        found += _names(worker + 1, f"worker {worker} on {traces[worker].host}", _WORKER_LANES)
        for span, began_s, ended_s in sorted(of_worker, key=lambda each: (each[1], -each[2])):
            found.append(_event(span.name, worker + 1, span.lane, began_s - origin_s, ended_s - origin_s, span))
    return {
        "traceEvents": found,
        "displayTimeUnit": "ms",
        "otherData": {
            "heliostat": version("heliostat"),
            "steps": f"{wanted.first}:{wanted.last}",
            "began": origin_s + wall_s,
            "clock": "the driver's performance counter; clock_error_s bounds how wrong a worker's times are on it",
            "workers": {str(worker): _about_clock(trace) for worker, trace in sorted(traces.items())},
            "lost_workers": sorted(lost - traces.keys()),
        },
    }


def _on_drivers_clock(trace: WorkerTrace) -> Iterator[tuple[Span, float, float]]:
    shared = _shares_clock(trace)
    for span in trace.spans:
        began_s, ended_s = (
            own_s if shared else own_s + offset_at(trace.readings, own_s) for own_s in (span.began_s, span.ended_s)
        )
        yield span, began_s, ended_s


def offset_at(readings: Sequence[ClockReading], own_s: float) -> float:
    """The offset at a moment of the own clock: between the first and the last reading clocks drift evenly."""
    first, last = readings[0], readings[-1]
    if last.own_s <= first.own_s:
        return first.offset_s
    share = min(max((own_s - first.own_s) / (last.own_s - first.own_s), 0.0), 1.0)
    return first.offset_s + share * (last.offset_s - first.offset_s)


def _shares_clock(trace: WorkerTrace) -> bool:
    """Whether the worker's clock is this process's."""
    return bool(trace.clock) and trace.clock == clock_identity()


def _about_clock(trace: WorkerTrace) -> dict[str, Any]:
    """What is known about a worker's clock; of one that is the driver's, too, the offset is measured, but not used."""
    return {
        "same_clock_as_driver": _shares_clock(trace),
        "clock_error_s": 0.0 if _shares_clock(trace) else max(each.bound_s for each in trace.readings),
        "measured_offsets_s": [each.offset_s for each in trace.readings],
        "measured_bounds_s": [each.bound_s for each in trace.readings],
        "dropped_spans": trace.dropped,
    }


def _of_driver(
    events: Sequence[Event], epochs: Sequence[EpochRecord], next_epoch: int | None
) -> Iterator[tuple[str, int, float, float]]:
    """Name, lane, beginning and end (seconds since 1970) of what the run folder tells."""
    lost_s = epoch_s = None
    for event in events:
        now_s = event.time
        if isinstance(event, WorkerLost):
            lost_s = lost_s or now_s
        elif isinstance(event, GroupFormed):
            yield f"generation {event.generation}", CHANGES, lost_s or now_s, now_s
            lost_s, epoch_s = None, epoch_s or now_s
        elif isinstance(event, CheckpointCommitted):
            yield f"commit {event.name}", CHANGES, now_s - event.commit_s, now_s
    epoch_s = epoch_s or 0.0
    for epoch in epochs:
        yield f"epoch {epoch.epoch + 1}", EPOCHS, epoch_s, epoch.time
        epoch_s = epoch.time
    if next_epoch is not None:
        yield f"epoch {next_epoch + 1} (to be continued)", EPOCHS, epoch_s, time.time()


def _names(pid: int, name: str, lanes: Mapping[int, str]) -> Iterator[dict[str, Any]]:
    """Metadata events: what processes and threads are called, and in which order they are shown."""
    yield {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}
    yield {"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": pid}}
    for lane, title in lanes.items():
        yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": lane, "args": {"name": title}}


def _event(name: str, pid: int, lane: int, began_s: float, ended_s: float, span: Span | None = None) -> dict[str, Any]:
    """A complete event ("X")."""
    numbers = () if span is None else (("step", span.step), ("microbatch", span.number))
    return {
        "ph": "X",
        "name": name,
        "pid": pid,
        "tid": lane,
        "ts": round(began_s * _MICROSECONDS, 3),
        "dur": round((ended_s - began_s) * _MICROSECONDS, 3),
        "args": {name: value for name, value in numbers if value >= 0},
    }
