"""How a command ends that has watched a run: what it prints on standard error, and its exit status."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import click

INTERRUPTED = 130  # as a shell says of what Ctrl-C has ended


class Ending(click.ClickException):
    """Ends a command with a text and an exit status.

    Args:
        text: for standard error, as it is.
        status: of the command.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # of the class there
        """The exit status of the command."""
        return self.status

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the text."""
        click.echo(self.format_message(), file=file, err=file is None)


class LeftAlone(Ending):
    """Ctrl-C has ended the watching, and the run goes on.

    Args:
        run: its folder.
        commands: what leads back to it.
    """

    def __init__(self, run: Path, commands: Sequence[str]) -> None:
        listed = "\n".join(f"  heliostat {name} {run}" for name in commands)
        super().__init__(f"The run goes on. To come back to it:\n{listed}", INTERRUPTED)
