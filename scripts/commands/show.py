"""``heliostat show``: what came out of a run, what limited it and what happened, from the files of its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from heliostat.trainer.driver.patient_files import PatientFiles
from heliostat.trainer.driver.reports import event_lines, write_report
from heliostat.trainer.driver.run_folder import REPORT_FILE, read_run
from heliostat.trainer.errors.texts import duration_text, moment_text, number_text, short_text, size_text
from heliostat.trainer.report.summary import Summary, WorkerSummary, shares_of, summary_of

from ..commandline import as_json
from ..console import table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LAST_EVENTS = 20
_MAX_SHARES, _LEAST_SHARE = 4, 0.005
# Groups of time -> their headings in a narrow table.
_SHOWN: Mapping[str, str] = {
    "computing": "compute",
    "optimizer": "update",
    "waiting for rows": "rows",
    "waiting for others": "others",
    "all-reduce": "reduce",
    "validating": "valid",
    "callbacks": "hooks",
    "checkpoints": "save",
    "starting": "start",
    "other": "other",
}


def show(run_dir: Path, console: Console, *, json_wanted: bool, report_wanted: bool) -> None:
    """Print what a run came to.

    Args:
        run_dir: the run folder.
        console: where to print.
        json_wanted: print what ``summary.json`` has instead.
        report_wanted: write ``report.html`` and ``summary.json`` anew; of a run that goes on, as it stands.

    Raises:
        TrainerError: the folder holds no run, or cannot be read or written.
    """
    if report_wanted:
        write_report(run_dir, PatientFiles(run_dir))
    run = read_run(run_dir)
    summary, lines = summary_of(run), event_lines(run)
    if json_wanted:
        console.file.write(as_json(summary.to_json()) + "\n")
        return
    for line in run_lines(run_dir, summary):
        console.print(line, markup=False, soft_wrap=True)
    if summary.workers:
        console.print(workers_table(summary))
    shown = list(zip(run.events, lines, strict=True))[-LAST_EVENTS:]
    if len(shown) < len(lines):
        console.print(f"the last {len(shown)} of {len(lines)} events:", markup=False)
    for event, line in shown:
        console.print(f"{moment_text(event.time)}  {short_text(line)}", markup=False, soft_wrap=True)
    if (run_dir / REPORT_FILE).exists():
        console.print(f"report: {run_dir / REPORT_FILE}", markup=False, soft_wrap=True)
    else:
        console.print(f"no report yet: heliostat show --report {run_dir}", markup=False, soft_wrap=True)


def run_lines(run_dir: Path, summary: Summary) -> Iterator[str]:
    """State, verdict and figures of a run.

    Args:
        run_dir: its folder.
        summary: of it.
    """
    epochs = f"{summary.epochs_done} of {'?' if summary.epochs is None else summary.epochs} epochs"
    took = f", took {duration_text(summary.seconds)}" if summary.seconds else ""
    yield f"{run_dir}: {summary.state}, {epochs}{took}"
    if summary.problem:
        yield short_text(summary.problem.split("\n")[0])
    yield f"verdict: {summary.sentence}"
    if summary.metrics:
        yield "  ".join(f"{short_text(name)} {number_text(value)}" for name, value in summary.metrics.items())
    if summary.samples_per_s is not None and summary.step_s is not None:
        yield f"{summary.rows:,} rows, {summary.samples_per_s:,.0f} samples/s, {duration_text(summary.step_s)} a step"


def workers_table(summary: Summary) -> Table:
    """A row for each worker that fits 80 columns: what of its time went where, the largest shares,
    and its pace: how long it computes one microbatch on each of its replicas."""
    mean = shares_of(summary.seconds_by_part)
    largest = sorted(_SHOWN, key=lambda name: -mean[name])[:_MAX_SHARES]
    groups = [name for name in _SHOWN if name in largest and mean[name] >= _LEAST_SHARE]
    headings = (">", "+machine", *(f">{_SHOWN[name]}" for name in groups), ">pace", ">memory")
    return table(headings, [_row(each, groups) for each in summary.workers])


def _row(worker: WorkerSummary, groups: list[str]) -> list[str]:
    pace = "" if worker.microbatch_s is None else duration_text(worker.microbatch_s)
    shares = shares_of(worker.seconds)
    memory = size_text(sum(worker.memory.values())) if worker.memory else ""
    where = f"{worker.host} (lost)" if worker.left else worker.host
    return [str(worker.worker), where, *(f"{shares[name]:.0%}" for name in groups), pace, memory]
