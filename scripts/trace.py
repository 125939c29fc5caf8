"""``heliostat trace``: runs a script, and writes what its workers did in some steps as a Chrome trace, on one clock.

The file is trace-event JSON in its object form, as https://ui.perfetto.dev and chrome://tracing load it.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from heliostat.cluster.instruments import CHECKPOINTS, STEPS, Span
from heliostat.scripts.errors import ScriptError
from heliostat.scripts.run import run_script
from heliostat.trainer.driver.directions import Directions, TraceDone, directed
from heliostat.trainer.driver.run_folder import new_run_path
from heliostat.trainer.jobs import Traced, TraceWanted
from heliostat.trainer.timing.clock import clock_identity, offset_at
from heliostat.trainer.timing.tracing import CHANGES, EPOCHS, TraceBook
from rich.console import Console

DRIVER_PID = 0
_WORKER_LANES = {STEPS: "steps", CHECKPOINTS: "checkpoints"}
_DRIVER_LANES = {EPOCHS: "epochs", CHANGES: "group and checkpoints"}
_MICROSECONDS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSettings:
    """What to run, and what to record.

    Attributes:
        script: the script.
        arguments: those of the script.
        steps: which steps of the run.
        output: the file to write.
        run_dir: where the fits of the script go; None makes ``runs/trace-<time>``.
    """

    script: Path
    arguments: tuple[str, ...]
    steps: TraceWanted
    output: Path
    run_dir: Path | None = None


def wanted_steps(text: str) -> TraceWanted:
    """The steps of "100:120" (100 to 119) or "100"; raises ScriptError for anything else."""
    found = re.fullmatch(r"\s*([0-9]+)\s*(?::\s*([0-9]+)\s*)?", text)
    first, last = (0, 0) if found is None else (int(found[1]), int(found[2] or int(found[1]) + 1))
    if last <= first:
        raise ScriptError(
            f"--steps {text!r} names no steps: give the first and the one after the last, such as 100:120, counted "
            "through the run from 0."
        )
    return TraceWanted(first=first, last=last)


def trace(settings: TraceSettings, console: Console) -> None:
    """Run the script until the steps are recorded, and write the trace.

    Raises:
        ScriptError: the file cannot be written, or no fit of the script has such steps.
    """
    if not settings.output.absolute().parent.is_dir():
        raise ScriptError(f"There is no folder {str(settings.output.absolute().parent)!r} to write the trace into.")
    run_dir = (settings.run_dir or new_run_path("trace")).absolute()
    directions = Directions(run_dir=run_dir, fit=None, trace=settings.steps)
    with directed(directions), contextlib.suppress(TraceDone):
        try:
            run_script(settings.script, settings.arguments, show_traceback=True)
        except SystemExit as ended:
            if ended.code:
                raise
    book = directions.traced
    if book is None or not book.complete:
        what = f"steps {settings.steps.first} to {settings.steps.last - 1}"
        why = "no fit of it has" if directions.reached else "it called no Trainer.fit, so there are no"
        raise ScriptError(f"{settings.script} ended, and {why} {what}. Steps are counted through a run, from 0.")
    written = chrome_trace(book)
    settings.output.write_text(json.dumps(written))
    console.print(summary(book, written, settings.output), markup=False, soft_wrap=True)


def chrome_trace(book: TraceBook) -> dict[str, Any]:
    """The object that the file holds; times are microseconds since the first span, by the driver's clock."""
    clocks = {worker: _Clock(traced) for worker, traced in book.workers.items()}
    begins = [clocks[worker].to_driver(s.began_s) for worker, each in book.workers.items() for s in each.spans]
    ends = [clocks[worker].to_driver(s.ended_s) for worker, each in book.workers.items() for s in each.spans]
    origin_s, end_s = min(begins), max(ends)
    events = list(_names(DRIVER_PID, "driver", _DRIVER_LANES))
    for span in book.driver:
        if span.ended_s > origin_s and span.began_s < end_s:
            began_s, ended_s = max(span.began_s, origin_s), min(span.ended_s, end_s)
            events.append(_event(span, DRIVER_PID, began_s - origin_s, ended_s - origin_s))
    for worker, traced in sorted(book.workers.items()):
        events += _names(worker + 1, f"worker {worker} on {book.hosts[worker]}", _WORKER_LANES)
        to_driver = clocks[worker].to_driver
        events += [
            _event(span, worker + 1, to_driver(span.began_s) - origin_s, to_driver(span.ended_s) - origin_s)
            for span in sorted(traced.spans, key=lambda span: (span.began_s, -span.ended_s))
        ]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "heliostat": version("heliostat"),
            "steps": f"{book.wanted.first}:{book.wanted.last}",
            "began": time.time() - (time.perf_counter() - origin_s),
            "clock": "the driver's performance counter; clock_error_s bounds how wrong a worker's times are on it",
            "workers": {str(worker): clock.as_object() for worker, clock in sorted(clocks.items())},
            "lost_workers": book.lost,
        },
    }


def summary(book: TraceBook, written: dict[str, Any], output: Path) -> str:
    """What was recorded, in a line or two."""
    of_workers = written["otherData"]["workers"].values()
    error_ms = 1000 * max(each["clock_error_s"] for each in of_workers)
    clocks = f"clocks within {error_ms:.2g} ms" if error_ms else "one clock"
    steps = {span.step for traced in book.workers.values() for span in traced.spans}
    dropped = sum(each["dropped_spans"] for each in of_workers)
    lines = [
        f"{output}: steps {min(steps)} to {max(steps)} of {len(book.workers)} worker(s), "
        f"{book.num_spans:,} spans, {clocks}. Open it in https://ui.perfetto.dev or "
        "chrome://tracing."
    ]
    if dropped:
        lines.append(f"{dropped:,} spans found no room: trace fewer steps.")
    if book.lost:
        lines.append(f"Workers lost with what they had recorded: {', '.join(map(str, book.lost))}.")
    return "\n".join(lines)


class _Clock:
    """Takes a worker's times to the driver's clock."""

    def __init__(self, traced: Traced) -> None:
        self._traced = traced
        self._shared = bool(traced.clock) and traced.clock == clock_identity()

    def to_driver(self, own_s: float) -> float:
        return own_s if self._shared else own_s + offset_at(self._traced.readings, own_s)

    def as_object(self) -> dict[str, Any]:
        """What is known about it; of one that is the driver's, too, the offset was measured, but is not used."""
        readings = self._traced.readings
        return {
            "same_clock_as_driver": self._shared,
            "clock_error_s": 0.0 if self._shared else max(each.bound_s for each in readings),
            "measured_offsets_s": [each.offset_s for each in readings],
            "measured_bounds_s": [each.bound_s for each in readings],
            "dropped_spans": self._traced.dropped,
        }


def _names(pid: int, name: str, lanes: dict[int, str]) -> Iterator[dict[str, Any]]:
    """Metadata events: what processes and threads are called, and in which order they are shown."""
    yield {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}
    yield {"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": pid}}
    for lane, title in lanes.items():
        yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": lane, "args": {"name": title}}


def _event(span: Span, pid: int, began_s: float, ended_s: float) -> dict[str, Any]:
    """A complete event ("X")."""
    args = {name: value for name, value in (("step", span.step), ("microbatch", span.number)) if value >= 0}
    return {
        "ph": "X",
        "name": span.name,
        "pid": pid,
        "tid": span.lane,
        "ts": round(began_s * _MICROSECONDS, 3),
        "dur": round((ended_s - began_s) * _MICROSECONDS, 3),
        "args": args,
    }
