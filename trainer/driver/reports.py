"""What is written of a run when it has ended: ``report.html`` for people, ``summary.json`` for programs.

They are made from what the run folder holds by then, of a finished run as of one that has paused or failed, and made
anew when it goes on. A run that came to its end never fails for its report: a line says that there is none, and
``heliostat show`` can make it later.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..environment import links_wanted, wants_reports
from ..events import (
    CheckpointCommitted,
    Event,
    FirstStepDone,
    GroupFormed,
    Paused,
    Resumed,
    WorkerKilled,
)
from ..report.curves import steps_per_epoch
from ..report.page import page_of
from ..report.recorded import RecordedRun
from ..report.summary import Summary, summary_of
from .display import Display
from .event_lines import line_of
from .patient_files import PatientFiles
from .run_folder import REPORT_FILE, SUMMARY_FILE, RunFolder, json_text, read_run
from .start_lines import shown_path
from .words import count

_ENDS = ("finished", "paused", "failed", "interrupted")


def report_end(folder: RunFolder, screen: Display) -> None:
    """Write report and summary of a run that has ended, and say where they are; raises nothing.

    Args:
        folder: the run's, which is still held.
        screen: what the user sees.
    """
    if folder.record["state"] not in _ENDS or not wants_reports():
        return
    try:
        write_report(folder.path, folder.files)
    except Exception as error:  # whatever is wrong with a report, the run is what it is
        reason = f"{type(error).__name__}: {error}"
        screen.say(f"warning: no report of the run was written: {reason}. Later: heliostat show --report {folder.path}")
        return
    if links_wanted() is None:  # elsewhere it will be in another folder
        screen.say(f"report: {shown_path(folder.path / REPORT_FILE)}")


def write_report(path: Path, files: PatientFiles) -> Summary:
    """Make report and summary of the run in a folder, and write them there.

    Args:
        path: the run folder.
        files: what writes in it.

    Raises:
        TrainerError: the folder holds no run, or cannot be read.
        StorageError: it cannot be written.
        ImportError: what draws the plots cannot be loaded.
    """
    run = read_run(path)
    summary = summary_of(run)
    files.write(SUMMARY_FILE, json_text(summary.to_json(), indent=2), anew=True)
    files.write(REPORT_FILE, page_of(run, summary, event_lines(run)).encode(), anew=True)
    return summary


def event_lines(run: RecordedRun) -> Sequence[str]:
    """What is said of each event of a run where all of them are listed, each in a line."""
    num_steps = steps_per_epoch(run)
    return [(line_of(event, num_steps) or _line(event)).split("\n")[0] for event in run.events]


def _line(event: Event) -> str:
    """The events that a screen tells in other ways."""
    match event:
        case GroupFormed(generation=generation, workers=workers):
            return f"generation {generation}: {count(len(workers), 'worker')}"
        case FirstStepDone(worker=worker, after_s=after_s):
            return f"worker {worker} has done its first step, {after_s:.1f} s after the start"
        case CheckpointCommitted(name=name, seconds=seconds, write_s=write_s):
            return f"checkpoint {name}: steps waited {seconds:.3f} s, writing took {write_s:.2f} s"
        case Resumed(checkpoint=checkpoint):
            return f"goes on from checkpoint {checkpoint}"
        case Paused(reason=reason, checkpoint=checkpoint):
            return f"paused: {reason}; checkpoint: {checkpoint or 'none'}"
        case WorkerKilled(worker=worker, host=host):
            return f"worker {worker} on {host} was killed on purpose"
    return event.event.replace("_", " ")
