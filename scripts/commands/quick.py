"""``heliostat run --quick``: has a script do a little of everything, in a folder that goes again, and tells of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from heliostat.trainer.driver.quick import read_passes
from heliostat.trainer.driver.run_folder import read_epochs, read_events, read_record, read_samples
from heliostat.trainer.driver.run_paths import run_folders
from heliostat.trainer.environment import Command
from heliostat.trainer.jobs import MODEL_FILE
from heliostat.trainer.shortened import QuickWanted
from rich.console import Console

from ..errors import ScriptError
from .quick_report import FitDone, parts_of, parts_table, verdict
from .run import exit_status, run_in_child

STEPS = 2


def quick(script: Path, arguments: Sequence[str], console: Console, *, show_traceback: bool) -> int:
    """Run a script with little to do, and print what of it went well and how long it took; returns the exit status.

    Args:
        script: the script.
        arguments: its own.
        console: where to print.
        show_traceback: show tracebacks of Heliostat's errors.

    Raises:
        ScriptError: the script came to its end without a fit, evaluate or predict.
    """
    before = _files_here()
    with tempfile.TemporaryDirectory(prefix="heliostat-quick-") as scratch:
        command = Command(run_dir=Path(scratch) / "run", quick=QuickWanted(steps=STEPS))
        status = run_in_child(command, script, arguments, show_traceback=show_traceback)
        fits = [_fit(number, folder) for number, folder in enumerate(run_folders(command.run_dir), start=1)]
        parts = parts_of(fits, read_passes(Path(scratch)))
    if not parts:
        if status:
            return exit_status(status)
        raise ScriptError(f"{script} ended and called no fit, evaluate or predict: there is nothing to try.")
    console.print(parts_table(parts))
    if written := sorted(name for name, changed in _files_here().items() if before.get(name) != changed):
        _say(console, f"the script itself has written here: {', '.join(written)}")
    _say(console, verdict(parts, status))
    return exit_status(status) or int(any(part.failed for part in parts))


def _fit(number: int, folder: Path) -> FitDone:
    model = folder / MODEL_FILE
    return FitDone(
        number=number,
        record=read_record(folder),
        epochs=read_epochs(folder),
        events=read_events(folder),
        samples=read_samples(folder),
        model_bytes=model.stat().st_size if model.exists() else 0,
    )


def _files_here() -> Mapping[str, int]:
    """What lies in the working directory, with when it was changed."""
    return {entry.name: entry.stat(follow_symlinks=False).st_mtime_ns for entry in os.scandir(".")}


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
