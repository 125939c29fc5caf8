"""``heliostat replay``: computes one step of a run again, alone in this process, and shows what came out of it."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from heliostat.data import BatchPlan, Dataset
from heliostat.scripts.errors import ScriptError
from heliostat.scripts.recorded import RecordedRun, recorded_run, run_again
from heliostat.scripts.runs import number_text
from heliostat.trainer.driver.directions import Directions, ReplayDone
from heliostat.trainer.driver.run_folder import finite
from heliostat.trainer.jobs import MicrobatchReplay, ReplayReport, ReplayWanted
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

SHOWN_ROWS, SHOWN_VALUES, SHOWN_NORMS, SHOWN_IDS = 8, 4, 10, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of a microbatch.

    Attributes:
        row_ids: of the rows that are shown, the first of the microbatch.
        values: by column the first values of each of these rows.
        num_values: by column how many values a row has.
    """

    row_ids: tuple[int, ...]
    values: dict[str, list[list[Any]]]
    num_values: dict[str, int]


def replay(run_dir: Path, wanted: ReplayWanted, console: Console, *, as_json: bool, show_traceback: bool) -> None:
    """Compute a step again and print what was found; with `as_json`, as one JSON object.

    Raises:
        ConfigurationError: the folder holds no run, or one without checkpoints.
        ScriptError: there is no such step or microbatch, or the run was not started from a script that is still there.
    """
    recorded = recorded_run(run_dir)
    check_wanted(recorded.record, wanted)
    directions = Directions(run_dir=recorded.run_dir, fit=recorded.fit, replay=wanted)
    # Standard output is for the JSON object alone.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        report = _report(recorded, directions, show_traceback=show_traceback)
    data, seed = directions.data, recorded.record["identity"]["seed"]
    rows = [] if data is None else read_rows(data, seed, report)
    if as_json:
        console.file.write(json.dumps(as_object(report, wanted, rows)) + "\n")
        return
    console.print(headline(report, wanted), markup=False, soft_wrap=True)
    for each, of_it in zip(report.microbatches, rows, strict=True):
        show_microbatch(each, of_it, console)


def check_wanted(record: Mapping[str, Any], wanted: ReplayWanted) -> None:
    """Raise ScriptError unless the run of a record has such a step, and the step such a microbatch with rows."""
    identity, epochs = record["identity"], int(record["epochs"])
    plan = BatchPlan(
        num_rows=record["data"]["train"]["rows"],
        global_batch_size=identity["global_batch_size"],
        num_microbatches=identity["num_microbatches"],
        steps_per_epoch=identity["steps_per_epoch"],
    )
    first, total = identity["initial_epoch"] * plan.num_steps, epochs * plan.num_steps
    if not first <= wanted.step < total:
        raise ScriptError(
            f"The run has no step {wanted.step}: its steps are {first} to {total - 1} ({plan.num_steps} in each epoch, "
            f"counted through from 0; the last epoch is {epochs})."
        )
    if wanted.microbatch is None:
        return
    if wanted.microbatch >= plan.num_microbatches:
        raise ScriptError(
            f"The run has no microbatch {wanted.microbatch}: its steps have {plan.num_microbatches}, counted from 0."
        )
    present = plan.present(wanted.step % plan.num_steps)
    if not present[wanted.microbatch]:
        having = [number for number, here in enumerate(present) if here]
        raise ScriptError(
            f"Microbatch {wanted.microbatch} of step {wanted.step} has no rows, because the step has fewer rows than "
            f"microbatches. Those with rows: {_listed(having)}."
        )


def read_rows(dataset: Dataset, seed: int, report: ReplayReport) -> list[Rows]:
    """The first rows of every microbatch, as they were computed; raises DatasetError if they cannot be read."""
    names = [name for name, column in dataset.schema.items() if not column.is_variable]
    found = []
    with dataset.reader(names) as reader:
        reader.start_pass(seed=seed, epoch=report.epoch)
        for each in report.microbatches:
            ids = tuple(each.row_ids[:SHOWN_ROWS])
            columns = reader.gather(np.array(ids, np.int64))
            flat = {name: column.reshape(len(ids), -1) for name, column in columns.items()}
            found.append(
                Rows(
                    row_ids=ids,
                    values={name: column[:, :SHOWN_VALUES].tolist() for name, column in flat.items()},
                    num_values={name: column.shape[1] for name, column in flat.items()},
                )
            )
    return found


def as_object(report: ReplayReport, wanted: ReplayWanted, rows: Sequence[Rows]) -> dict[str, Any]:
    """The report as a JSON object."""
    microbatches = [
        {
            "number": each.number,
            "row_ids": list(each.row_ids),
            "logs": each.logs,
            "norms": each.norms,
            "nonfinite": list(each.nonfinite),
            "first_rows": {"row_ids": list(of_it.row_ids), "first_values": of_it.values},
        }
        for each, of_it in zip(report.microbatches, rows, strict=True)
    ]
    found: dict[str, Any] = finite(
        {
            "step": wanted.step,
            "epoch": report.epoch,
            "step_of_epoch": report.step,
            "present": list(report.present),
            "microbatches": microbatches,
        }
    )
    return found


def headline(report: ReplayReport, wanted: ReplayWanted) -> str:
    """What was computed, and which microbatches have something that is not finite."""
    broken = [each.number for each in report.microbatches if each.nonfinite]
    many = "microbatch" if len(broken) == 1 else "microbatches"
    verdict = f"NOT FINITE in {many} {_listed(broken)}" if broken else "everything is finite"
    computed = "all were computed" if wanted.microbatch is None else f"{wanted.microbatch} was computed"
    return (
        f"step {wanted.step} (epoch {report.epoch + 1}, step {report.step} of it): microbatches "
        f"{_listed(list(report.present))}, {computed}: {verdict}"
    )


def show_microbatch(found: MicrobatchReplay, rows: Rows, console: Console) -> None:
    """Print one microbatch: rows, loss and metrics, gradient norms."""
    metrics = ", ".join(f"{name} {number_text(value)}" for name, value in found.logs.items())
    console.print(f"\nmicrobatch {found.number}: {len(found.row_ids)} row(s); {metrics}", markup=False, soft_wrap=True)
    console.print(f"rows {_listed(found.row_ids)}", markup=False, soft_wrap=True)
    console.print(rows_table(rows))
    console.print(norms_table(found))
    left = len(found.norms) - SHOWN_NORMS
    if left > 0:
        console.print(f"... and {left} smaller ones (--json has all)", markup=False)
    if found.nonfinite:
        console.print(f"NOT FINITE: {', '.join(found.nonfinite)}", markup=False, soft_wrap=True)


def rows_table(rows: Rows) -> Table:
    """The first values of the first rows; what is not finite is marked."""
    table = Table(box=SIMPLE)
    table.add_column("row", justify="right")
    for name, num in rows.num_values.items():
        table.add_column(escape(f"{name} (of {num})" if num > SHOWN_VALUES else name))
    for place, row_id in enumerate(rows.row_ids):
        values = [" ".join(_value(value) for value in column[place]) for column in rows.values.values()]
        table.add_row(str(row_id), *values)
    return table


def norms_table(found: MicrobatchReplay) -> Table:
    """Gradient norms by variable, what is not finite first, then the largest."""
    table = Table(box=SIMPLE)
    table.add_column("variable", overflow="fold")
    table.add_column("gradient norm", justify="right")
    table.add_column("")

    def rank(item: tuple[str, float]) -> tuple[bool, float]:
        name, norm = item
        return name not in found.nonfinite, -norm if math.isfinite(norm) else -math.inf

    for name, norm in sorted(found.norms.items(), key=rank)[: max(SHOWN_NORMS, len(found.nonfinite))]:
        table.add_row(escape(name), f"{norm:.4g}", "<- not finite" if name in found.nonfinite else "")
    return table


def _report(recorded: RecordedRun, directions: Directions, *, show_traceback: bool) -> ReplayReport:
    with contextlib.suppress(ReplayDone):
        run_again(recorded, directions, show_traceback=show_traceback)
    if directions.report is None:
        raise ScriptError(f"{recorded.script} ended without the replay. It must let BaseException through.")
    return directions.report


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else f"<{value}>"
    return str(value)


def _listed(numbers: Sequence[int]) -> str:
    """Numbers with commas between them, the first ones of many."""
    text = ", ".join(str(number) for number in numbers[:SHOWN_IDS])
    return text if len(numbers) <= SHOWN_IDS else f"{text} and {len(numbers) - SHOWN_IDS} more"
