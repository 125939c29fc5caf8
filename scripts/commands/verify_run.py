"""``heliostat verify-run``: has the first steps of a script computed in several ways, and compares them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heliostat.trainer.driver.run_folder import (
    COMPARED_FILE,
    read_epochs,
    read_events,
    read_json,
    read_record,
    read_steps,
)
from heliostat.trainer.driver.run_paths import placed
from heliostat.trainer.environment import WORKERS, Command
from heliostat.trainer.events import WorkerLost
from heliostat.trainer.shortened import VerifyWanted
from heliostat.trainer.step_states import Compared
from rich.console import Console

from ..errors import ScriptError
from .run import run_in_child
from .verify_report import Steps, Verified, lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A script, and where its first steps are computed.

    Attributes:
        path: the script.
        arguments: its own.
        folder: where run folders go.
    """

    path: Path
    arguments: Sequence[str]
    folder: Path


def verify_run(
    script: Path, arguments: Sequence[str], steps: int, workers: int, console: Console, *, run_dir: Path | None = None
) -> bool:
    """Compute the first steps in four ways, print what is equal; returns whether all is that must be.

    Args:
        script: the script.
        arguments: its own.
        steps: how many steps of its first fit.
        workers: how many workers are held against one.
        console: where to print.
        run_dir: where the run folders go; None leaves nothing.

    Raises:
        ScriptError: the folder is taken, or the script failed, or trained nothing.
    """
    if run_dir is None:
        with tempfile.TemporaryDirectory(prefix="heliostat-verify-") as scratch:
            return _verified(Script(path=script, arguments=arguments, folder=Path(scratch)), steps, workers, console)
    folder = placed(run_dir).absolute()
    if folder.exists():
        raise ScriptError(f"{str(folder)!r} exists already. Give another --run-dir, or none.")
    return _verified(Script(path=script, arguments=arguments, folder=folder), steps, workers, console)


def _verified(script: Script, steps: int, workers: int, console: Console) -> bool:
    many = f"{workers} workers"
    _say(console, f"1 of 4: the first {steps} steps on {many}")
    wanted = VerifyWanted(steps=steps)
    _run(script, "first", wanted, workers)
    identity = read_record(script.folder / "first")["identity"]
    fixed = {"num_microbatches": identity["num_microbatches"], "threads": identity["threads_per_worker"]}
    _say(console, "2 of 4: the same beside plain Keras, in one process")
    _run(script, "plain", VerifyWanted(steps=steps, plain=True, **fixed), 0)
    _say(console, "3 of 4: the same on 1 worker")
    _run(script, "alone", VerifyWanted(steps=steps, **fixed), 1)
    wanted = VerifyWanted(steps=steps, kills=True, **fixed)
    _say(console, f"4 of 4: the same on {many}, of which one is killed before step {wanted.killed_before}")
    _run(script, "killed", wanted, workers)
    found = Verified(
        first=_steps(script.folder / "first", many),
        others=[_steps(script.folder / "alone", "1 worker"), _steps(script.folder / "killed", f"{many}, one killed")],
        compared=Compared.from_json(read_json(script.folder / "plain" / COMPARED_FILE)),
        notes=read_record(script.folder / "first").get("probe", {}).get("notes", []),
    )
    _say(console, "")
    for line in lines(found):
        _say(console, line)
    return found.is_proved


def _run(script: Script, name: str, wanted: VerifyWanted, workers: int) -> None:
    """Run the script as far as is wanted; raises ScriptError where that does not come to its end."""
    folder = script.folder / name
    command = Command(run_dir=folder, fit=1, verify=wanted)
    status = run_in_child(command, script.path, script.arguments, environ={WORKERS: str(workers)})
    if not folder.exists():
        raise ScriptError(
            f"{script.path} ended{f' with status {status}' if status else ''} and has begun no fit, so there is "
            "nothing to verify."
        )
    if status:
        error = str(read_record(folder).get("error", f"it ended with status {status}"))
        if error.startswith("Unsupported"):
            raise ScriptError(f"Refused at the start, before any step: {error}")
        raise ScriptError(f"{script.path} failed before its first steps were done: {error}")


def _steps(folder: Path, title: str) -> Steps:
    return Steps(
        title=title,
        seen=read_steps(folder),
        sha256=read_record(folder).get("sha256", {}),
        epochs=[epoch.logs for epoch in read_epochs(folder)],
        num_lost=sum(isinstance(event, WorkerLost) for event in read_events(folder)),
    )


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
