"""What a user sees of a run: one live line per epoch in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from io import TextIOBase
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .. import jobs
from ..errors import NonfiniteGradientError
from ..events import (
    BalanceMeasured,
    CheckpointNotMade,
    EpochRecord,
    Event,
    FilesLeftOut,
    GradientNotFinite,
    GroupFormed,
    LogLeftOut,
    ProbeSlow,
    Rebalanced,
    SetTooLate,
    StepProbed,
    ValidationNotFinite,
    WorkerLate,
    WorkerLost,
    WorkerNotStarted,
)
from .shown_text import printable
from .watcher import Watcher
from .words import count

_LINE_EVERY_S = 10.0
_MAX_SHOWN, _MAX_LETTERS = 10, 60  # of a list, and of a text, among an epoch's numbers


class Display(Watcher):
    """Says nothing: ``verbose=0``; the base of the others."""

    def say(self, text: str) -> None:
        """A line of its own: the plan, what is waited for."""

    def progress(self, progress: jobs.Progress, epochs: int) -> None:
        """The epoch that runs."""

    def run_folder(self, path: Path) -> None:
        """A run begins, or goes on, in this folder: for who watches from elsewhere."""


class PlainDisplay(Display):
    """Lines of text, for logs and pipes.

    Args:
        stream: where they go.
    """

    def __init__(self, stream: TextIOBase) -> None:
        self._console = Console(file=cast(IO[str], stream), highlight=False, soft_wrap=True)
        self._last_line_s = time.monotonic()

    def say(self, text: str) -> None:
        """Print the line."""
        self._console.print(printable(text), markup=False)

    def progress(self, progress: jobs.Progress, epochs: int) -> None:
        """Now and then, a line."""
        now = time.monotonic()
        if now - self._last_line_s < _LINE_EVERY_S or progress.step == progress.steps:
            return
        self._last_line_s = now
        self.say(
            f"epoch {progress.epoch + 1}/{epochs}  step {progress.step}/{progress.steps}  {numbers(progress.logs)}"
        )

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """The epoch's metrics."""
        self._last_line_s = time.monotonic()
        self.say(epoch_line(record, epochs, seconds))


class TerminalDisplay(PlainDisplay):
    """A live line for the epoch that runs, a lasting line for each that ended."""

    def __init__(self, stream: TextIOBase) -> None:
        super().__init__(stream)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._epoch: int | None = None
        self._began_s = 0.0

    def progress(self, progress: jobs.Progress, epochs: int) -> None:
        """Redraw the live line."""
        if self._epoch != progress.epoch or self._bar is None or self._task is None:
            self._start(progress, epochs)
        elapsed = time.monotonic() - self._began_s
        rate = progress.rows / elapsed if elapsed > 0 else 0.0
        text = f"{numbers(progress.logs)}  {rate:,.0f} samples/s  {count(progress.num_workers, 'worker')}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=progress.step, numbers=text)

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """Replace the live line by the epoch's metrics."""
        self.close()
        super().epoch(record, epochs, seconds)

    def close(self) -> None:
        """Remove the live line."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = self._epoch = None

    def _start(self, progress: jobs.Progress, epochs: int) -> None:
        self.close()
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed}/{task.total}  {task.fields[numbers]}  ETA"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=progress.steps, epoch=f"{progress.epoch + 1}/{epochs}", numbers="")
        self._epoch, self._began_s = progress.epoch, time.monotonic()
        self._bar.start()


def numbers(logs: dict[str, Any]) -> str:
    """Metrics in one line."""
    return printable("  ".join(f"{name} {_short(value)}" for name, value in logs.items()))


def epoch_line(record: EpochRecord, epochs: int, seconds: float) -> str:
    """An epoch's train and validation metrics in one line.

    Args:
        record: the epoch.
        epochs: number of the last one.
        seconds: how long it took, validation included.
    """
    rate = record.rows / seconds if seconds > 0 else 0.0
    return f"epoch {record.epoch + 1}/{epochs}  {numbers(record.logs)}  ({seconds:.1f} s, {rate:,.0f} samples/s)"


def line_of(event: Event, num_steps: int) -> str:
    """What users are told of an event; empty for nothing. `num_steps` is the number of steps of an epoch."""
    match event:
        case WorkerLost(worker=worker, host=host, step=step, reason=reason, left=left):
            at = "" if step is None else f" at step {step}"
            return f"lost worker {worker} on {host}{at}: {reason}; {left} left"
        case GroupFormed(generation=generation, joined=joined, hosts=hosts) if generation > 0 and joined:
            who = ", ".join(f"worker {worker} on {hosts.get(worker, 'an unknown host')}" for worker in joined)
            return f"joined: {who}; {count(len(event.workers), 'worker')}"
        case WorkerNotStarted(worker=worker, host=host, reason=reason, again_s=again_s):
            return f"worker {worker} on {host} could not start: {reason}; the next one is started in {again_s:g} s"
        case WorkerLate(worker=worker, host=host, step=step, activity=activity, activity_s=activity_s):
            where = "" if step is None else f" of step {step}"
            at = f"at '{activity}'{where} for {activity_s:.1f} s"
            return f"waiting for worker {worker} on {host}: {at}\n{event.stacks}".rstrip()
        case Rebalanced(before=before, after=after, hosts=hosts):
            moved = (f"worker {each} on {hosts[each]} {before[each]} -> {after[each]}" for each in after)
            gain = 1 - event.expected_s / event.step_s
            return f"balance: microbatches of {', '.join(moved)}; steps should take {gain:.0%} less time"
        case BalanceMeasured(before_s=before_s, expected_s=expected_s, step_s=step_s):
            if step_s is None:
                return "balance: what it brought was not measured, for workers joined or were lost before"
            had, expected = 1 - step_s / before_s, 1 - expected_s / before_s
            took = f"{had:.0%} less" if had >= 0 else f"{-had:.0%} more"
            return f"balance: steps take {took} time than before ({expected:.0%} less was expected)"
        case CheckpointNotMade(reason=reason, is_final=True):
            return (
                f"warning: the state in which the run ended is not kept: {reason} The run's result does not "
                "need it; evaluate, predict and another fit of this trainer do, once its workers are gone."
            )
        case CheckpointNotMade(name=name, reason=reason):
            return f"warning: no checkpoint {name}: {reason} Training goes on; it is tried again when due."
        case LogLeftOut(key=key, callback=callback, what=what):
            return (
                f"warning: the callback {callback} puts {what} into the logs of an epoch, under {key!r}: history "
                "leaves it out (it keeps numbers, text, arrays, and lists and dicts of these)."
            )
        case ProbeSlow(line=line):
            return line
        case StepProbed(notes=notes):
            return "\n".join(notes)
        case SetTooLate(names=names):
            return (
                f"callbacks set {', '.join(names[:3])}{' and others' if names[3:] else ''} after the first step: a "
                "traced step does not see that, in Keras neither. Use a keras.Variable of the model, with assign()."
            )
        case FilesLeftOut(host=host, what=what, reason=reason):
            return f"warning: not brought from {host} to the run folder: {what}: {reason}"
        case GradientNotFinite(worker=worker, host=host, skipped=True):
            error = NonfiniteGradientError(
                epoch=event.epoch,
                step=event.step,
                num_steps=num_steps,
                microbatch=event.microbatch,
                variables=event.variables,
            )
            return f"step left out (worker {worker} on {host}): {error}"
        case ValidationNotFinite(epoch=epoch, dataset=dataset, num_rows=num_rows, first_rows=first_rows):
            return f"epoch {epoch + 1}: {nonfinite_line(dataset, num_rows, first_rows)}"
    return ""


def nonfinite_line(dataset: str, num_rows: int, first_rows: Sequence[int]) -> str:
    """What is said of rows of a pass whose metrics are not finite.

    Args:
        dataset: its name.
        num_rows: how many rows.
        first_rows: the ids of the first of them.
    """
    shown = ", ".join(map(str, first_rows))
    rows = f"row {shown}" if num_rows == 1 else f"rows {shown}{' ...' if num_rows > len(first_rows) else ''}"
    return f"warning: metrics of {num_rows:,} row(s) of {dataset!r} are NaN or infinite: {rows}"


def saving_line(saving: jobs.StillSaving, worker: int, host: str) -> str:
    """What is said of a worker that waits for its storage; it is told again and again."""
    return (
        f"worker {worker} on {host} has waited {saving.seconds:.0f} s for its state to be written to "
        f"{saving.location}. There is no limit: that state is only in memory. Ctrl-C twice gives it up; the same "
        "command then goes on from the last checkpoint"
    )


def _short(value: object) -> str:
    if isinstance(value, list):
        more = [f"and {len(value) - _MAX_SHOWN} more"] if len(value) > _MAX_SHOWN else []
        return "[" + " ".join([*map(_short, value[:_MAX_SHOWN]), *more]) + "]"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _MAX_LETTERS else f"{text[:_MAX_LETTERS]}..."
