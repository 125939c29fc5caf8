"""``heliostat status``, ``logs``, ``attach`` and ``stop`` for a run of this machine, from what its driver writes.

A driver serves nobody: it holds a lease, writes files, and takes SIGTERM for the wish to pause. So a run in another
process is followed by its ``metrics.jsonl`` and ``events.jsonl``, which it appends to, and stopped by a signal to the
process that its lease names, if that is on this machine and still the same. What is shown is what the driver shows; of
the epoch that runs it is as old as the last line of ``samples.jsonl``, of which a long run writes few.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliostat.cluster.pools.processes import open_process
from heliostat.trainer.driver.display import Display
from heliostat.trainer.driver.event_lines import EventLines
from heliostat.trainer.driver.lease import Driver, driver_of
from heliostat.trainer.driver.run_folder import (
    EVENTS_FILE,
    METRICS_FILE,
    RUN_FILE,
    SAMPLES_FILE,
    read_epochs,
    read_events,
    read_record,
    read_samples,
)
from heliostat.trainer.errors import RunPausedError
from heliostat.trainer.events import EpochRecord, Event, FirstStepDone, Resumed
from heliostat.trainer.jobs import Progress
from heliostat.trainer.samples import Sample
from heliostat.trainer.storage_thread import telling

from ..endings import LeftAlone
from ..errors import ScriptError
from .resume import result_lines
from .runs import RunSummary, number_text, summary_of

LOOK_EVERY_S = 0.5
_UNDER_WAY = ("starting", "running")
_STATUS = {"finished": 0, "paused": RunPausedError.exit_status}


@dataclass(slots=True)
class Followed:
    """What of a run was shown already.

    Attributes:
        num_events: so many events.
        epochs_s: epochs up to this time, seconds since 1970.
        sample_s: samples, likewise.
        lines: says events; None before the run's record was there.
    """

    num_events: int = 0
    epochs_s: float = 0.0
    sample_s: float = 0.0
    lines: EventLines | None = None
    _began_s: float = 0.0  # when the next epoch began; unknown is 0.0

    def news(self, epochs: list[EpochRecord], events: list[Event]) -> list[EpochRecord | Event]:
        """What is new in a run's files, in the order in which it happened; it counts as shown then."""
        new_epochs = [epoch for epoch in epochs if epoch.time > self.epochs_s]
        new_events = events[self.num_events :]
        self.num_events = len(events)
        self.epochs_s = max([self.epochs_s, *(epoch.time for epoch in new_epochs)])
        return sorted([*new_epochs, *new_events], key=lambda each: each.time)

    def seconds_of(self, each: EpochRecord | Event) -> float:
        """How long an epoch took, 0.0 where that is not known; all that has happened is to be told, in its order.

        It begins with the end of the one before, or with the first step of a run that begins, or goes on after a pause.
        """
        began_s = self._began_s
        if isinstance(each, EpochRecord):
            self._began_s = each.time
            return max(0.0, each.time - began_s) if began_s else 0.0
        if isinstance(each, Resumed):
            self._began_s = 0.0
        elif isinstance(each, FirstStepDone):
            self._began_s = began_s or each.time
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRun:
    """How a run of this machine stands.

    Attributes:
        run: what its folder tells.
        driver: who drives it; None if nobody does.
    """

    run: RunSummary
    driver: Driver | None

    @property
    def is_driven(self) -> bool:
        """Whether a driver goes on with it, as far as that can be told."""
        return self.driver is not None and not self.driver.is_gone

    def lines(self) -> list[str]:
        """The same for the screen."""
        return [self.state_line(), *self._reached_lines(), *self.next_lines()]

    def state_line(self) -> str:
        """Its state, and who drives it."""
        run, driver = self.run, self.driver
        if self.is_driven:
            state = run.state if run.state in _UNDER_WAY else f"{run.state} before, and starting"
            silent_s = 0.0 if driver is None else driver.silent_s
            return f"{run.path}: {state}; driver: {driver}{f', silent for {silent_s:.0f} s' if silent_s > 60 else ''}"
        if run.state in _UNDER_WAY:
            return f"{run.path}: its driver has ended without a word: killed, or its machine went down"
        return f"{run.path}: {run.state}{f': {run.problem}' if run.problem else ''}"

    def next_lines(self) -> list[str]:
        """What to do next."""
        if self.is_driven:
            return [f"next: heliostat attach {self.run.path} (or logs, stop)"]
        if self.run.state == "finished":
            return result_lines(self.run.path, read_record(self.run.path))
        return [f"next: heliostat resume {self.run.path} goes on with it"]

    def _reached_lines(self) -> list[str]:
        run = self.run
        metrics = "".join(f", {name} {number_text(value)}" for name, value in run.logs.items())
        lost = f", {run.num_lost} lost" if run.num_lost else ""
        workers = f"{run.num_workers} worker(s){lost}" if run.num_workers else "in its own process"
        wrote_s = max(0.0, time.time() - run.last_wrote_s)
        return [
            f"epoch {run.epochs_done} of {'?' if run.epochs is None else run.epochs}{metrics}",
            f"{workers}; last checkpoint: {run.checkpoint or 'none'}; last wrote {wrote_s:.0f} s ago",
        ]


def look(folder: Path) -> LocalRun:
    """How the run in a folder stands; raises TrainerError if there is none."""
    driver = driver_of(folder)
    if driver is None or driver.is_gone or (folder / RUN_FILE).exists():
        read_record(folder)  # says what is wrong with it
        return LocalRun(run=summary_of(folder), driver=driver)
    return LocalRun(run=RunSummary(path=folder, state="starting", last_wrote_s=time.time()), driver=driver)


def log_pieces(folder: Path, worker: int | None) -> Iterator[bytes]:
    """What the workers of a run printed; with a heading before each file where it is not of one worker alone.

    Args:
        folder: the run folder.
        worker: only this one; None for all.

    Raises:
        ScriptError: there are no such logs.
    """
    logs = sorted((folder / "logs").glob("*.log"), key=lambda path: (len(path.name), path.name))
    wanted = [path for path in logs if worker is None or path.name.split(".")[0] == f"worker-{worker}"]
    if not wanted:
        raise ScriptError(no_logs(str(folder), [path.name for path in logs], worker))
    for path in wanted:
        if worker is None:
            yield heading(path.name)
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                yield piece


def heading(name: str) -> bytes:
    """What stands before one of several log files."""
    return f"==> {name} <==\n".encode()


def no_logs(where: str, names: list[str], worker: int | None) -> str:
    """A sentence on logs that are not there.

    Args:
        where: the run folder.
        names: of the log files that are there.
        worker: whose is wanted; None for all.
    """
    there = f"It has {', '.join(names)}." if names else "No worker has printed anything, or all work in the driver."
    return f"{where!r} has no logs{'' if worker is None else f' of worker {worker}'}. {there}"


def attach(folder: Path, screen: Display) -> int:
    """Show a run that another process drives until it ends, and what it did before; returns its exit status.

    Raises:
        TrainerError: the folder holds no run.
        LeftAlone: Ctrl-C; the run goes on.
    """
    try:
        return _attach(folder, screen)
    except KeyboardInterrupt:
        raise LeftAlone(folder, ("attach", "status", "logs", "stop")) from None


def _attach(folder: Path, screen: Display) -> int:
    screen.say(look(folder).state_line())
    shown, marks = Followed(), None
    while True:
        found = look(folder)  # before its files: what was written before its end is read once more
        if (now := _marks(folder)) != marks or not found.is_driven:
            marks = now
            _show_news(folder, shown, screen)
        if not found.is_driven:
            break
        time.sleep(LOOK_EVERY_S)
    if (folder / RUN_FILE).exists():
        screen.end(read_record(folder))
    for line in (found.state_line(), *found.next_lines()):
        screen.say(line)
    return _STATUS.get(found.run.state, 1)


def stop(folder: Path, screen: Display) -> int:
    """Let the run in a folder pause with a checkpoint, and wait until it has; returns 0 if it has paused or finished.

    Raises:
        ScriptError: nobody drives it, or a process that is not to be reached from here.
        TrainerError: the folder holds no run.
    """
    found = look(folder)
    if found.driver is None or not found.is_driven:
        raise ScriptError(f"Nothing is to stop: {found.state_line()}.")
    driver = found.driver
    send_signal(driver, folder)
    screen.say(f"asked {driver} to pause; it ends its step and writes a checkpoint")
    with telling(lambda seconds: screen.say(f"{driver} has not paused for {seconds:.0f} s")):
        while (now := driver_of(folder)) is not None and now.holder.id == driver.holder.id and not now.is_gone:
            time.sleep(LOOK_EVERY_S / 5)
    if not (folder / RUN_FILE).exists():
        screen.say(f"{driver} has stopped before the run began: nothing is kept of it")
        return 0
    found = look(folder)
    for line in (found.state_line(), *found.next_lines()):
        screen.say(line)
    return 0 if found.run.state in _STATUS else 1


def fetch(folder: Path, _screen: Display) -> None:
    """There is nothing to fetch: raises ScriptError."""
    raise ScriptError(f"There is nothing to fetch: {str(folder)!r} was not submitted to a cluster from this machine.")


def send_signal(driver: Driver, folder: Path) -> None:
    """Send SIGTERM to a driver; raises ScriptError if it is not to be reached from here."""
    by_hand = f"On {driver.holder.host}: heliostat stop {folder.absolute()}, or kill -TERM {driver.holder.pid}."
    if driver.has_ended is None:
        raise ScriptError(f"The run is driven by {driver}, which is not seen from here. {by_hand}")
    descriptor = open_process(driver.holder.pid, int(driver.holder.process_began))
    if descriptor is None:
        raise ScriptError(f"{driver}, which drove the run, has just ended.")
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    except PermissionError as error:
        raise ScriptError(f"{driver}, which drives the run, is another user's. {by_hand}") from error
    finally:
        os.close(descriptor)


def _show_news(folder: Path, shown: Followed, screen: Display) -> None:
    """Show what is new in a run's files."""
    if not (folder / RUN_FILE).exists():
        return
    record = read_record(folder)
    total, steps = int(record.get("epochs") or 0), _steps_of(record)
    if shown.lines is None:
        shown.lines = EventLines(steps)
        screen.begin(folder, record)
    for each in shown.news(read_epochs(folder), read_events(folder)):
        seconds = shown.seconds_of(each)
        if isinstance(each, EpochRecord):
            screen.epoch(each, total, seconds)
            continue
        if line := shown.lines.line_of(each):
            screen.say(line)
        screen.event(each)
    sample = max(read_samples(folder), key=lambda each: each.time, default=None)
    if sample is not None and sample.time > shown.sample_s:
        shown.sample_s = sample.time
        screen.sample(sample)
        if line := shown.lines.line_of_sample(sample):
            screen.say(line)
        screen.progress(_progress_of(sample, steps), total)


def _steps_of(record: Mapping[str, Any]) -> int:
    """How many steps an epoch has."""
    rows = record.get("data", {}).get("train", {}).get("rows", 0)
    batch = record.get("plan", {}).get("global_batch_size", 0) or 1
    return int(record.get("identity", {}).get("steps_per_epoch") or -(-rows // batch))


def _progress_of(sample: Sample, steps: int) -> Progress:
    step = min(steps, max(0, sample.step - sample.epoch * steps))
    return Progress(
        epoch=sample.epoch,
        step=step,
        steps=steps,
        rows=sample.rows,
        logs=sample.logs,
        num_workers=len(sample.workers),
    )


def _marks(folder: Path) -> list[tuple[int, int, int] | None]:
    """What changes when a run's files do."""
    found: list[tuple[int, int, int] | None] = []
    for name in (RUN_FILE, METRICS_FILE, EVENTS_FILE, SAMPLES_FILE):
        about = None
        with contextlib.suppress(OSError):
            about = (folder / name).stat()
        found.append(None if about is None else (about.st_ino, about.st_size, about.st_mtime_ns))
    return found
