"""What a user sees of a run: nothing, or lines of text. See also `live`, `notebook`, `json_lines`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from io import TextIOBase
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console

from .. import jobs
from ..events import EpochRecord
from ..samples import Sample
from .doing import Doing
from .rhythm import Rhythm
from .shown_text import printable
from .watcher import Watcher
from .words import epoch_of, numbers, whole_duration
from .worker_table import RecentSamples, WorkerTable, device_of

_LINE_EVERY_S = 10.0


class Display(Watcher):
    """Says nothing: ``verbose=0``; the base of the others."""

    def say(self, text: str) -> None:
        """A line of its own: the plan, what is waited for."""

    def progress(self, progress: jobs.Progress, epochs: int) -> None:
        """The epoch that runs."""

    def workers(self, table: WorkerTable) -> None:
        """How the workers did in the last seconds."""

    def doing(self, doing: Doing | None) -> None:
        """What is done from now on, or how far it is; None for what needs no word, or is over."""

    def run_folder(self, path: Path) -> None:
        """A run begins, or goes on, in this folder: for who watches from elsewhere."""

    def tick(self) -> None:
        """Some time went by, and nothing else happened."""


class TableDisplay(Display):
    """A display that shows workers: makes a table of every sample."""

    def __init__(self) -> None:
        self._samples = RecentSamples()

    def begin(self, path: Path, record: Mapping[str, Any]) -> None:
        """Note what workers compute on."""
        self._samples = RecentSamples(device_of(record))

    def sample(self, sample: Sample) -> None:
        """Show the workers."""
        self.workers(self._samples.table_at(sample))


class PlainDisplay(TableDisplay):
    """Lines of text, for logs and pipes; one at least every ten seconds while something is done.

    Args:
        stream: where they go.
    """

    def __init__(self, stream: TextIOBase) -> None:
        super().__init__()
        self._console = line_console(stream)
        self._last_line_s = time.monotonic()
        self._doing: Doing | None = None
        self._doing_since_s = 0.0
        self._rhythm, self._table = Rhythm(), WorkerTable(rows=())

    def say(self, text: str) -> None:
        """Print the line."""
        self._last_line_s = time.monotonic()
        self._console.print(printable(text), markup=False)

    def progress(self, progress: jobs.Progress, epochs: int) -> None:
        """Now and then, a line."""
        self._rhythm.steps(progress, epochs, time.monotonic())
        if self._is_silent and progress.step != progress.steps:
            self.say(progress_line(progress, epochs, self._rhythm, self._table))

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """The epoch's metrics."""
        self._rhythm.epoch_over(time.monotonic(), record.rows)
        self.say(epoch_line(record, epochs, seconds))

    def workers(self, table: WorkerTable) -> None:
        """They are told with the progress where something is off."""
        self._table = table

    def doing(self, doing: Doing | None) -> None:
        """What lasts is told now and then."""
        if doing is not None and (self._doing is None or doing.what != self._doing.what):
            self._doing_since_s = time.monotonic()
        self._doing = doing
        self.tick()

    def tick(self) -> None:
        """Say what is done, if nothing was said for a while."""
        if self._doing is not None and self._is_silent:
            self.say(self._doing.line(time.monotonic() - self._doing_since_s))

    @property
    def _is_silent(self) -> bool:
        return time.monotonic() - self._last_line_s >= _LINE_EVERY_S


def line_console(stream: TextIOBase) -> Console:
    """What prints lines as they are, of any width."""
    return Console(file=cast(IO[str], stream), highlight=False, soft_wrap=True)


def progress_line(progress: jobs.Progress, epochs: int, rhythm: Rhythm, table: WorkerTable) -> str:
    """How far an epoch is, in a line; with the workers of which something is off.

    Args:
        progress: of the epoch.
        epochs: number of the last one.
        rhythm: how fast it goes.
        table: of the workers.
    """
    parts = [epoch_of(progress.epoch, epochs), f"step {progress.step}/{progress.steps}", numbers(progress.logs)]
    if rhythm.rows_per_s is not None:
        parts.append(f"{rhythm.rows_per_s:,.0f} samples/s")
    if rhythm.rest.run_s:
        parts.append(f"{whole_duration(rhythm.rest.run_s)} left")
    return "; ".join(["  ".join(filter(None, parts)), *table.remarks()])


def epoch_line(record: EpochRecord, epochs: int, seconds: float) -> str:
    """An epoch's train and validation metrics in one line.

    Args:
        record: the epoch.
        epochs: number of the last one.
        seconds: how long it took, validation included.
    """
    rate = record.rows / seconds if seconds > 0 else 0.0
    return f"{epoch_of(record.epoch, epochs)}  {numbers(record.logs)}  ({seconds:.1f} s, {rate:,.0f} samples/s)"
