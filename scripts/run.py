"""``heliostat run``: a user's script as ``__main__``, with Heliostat's errors shown as messages.

Like ``python script.py``: its folder comes first on `sys.path`, `sys.argv` holds the script and its arguments, its exit
status is the command's. Unlike it: errors of Heliostat are a message without traceback and exit status 1; a pause is a
message and exit status 75; a traceback of any other error begins in the script; the interpreter is the one that
Heliostat is installed in, and its options (``-O``, ``-W``, ``-m`` ...) cannot be given.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import click
from heliostat.scripts.failures import full_account, is_ours, is_pause, message_of

PAUSED_STATUS = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, try again


class PausedExit(click.ClickException):
    """Ends the command after a pause: its message, which is no error, and exit status 75."""

    exit_code = PAUSED_STATUS

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message."""
        click.echo(self.format_message(), file=file, err=file is None)


def run_script(script: Path, arguments: Sequence[str], *, show_traceback: bool) -> None:
    """Run the script to its end in this process; `sys.argv` and `sys.path` stay as the script had them.

    Raises SystemExit as the script does, with status 1 after an error, ClickException for an error of Heliostat, and
    PausedExit when a run was paused.
    """
    path = str(script)
    sys.argv[:] = [path, *arguments]
    # Resolved as Python does it. Ray hands this folder to the workers, so that they find the script's neighbours.
    sys.path.insert(0, str(script.resolve().parent))
    try:
        runpy.run_path(path, run_name="__main__")
    except Exception as error:
        if is_pause(error):
            raise PausedExit(message_of(error)) from error
        if is_ours(error) and not show_traceback:
            raise click.ClickException(
                f"{message_of(error)}\n(heliostat run --traceback {path} shows the tracebacks.)"
            ) from error
        click.echo(full_account(error, path), err=True, nl=False)
        raise SystemExit(1) from error
