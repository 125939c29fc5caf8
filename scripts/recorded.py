"""The command that began a run, as ``run.json`` has it, and running it again with directions for its `fit`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliostat.scripts.errors import ScriptError
from heliostat.scripts.run import run_script
from heliostat.trainer.driver.directions import Directions, directed
from heliostat.trainer.driver.run_folder import read_record

# Programs that run code which is in no file: a notebook's cells, a prompt.
_LAUNCHERS = ("ipykernel_launcher.py", "colab_kernel_launcher.py", "ipython", "ipython3", "bpython", "ptpython")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """A run that a script began.

    Attributes:
        run_dir: absolute path of the run folder.
        record: what ``run.json`` says.
        script: the script, as it was named on the command line.
        arguments: those of the script.
        directory: the working directory it was started in.
        fit: which `fit` of the script it was, counted from 1.
    """

    run_dir: Path
    record: Mapping[str, Any]
    script: Path
    arguments: tuple[str, ...]
    directory: Path
    fit: int


def recorded_run(run_dir: Path) -> RecordedRun:
    """The run in a folder and how it was started.

    Raises:
        ConfigurationError: the folder holds no run.
        ScriptError: the run never began, it was not started from a script, or the script is gone.
    """
    run_dir = run_dir.absolute()
    record = read_record(run_dir)
    command = record.get("command")
    if command is None:
        raise ScriptError(
            f"The run in {str(run_dir)!r} failed before it began ({record.get('error', 'no reason is recorded')}), so "
            "nothing says how it was started. Run its script again with run_dir set to this folder."
        )
    argv, directory = list(command["argv"]) or [""], Path(command["directory"])
    path = directory / argv[0]
    by_hand = f"Run its code again where it was run, with Trainer(run_dir={str(run_dir)!r}): it goes on where it was."
    if not argv[0] or argv[0].startswith("-") or path.name in _LAUNCHERS:
        raise ScriptError(
            f"The run in {str(run_dir)!r} was not started from a script, but from a notebook, a prompt or python -c "
            f"(sys.argv was {argv!r}), so it cannot be started again from here. {by_hand}"
        )
    if not path.is_file():
        raise ScriptError(
            f"The run in {str(run_dir)!r} was started by {str(path)!r}, which is no file on this machine (any more). "
            f"Put it back. Or: {by_hand[0].lower()}{by_hand[1:]}"
        )
    return RecordedRun(
        run_dir=run_dir,
        record=record,
        script=Path(argv[0]),
        arguments=tuple(argv[1:]),
        directory=directory,
        fit=int(command["fit"]),
    )


def run_again(recorded: RecordedRun, directions: Directions, *, show_traceback: bool) -> None:
    """Run the script of a run again, in the directory it was started in, with directions for its `fit`.

    Raises what `run_script` does, `ReplayDone` after a replay, and ScriptError if the script ends before that `fit`.
    """
    with contextlib.chdir(recorded.directory), directed(directions):
        try:
            run_script(recorded.script, recorded.arguments, show_traceback=show_traceback)
        except SystemExit as ended:
            if ended.code or directions.reached:
                raise
    if not directions.reached:
        raise ScriptError(
            f"{recorded.script} ended without its fit number {recorded.fit}, which made the run in "
            f"{str(recorded.run_dir)!r}. It was changed, or does something else than it did then."
        )
