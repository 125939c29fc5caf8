"""``heliostat resume``: goes on with a run by running its script again."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heliostat.trainer.driver.run_folder import RUN_FILE, read_epochs, read_record
from heliostat.trainer.jobs import MODEL_FILE
from rich.console import Console

from ..errors import ScriptError
from .recorded import recorded_run, run_again
from .run import exit_status
from .runs import number_text


def resume(run_dir: Path, console: Console, *, show_traceback: bool) -> None:
    """Go on with the unfinished run in a folder; of a finished one, print the result.

    Args:
        run_dir: the run folder.
        console: where to print.
        show_traceback: show tracebacks of Heliostat's errors.

    Raises:
        ConfigurationError: the folder holds no run.
        ScriptError: the run was not started from a script that is still there, or that script does not come to its fit
            any more.
    """
    record = read_record(run_dir)
    if record["state"] == "finished":
        for line in result_lines(run_dir, record):
            console.print(line, markup=False, soft_wrap=True)
        return
    recorded = recorded_run(run_dir)
    console.print(f"running {' '.join([str(recorded.script), *recorded.arguments])}", markup=False, soft_wrap=True)
    before = (run_dir / RUN_FILE).stat()
    status = run_again(recorded, show_traceback=show_traceback)
    if status:
        sys.exit(exit_status(status))
    if os.path.samestat(before, (run_dir / RUN_FILE).stat()):  # a fit that uses the folder replaces it
        raise ScriptError(
            f"{recorded.script} ended without its fit number {recorded.fit}, which made the run in "
            f"{str(recorded.run_dir)!r}. It was changed, or does something else than it did then."
        )


def result_lines(run_dir: Path, record: Mapping[str, Any]) -> list[str]:
    """What came out of a finished run."""
    epochs = read_epochs(run_dir)
    logs = epochs[-1].logs if epochs else {}
    metrics = ", ".join(f"{name} {number_text(value)}" for name, value in logs.items())
    early = ", which a callback ended early" if record.get("stopped_early") else ""
    hashes = ", ".join(f"{name} {value[:8]}" for name, value in record["sha256"].items())
    return [
        f"The run in {run_dir} is finished: {record['epochs_done']} epoch(s){early}, {record['seconds']:.0f} s.",
        f"last epoch: {metrics}",
        f"sha256: {hashes}",
        f"model: {run_dir / MODEL_FILE}",
        f"To train it for more epochs, run its script with more epochs and run_dir={str(run_dir.absolute())!r}.",
    ]
