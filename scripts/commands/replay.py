"""``heliostat replay``: has one step of a run computed again, alone in one process, and shows what came out of it."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from heliostat.data import Dataset, DatasetError, open_dataset
from heliostat.data.order.plan import BatchPlan
from heliostat.trainer.driver.run_folder import REPLAY_FILE, read_json
from heliostat.trainer.environment import ReplayWanted
from heliostat.trainer.single_steps import MicrobatchReplay, ReplayReport
from rich.console import Console
from rich.table import Table

from ..commandline import as_json
from ..console import cell, table
from ..errors import ScriptError
from .recorded import RecordedRun, recorded_run, run_again
from .run import exit_status
from .runs import number_text

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


def replay(run_dir: Path, wanted: ReplayWanted, console: Console, *, json_wanted: bool, show_traceback: bool) -> None:
    """Have a step computed again and print what was found.

    Args:
        run_dir: the run folder.
        wanted: the step, and one of its microbatches or all.
        console: where to print.
        json_wanted: print one JSON object, and nothing else on standard output.
        show_traceback: show tracebacks of Heliostat's errors.

    Raises:
        ConfigurationError: the folder holds no run, or one without checkpoints.
        ScriptError: there is no such step or microbatch, or the run was not started from a script that is still there.
    """
    recorded = recorded_run(run_dir)
    check_wanted(recorded.record, wanted)
    path = recorded.run_dir / REPLAY_FILE
    path.unlink(missing_ok=True)
    # With --json standard output (1) is for the object alone.
    status = run_again(recorded, show_traceback=show_traceback, replay=wanted, stdout=2 if json_wanted else None)
    if not path.exists():
        if status:
            sys.exit(exit_status(status))
        raise ScriptError(
            f"{recorded.script} ended without the replay: it did not come to its fit number {recorded.fit}, which made "
            "the run, or it let no error of that fit through. It was changed, or does something else than it did then."
        )
    report = msgspec.convert(read_json(path), ReplayReport)
    rows: Sequence[Rows | None]
    try:
        rows, no_rows = read_rows(recorded_dataset(recorded), recorded.record["identity"]["seed"], report), ""
    except (DatasetError, ScriptError, OSError) as error:
        rows, no_rows = [None] * len(report.microbatches), f"The values of the rows cannot be shown: {error}"
    if json_wanted:
        console.file.write(as_json(as_object(report, wanted, rows) | ({"note": no_rows} if no_rows else {})) + "\n")
        return
    for line in (headline(report, wanted), *([no_rows] if no_rows else [])):
        console.print(line, markup=False, soft_wrap=True)
    for each, of_it in zip(report.microbatches, rows, strict=True):
        show_microbatch(each, of_it, console)


def recorded_dataset(recorded: RecordedRun) -> Dataset:
    """The dataset that a run was trained on, opened by what its record says.

    Raises:
        DatasetError: it cannot be opened, or not by a path: a view, which only its script can make again.
        ScriptError: what is there now is another one.
    """
    about = recorded.record["data"]["train"]
    name = about["path"]
    found = open_dataset(name if "://" in name else recorded.directory / name)
    if found.fingerprint != about["fingerprint"]:
        raise ScriptError(f"{name} holds other rows than the run was trained on.")
    return found


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
    """The first rows of every microbatch, as they were computed.

    Args:
        dataset: what the run was trained on.
        seed: of the run, which decides what a row that is drawn or changed at random holds.
        report: the microbatches.

    Raises:
        DatasetError: rows cannot be read.
    """
    names = [name for name, column in dataset.schema.items() if not column.is_variable]
    found = []
    with dataset.reader(names) as reader:
        reader.start_pass(seed=seed, epoch=report.pass_number)
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


def as_object(report: ReplayReport, wanted: ReplayWanted, rows: Sequence[Rows | None]) -> dict[str, Any]:
    """The report as a JSON object.

    Args:
        report: what was found.
        wanted: what was asked for.
        rows: of every microbatch; None, which is null, where they cannot be read.
    """
    microbatches = [
        {**asdict(each), "first_rows": of_it and {"row_ids": of_it.row_ids, "first_values": of_it.values}}
        for each, of_it in zip(report.microbatches, rows, strict=True)
    ]
    present = list(report.present)
    step = {"step": wanted.step, "epoch": report.epoch, "step_of_epoch": report.step, "present": present}
    return {**step, "microbatches": microbatches}


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


def show_microbatch(found: MicrobatchReplay, rows: Rows | None, console: Console) -> None:
    """Print one microbatch: rows, loss and metrics, gradient norms.

    Args:
        found: the microbatch.
        rows: its first rows, None if they cannot be read.
        console: where to print.
    """
    metrics = ", ".join(f"{name} {number_text(value)}" for name, value in found.logs.items())
    console.print(f"\nmicrobatch {found.number}: {len(found.row_ids)} row(s); {metrics}", markup=False, soft_wrap=True)
    console.print(f"rows {_listed(found.row_ids)}", markup=False, soft_wrap=True)
    if rows is not None:
        console.print(rows_table(rows))
    console.print(norms_table(found))
    left = len(found.norms) - SHOWN_NORMS
    if left > 0:
        console.print(f"... and {left} smaller ones (--json has all)", markup=False)
    if found.nonfinite:
        console.print(f"NOT FINITE: {', '.join(found.nonfinite)}", markup=False, soft_wrap=True)


def rows_table(rows: Rows) -> Table:
    """The first values of the first rows; what is not finite is marked."""
    headings = (f"{name} (of {num})" if num > SHOWN_VALUES else name for name, num in rows.num_values.items())
    values = (
        (row_id, *(" ".join(map(_value, column[place])) for column in rows.values.values()))
        for place, row_id in enumerate(rows.row_ids)
    )
    return table([">row", *map(cell, headings)], values)


def norms_table(found: MicrobatchReplay) -> Table:
    """Gradient norms by variable, what is not finite first, then the largest."""

    def rank(item: tuple[str, float]) -> tuple[bool, float]:
        name, norm = item
        return name not in found.nonfinite, -norm if math.isfinite(norm) else -math.inf

    norms = sorted(found.norms.items(), key=rank)[: max(SHOWN_NORMS, len(found.nonfinite))]
    marked = ((name, f"{norm:.4g}", "<- not finite" if name in found.nonfinite else "") for name, norm in norms)
    return table(["+variable", ">gradient norm", ""], marked)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else f"<{value}>"
    return str(value)


def _listed(numbers: Sequence[int]) -> str:
    """Numbers with commas between them, the first ones of many."""
    text = ", ".join(str(number) for number in numbers[:SHOWN_IDS])
    return text if len(numbers) <= SHOWN_IDS else f"{text} and {len(numbers) - SHOWN_IDS} more"
