"""``heliostat runs``: the runs below some folders, from the plain files they write; no TensorFlow, no Ray."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from heliostat.trainer.driver.run_folder import (
    EVENTS_FILE,
    METRICS_FILE,
    RUN_FILE,
    damaged_lines,
    read_epochs,
    read_events,
    read_record,
)
from heliostat.trainer.errors import TrainerError
from heliostat.trainer.events import CheckpointCommitted, EpochRecord, Event, WorkerLost
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ..commandline import as_json
from ..console import cell

# A run that is alive writes at every epoch, checkpoint and loss; one that is silent for so long may be dead.
SILENT_S = 600.0
UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run, as its folder tells.

    Attributes:
        path: the run folder.
        state: as in ``run.json``; "unreadable" if its files cannot be read, and `problem` says why.
        epochs_done: number of the last complete epoch, counted from 1.
        epochs: number of the last epoch to do; None if unknown.
        logs: metrics of the last complete epoch.
        num_workers: workers it has or had last; 0 for a run inside its own process.
        num_lost: how often a worker was lost.
        checkpoint: name of the last checkpoint, None without.
        last_wrote_s: when one of the files was changed last (seconds since 1970).
        problem: why it cannot be read; or the error it failed with, or why it was paused.
        damaged: what is wrong with each line of its files that is left out.
    """

    path: Path
    state: str
    epochs_done: int = 0
    epochs: int | None = None
    logs: dict[str, Any] = field(default_factory=dict)
    num_workers: int = 0
    num_lost: int = 0
    checkpoint: str | None = None
    last_wrote_s: float = 0.0
    problem: str = ""
    damaged: Sequence[str] = ()


def show_runs(folders: Sequence[Path], console: Console, *, json_wanted: bool) -> None:
    """Print the runs below some folders, the last to have written last.

    Args:
        folders: where to look, and one level below.
        console: where to print.
        json_wanted: print one JSON object per line instead of a table.
    """
    paths = [path for folder in folders for path in run_paths(folder)]
    runs = sorted((summary_of(path) for path in dict.fromkeys(paths)), key=lambda run: run.last_wrote_s)
    if json_wanted:
        for run in runs:
            console.file.write(as_json(run) + "\n")
        return
    if not runs:
        where = ", ".join(str(folder) for folder in folders)
        console.print(
            f"No runs in {where}. Name their folders: heliostat runs FOLDER ...", markup=False, soft_wrap=True
        )
        return
    now_s = time.time()
    console.print(table_of(runs, now_s))
    for line in remarks(runs, now_s):
        console.print(line, markup=False, soft_wrap=True)


def run_paths(folder: Path) -> Iterator[Path]:
    """The run folders among `folder` itself, those in it and those one level below; none if there is no such folder."""
    if (folder / RUN_FILE).is_file():
        yield folder
    for pattern in (f"*/{RUN_FILE}", f"*/*/{RUN_FILE}"):
        yield from (found.parent for found in sorted(folder.glob(pattern)))


def summary_of(path: Path) -> RunSummary:
    """What the folder of a run tells; never raises for what is in it."""
    wrote_s = max((_changed_s(path / name) for name in (RUN_FILE, METRICS_FILE, EVENTS_FILE)), default=0.0)
    try:
        record = read_record(path)
        summary = _summary(path, record, read_epochs(path), read_events(path), wrote_s)
        return replace(summary, damaged=damaged_lines(path))
    except (TrainerError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error) if isinstance(error, (TrainerError, OSError)) else f"{type(error).__name__}: {error}"
        return RunSummary(path=path, state=UNREADABLE, last_wrote_s=wrote_s, problem=reason)


def table_of(runs: Iterable[RunSummary], now_s: float) -> Table:
    """The runs as a table that fits 80 columns: two lines per run."""
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("run", overflow="fold", min_width=16)
    for title in ("state\nlast wrote", "epochs\nlast checkpoint", "loss\nvalidation", "workers\nlost"):
        table.add_column(title, no_wrap=True)
    for run in runs:
        wrote = _ago(now_s - run.last_wrote_s)
        if run.state == UNREADABLE:
            table.add_row(cell(run.path), f"{run.state}\n{wrote}")
            continue
        state = f"{run.state}?" if _may_be_dead(run, now_s) else run.state
        epochs = f"{run.epochs_done} of {'?' if run.epochs is None else run.epochs}"
        table.add_row(
            cell(run.path),
            cell(f"{state}\n{wrote}"),
            cell(f"{epochs}\n{run.checkpoint or 'none'}"),
            cell(f"{number_text(run.logs.get('loss'))}\n{_validation(run.logs)}"),
            f"{run.num_workers}\n{run.num_lost}",
        )
    return table


def remarks(runs: Iterable[RunSummary], now_s: float) -> list[str]:
    """What the table has no room for: doubts, and why runs failed or cannot be read."""
    runs = list(runs)
    lines = [f"{run.path}: {run.problem.splitlines()[0]}" for run in runs if run.problem]
    lines += [f"{len(run.damaged)} damaged line(s) left out: {run.damaged[0]}" for run in runs if run.damaged]
    if any(_may_be_dead(run, now_s) for run in runs):
        lines.append(
            f"running?: it has written nothing for {SILENT_S / 60:.0f} minutes, so its epochs are long or it is dead. "
            "If no process of it is left, heliostat resume goes on with it."
        )
    return lines


def number_text(value: object) -> str:
    """A metric for the screen; empty for None."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _summary(
    path: Path,
    record: Mapping[str, Any],
    epochs: Sequence[EpochRecord],
    events: Sequence[Event],
    wrote_s: float,
) -> RunSummary:
    in_process = record.get("plan", {}).get("workers") == 0
    checkpoints = [event.name for event in events if isinstance(event, CheckpointCommitted)]
    state = str(record["state"])
    problem = {"failed": "error", "interrupted": "error", "paused": "reason"}.get(state, "")
    return RunSummary(
        path=path,
        state=state,
        epochs_done=epochs[-1].epoch + 1 if epochs else int(record.get("identity", {}).get("initial_epoch", 0)),
        epochs=record.get("epochs"),
        logs=epochs[-1].logs if epochs else {},
        num_workers=0 if in_process else len(record.get("workers", ())),
        num_lost=sum(isinstance(event, WorkerLost) for event in events),
        checkpoint=checkpoints[-1] if checkpoints else None,
        last_wrote_s=wrote_s,
        problem=str(record.get(problem, "")),
    )


def _validation(logs: Mapping[str, Any]) -> str:
    """The first validation metric that is not the loss; the loss if there is no other."""
    names = [name for name in logs if name.startswith("val_")]
    name = next((each for each in names if each != "val_loss"), names[0] if names else None)
    return "" if name is None else f"{name} {number_text(logs[name])}"


def _may_be_dead(run: RunSummary, now_s: float) -> bool:
    return run.state in ("running", "starting") and now_s - run.last_wrote_s > SILENT_S


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"
