"""The commands for one run, wherever it is: submit it, look after it, bring it home. As in `cli`, each imports late."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .commandline import LocalPath, as_json, show_lines

if TYPE_CHECKING:
    from heliostat.trainer.driver.display import Display

_RUN = click.argument("run", type=LocalPath(exists=True))


@click.command()
@click.option("--json", "json_wanted", is_flag=True, help="Print one JSON object instead.")
@_RUN
def status(run: Path, json_wanted: bool) -> None:
    """Say how the run in the folder RUN stands, here or on a cluster."""
    from .commands.local_runs import look

    found = look(run)
    if json_wanted:
        click.echo(as_json(found))
    else:
        show_lines(found.lines())


@click.command()
@click.option("--worker", type=click.IntRange(0), metavar="K", help="Only what worker K has printed.")
@_RUN
def logs(run: Path, worker: int | None) -> None:
    """Print the logs of the run in the folder RUN, here or on a cluster.

    Those of its workers; of a submitted run what its script has printed, unless a worker is named.
    """
    from .commands.local_runs import log_pieces

    for piece in log_pieces(run, worker):
        sys.stdout.buffer.write(piece)


@click.command()
@_RUN
def attach(run: Path) -> None:
    """Show the run in the folder RUN until it ends, here or on a cluster.

    The run may be in another process, on a cluster, or over. Ctrl-C leaves it alone. The exit status is the run's: 0, 1
    after an error, 75 when it was paused.
    """
    from .commands.local_runs import attach as show

    with closing(_screen()) as screen:
        try:
            raise SystemExit(show(run, screen))
        except KeyboardInterrupt:
            screen.say(left_alone(run))
            raise SystemExit(130) from None


@click.command()
@_RUN
def stop(run: Path) -> None:
    """Let the run in the folder RUN pause with a checkpoint, here or on a cluster, and wait until it has."""
    from .commands.local_runs import stop as pause

    with closing(_screen()) as screen:
        raise SystemExit(pause(run, screen))


def left_alone(run: Path) -> str:
    """What to do next, once Ctrl-C has ended the watching."""
    names = "\n".join(f"  heliostat {name} {run}" for name in ("attach", "status", "logs", "stop"))
    return f"the run goes on. To come back:\n{names}"


def _screen() -> Display:
    from heliostat.trainer.driver.screen import make_display

    return make_display("auto")


COMMANDS = (status, logs, attach, stop)
