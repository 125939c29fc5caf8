"""``heliostat run``: a user's script as ``__main__``, with Heliostat's errors shown shortly.

Like ``python script.py``: its folder comes first on `sys.path`, `sys.argv` holds the script and its arguments, its exit
status is the command's. Of an error of Heliostat the frames of the user's code and the message are shown, with exit
status 1; a pause is a message and exit status 75. Unlike ``python``, a traceback of any other error begins in the
script; the interpreter is the one that Heliostat is installed in, and its options (``-O``, ``-W``, ``-m`` ...) cannot
be given.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

import click
from heliostat.trainer.environment import Command, ask_for_plan, is_plan_waiting
from heliostat.trainer.errors import CallDetachedError, RunPausedError

from ..endings import Ending
from ..failures import full_account, is_ours, is_pause, message_of, short_account


def run_script(script: Path, arguments: Sequence[str], *, show_traceback: bool) -> None:
    """Run the script to its end in this process; `sys.argv` and `sys.path` stay as the script had them.

    Args:
        script: the script.
        arguments: its own.
        show_traceback: show tracebacks of Heliostat's errors.

    Raises:
        SystemExit: as the script does; with status 1 after an error.
        ClickException: for an error of Heliostat.
        Ending: a run was paused (status 75), or Ctrl-C has left a call alone, which runs on a cluster.
    """
    path = str(script)
    try:
        as_main(script, arguments)
    except CallDetachedError as error:
        raise Ending(str(error), error.exit_status) from error
    except Exception as error:
        if is_pause(error):
            raise Ending(message_of(error), RunPausedError.exit_status) from error
        if is_ours(error) and not show_traceback:
            raise Ending(short_account(error, f"heliostat --traceback run {path}"), 1) from error
        click.echo(full_account(error, path), err=True, nl=False)
        raise SystemExit(1) from error


def as_main(script: Path, arguments: Sequence[str]) -> None:
    """Run the script to its end as ``__main__``, with its arguments; raises what it raises."""
    sys.argv[:] = [str(script), *arguments]
    # Resolved as Python does it. Ray hands this folder to the workers, so that they find the script's neighbours.
    sys.path.insert(0, str(script.resolve().parent))
    runpy.run_path(str(script), run_name="__main__")


def plan_script(script: Path, arguments: Sequence[str], *, show_traceback: bool) -> None:
    """Run the script up to its first task, and let that be planned; arguments and errors are those of `run_script`.

    Raises:
        ClickException: the script has come to its end without a task.
    """
    ask_for_plan()
    run_script(script, arguments, show_traceback=show_traceback)
    if is_plan_waiting():
        raise click.ClickException(nothing_to_plan(script))


def nothing_to_plan(script: Path) -> str:
    """What is said of a script that has come to its end without a task."""
    return f"{script} ended and called no fit, evaluate or predict: there is nothing to plan."


def run_in_child(
    command: Command,
    script: Path,
    arguments: Sequence[str],
    *,
    directory: Path | None = None,
    show_traceback: bool = True,
    stdout: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Run a script as ``heliostat run`` does, in a process of its own whose `fit` is told what a command wants.

    Signals are left to that process: it gets Ctrl-C from the terminal, as this one does, and SIGTERM from here.

    Args:
        command: what is wanted of the script.
        script: the script; `arguments` are its own.
        directory: where it is run; None stays here.
        show_traceback: show tracebacks of Heliostat's errors.
        stdout: file descriptor for what it prints; None for this process's standard output.
        environ: variables of its environment, besides this process's own.

    Returns:
        Its exit status; the negative number of a signal that ended it.
    """
    # -P: the folder of the script, and not this one, is the first that modules are looked for in.
    called = [sys.executable, "-P", "-m", "heliostat.scripts.cli", *(["--traceback"] if show_traceback else []), "run"]
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if child is not None and number == signal.SIGTERM:
            child.terminate()

    with contextlib.ExitStack() as after:
        for number in (signal.SIGINT, signal.SIGTERM):
            after.callback(signal.signal, number, signal.signal(number, pass_on))
        child = subprocess.Popen(
            [*called, str(script), *arguments],
            cwd=directory,
            env={**os.environ, **(environ or {}), **command.variables()},
            stdout=stdout,
        )
        return child.wait()


def exit_status(status: int) -> int:
    """The exit status for the end of a child, as a shell gives it: 128 and the number of a signal that ended it."""
    return status if status >= 0 else 128 - status
