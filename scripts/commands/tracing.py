"""``heliostat trace``: runs a script until some of its steps are recorded, and keeps what its trainer wrote."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heliostat.trainer.driver.run_folder import TRACE_FILE, read_json
from heliostat.trainer.driver.run_paths import new_run_path, placed, run_folders
from heliostat.trainer.environment import Command, TraceWanted
from rich.console import Console

from ..errors import ScriptError
from .run import exit_status, run_in_child


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


def trace(
    script: Path,
    arguments: Sequence[str],
    steps: TraceWanted,
    output: Path,
    console: Console,
    *,
    run_dir: Path | None = None,
) -> None:
    """Run a script until the steps are recorded, and copy the trace out of the run folder.

    Args:
        script: the script.
        arguments: those of the script.
        steps: which steps of the run.
        output: the file to write.
        console: where to print.
        run_dir: where the fits of the script go; None makes ``runs/trace-<time>``.

    Raises:
        ScriptError: the file cannot be written, or no fit of the script has such steps.
        SystemExit: the script failed.
    """
    if not output.absolute().parent.is_dir():
        raise ScriptError(f"There is no folder {str(output.absolute().parent)!r} to write the trace into.")
    run_dir = placed(run_dir or new_run_path("trace")).absolute()
    for folder in run_folders(run_dir):  # of an earlier call with this run_dir
        (folder / TRACE_FILE).unlink(missing_ok=True)
    status = run_in_child(Command(run_dir=run_dir, trace=steps), script, arguments)
    folders = run_folders(run_dir)
    written = [folder / TRACE_FILE for folder in folders if (folder / TRACE_FILE).exists()]
    if not written:
        if status:
            sys.exit(exit_status(status))
        what = f"steps {steps.first} to {steps.last - 1}"
        why = "no fit of it has" if folders else "it called no Trainer.fit, so there are no"
        raise ScriptError(f"{script} ended, and {why} {what}. Steps are counted through a run, from 0.")
    shutil.copyfile(written[0], output)
    console.print(summary(read_json(written[0]), output), markup=False, soft_wrap=True)


def summary(written: Mapping[str, Any], output: Path) -> str:
    """What a trace holds, in a line or two."""
    workers = written["otherData"]["workers"].values()
    spans = [event for event in written["traceEvents"] if event["ph"] == "X" and event["pid"] > 0]
    steps = {event["args"]["step"] for event in spans if "step" in event["args"]}
    error_ms = 1000 * max(each["clock_error_s"] for each in workers)
    clocks = f"clocks within {error_ms:.2g} ms" if error_ms else "one clock"
    lines = [
        f"{output}: steps {min(steps)} to {max(steps)} of {len(workers)} worker(s), {len(spans):,} spans, {clocks}. "
        "Open it in https://ui.perfetto.dev or chrome://tracing."
    ]
    dropped, lost = sum(each["dropped_spans"] for each in workers), written["otherData"]["lost_workers"]
    if dropped:
        lines.append(f"{dropped:,} spans found no room: trace fewer steps.")
    if lost:
        lines.append(f"Workers lost with what they had recorded: {', '.join(map(str, lost))}.")
    return "\n".join(lines)
