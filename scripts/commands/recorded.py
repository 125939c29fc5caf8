"""The command that began a run, as ``run.json`` has it, and running it again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliostat.trainer.driver.run_folder import RUN_FILE, read_record
from heliostat.trainer.environment import Command, ReplayWanted
from heliostat.trainer.remote.handle import Handle

from ..errors import ScriptError
from .run import run_in_child

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
        ScriptError: the run never began, it was not started from a script, the script is gone, or one of these is
            somebody else's.
    """
    run_dir = run_dir.absolute()
    if Handle.is_in(run_dir):
        handle = Handle.read(run_dir)
        script = handle.script or "SCRIPT"
        how = f"heliostat submit {script} --address {handle.address} --run-dir {run_dir}"
        if handle.what == "call":
            how = f"run {script} again, with run_dir={str(run_dir)!r}"
        raise ScriptError(f"{str(run_dir)!r} stands for a run on a cluster. To go on with it there: {how}")
    record = read_record(run_dir)
    _check_owners(run_dir, run_dir / RUN_FILE)
    command = record.get("command")
    if command is None:
        raise ScriptError(
            f"The run in {str(run_dir)!r} failed before it began ({record.get('error', 'no reason is recorded')}), so "
            "nothing says how it was started. Run its script again with run_dir set to this folder."
        )
    argv, directory = list(map(str, command["argv"])) or [""], Path(command["directory"])
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
    if command.get("masked"):
        raise ScriptError(
            f"The run in {str(run_dir)!r} was started with secrets on its command line, which are not recorded: "
            f"{' '.join(argv)}. Start it again with them, and with this run_dir: it goes on where it was."
        )
    _check_owners(path)
    return RecordedRun(
        run_dir=run_dir,
        record=record,
        script=Path(argv[0]),
        arguments=tuple(argv[1:]),
        directory=directory,
        fit=int(command["fit"]),
    )


def _check_owners(*paths: Path) -> None:
    """Raise ScriptError unless these files are this user's or root's: what they say is run."""
    for path in paths:
        owner = path.stat().st_uid
        if owner not in (os.geteuid(), 0):
            raise ScriptError(
                f"{str(path)!r} belongs to another user (uid {owner}; this process has {os.geteuid()}), so the command "
                "and the script that it names are not run here: they could be anything. Look at them, and run the "
                "script yourself with this run_dir; or make the folder and the script your own (chown)."
            )


def run_again(
    recorded: RecordedRun, *, show_traceback: bool, replay: ReplayWanted | None = None, stdout: int | None = None
) -> int:
    """Run the script of a run again, in the directory it was started in, so that its `fit` goes on with the run.

    Args:
        recorded: the run.
        show_traceback: show tracebacks of Heliostat's errors.
        replay: the step that the `fit` shall compute again instead.
        stdout: see `run_in_child`, which says what is returned.
    """
    command = Command(run_dir=recorded.run_dir, fit=recorded.fit, replay=replay)
    return run_in_child(
        command,
        recorded.script,
        recorded.arguments,
        directory=recorded.directory,
        show_traceback=show_traceback,
        stdout=stdout,
    )
