"""What the commands of ``heliostat`` share: groups in the help, paths with ``~``, errors as messages, the console."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .failures import full_account, is_ours, message_of

if TYPE_CHECKING:
    from heliostat.trainer.driver.display import Display

    from .console import SafeConsole

PACKAGES = ("heliostat", "tensorflow", "keras", "ray")
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Train": ("run", "submit", "resume", "runs"),
    "Look after a run": ("status", "logs", "attach", "stop", "fetch"),
    "After a run": ("show", "diff"),
    "Data": ("convert", "inspect", "verify", "upload"),
    "Look closer": ("doctor", "verify-run", "replay", "trace", "bench", "chaos"),
    "Try": ("demo",),
}
# What others call them.
OTHER_NAMES = {
    "train": "run",
    "start": "run",
    "continue": "resume",
    "ls": "runs",
    "list": "runs",
    "describe": "inspect",
    "report": "show",
    "summary": "show",
    "compare": "diff",
    "info": "inspect",
    "check": "verify",
    "prove": "verify-run",
    "diagnose": "doctor",
    "preflight": "doctor",
    "import": "convert",
    "push": "upload",
    "profile": "trace",
    "benchmark": "bench",
    "debug": "replay",
    "log": "logs",
    "tail": "logs",
    "follow": "attach",
    "watch": "attach",
    "cancel": "stop",
    "kill": "stop",
    "pause": "stop",
    "launch": "submit",
    "queue": "submit",
    "download": "fetch",
    "pull": "fetch",
}
# Of tables in a file or a pipe: paths stay whole.
_FILE_WIDTH = 160


class LocalPath(click.Path):
    """A path of this machine; ``~`` is the home folder, in quotes too."""

    def __init__(self, *, is_folder: bool = True, exists: bool = False) -> None:
        super().__init__(path_type=Path, file_okay=not is_folder, dir_okay=is_folder, exists=exists)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """As click does; a URI is refused."""
        if "://" in str(value):
            from heliostat.trainer.driver.shown_text import masked  # not before it is needed: it is slow to import

            self.fail(f"{masked(str(value))!r} is a URI, and this must be a {self.name} of this machine.", param, ctx)
        return super().convert(str(Path(str(value)).expanduser()), param, ctx)


class Place(click.ParamType):
    """A path of this machine or a URI, as text."""

    name = "place"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, with the home folder for ``~``."""
        text = str(value)
        return str(Path(text).expanduser()) if text.startswith("~") else text


class Commands(click.Group):
    """Shows commands by section, errors of Heliostat and of the operating system as messages with exit status 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if not is_ours(error) and not isinstance(error, OSError):
                raise
            if ctx.params.get("traceback"):
                click.echo(full_account(error), err=True, nl=False)
                raise SystemExit(1) from error
            raise click.ClickException(message_of(error)) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by section, each with its first line as a whole."""
        for section, names in SECTIONS.items():
            with formatter.section(section):
                texts = {name: (self.commands[name].help or "").split("\n\n")[0] for name in names}
                formatter.write_dl([(name, " ".join(text.split()).rstrip(".")) for name, text in texts.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; a name that others use for a command is answered with ours."""
        if args and args[0] not in self.commands and args[0] in OTHER_NAMES:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {OTHER_NAMES[args[0]]!r}?")
        return super().resolve_command(ctx, args)


def show_versions(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    """Print the versions and end, if they are asked for."""
    if is_asked and not ctx.resilient_parsing:
        click.echo(", ".join(f"{package} {_version(package)}" for package in PACKAGES))
        ctx.exit()


def console(*, stderr: bool = False) -> SafeConsole:
    """The console of this command; only what shows tables loads rich."""
    from .console import SafeConsole

    found = SafeConsole(highlight=False, stderr=stderr)
    if not found.is_terminal:
        found.width = _FILE_WIDTH
    return found


@contextlib.contextmanager
def progress_screen() -> Iterator[Display]:
    """What shows how far a command is, on standard error: a bar in a terminal, else lines every ten seconds."""
    from heliostat.trainer.driver.screen import make_display

    with contextlib.closing(make_display("auto", stderr=True)) as screen:
        yield screen


def bytes_shown(screen: Display, what: str) -> Callable[[int, int], None]:
    """For whoever counts bytes: shows how many are done, and how many there are."""
    from heliostat.trainer.driver.doing import Doing

    screen.doing(Doing(what=what))
    return lambda done, total: screen.doing(Doing(what=what, done=done, total=total, unit="bytes"))


def show_lines(lines: Iterable[str]) -> None:
    """Print lines, some of which hold texts of others."""
    found = console()
    for line in lines:
        found.print(line, markup=False, soft_wrap=True)


def shows_tracebacks() -> bool:
    """Whether the command line has ``--traceback``."""
    return bool(click.get_current_context().find_root().params["traceback"])


def as_json(found: object) -> str:
    """What a command has found, on a line; numbers that JSON lacks, and what is no number, are text."""
    from heliostat.trainer.checkpoints.values import to_line

    return to_line(_plain(found))


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _version(package: str) -> str:
    for name in (package, f"{package}-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "(not installed)"
