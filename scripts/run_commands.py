"""The commands for one run, wherever it is: submit it, look after it, bring it here. As in `cli`, each imports late."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from .commandline import LocalPath, as_json, show_lines

if TYPE_CHECKING:
    from heliostat.trainer.driver.display import Display
    from heliostat.trainer.driver.screen import Verbose

_RUN = click.argument("run", type=LocalPath(exists=True))


# Options of submit may follow the script; all that submit does not know is the script's.
@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--address", metavar="ADDRESS", help="Of the cluster's job server: http://HEAD:8265.  [default: HELIOSTAT_ADDRESS]"
)
@click.option("--workers", type=click.IntRange(0), help="How many, whatever the script says.")
@click.option("--run-dir", type=LocalPath(), help="Folder of the run here.  [default: runs/<script>-<time>]")
@click.option("--plan", is_flag=True, help="Say what is sent and how its first task would be computed; end there.")
@click.argument("script", type=LocalPath(is_folder=False, exists=True))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def submit(
    script: Path,
    arguments: tuple[str, ...],
    address: str | None,
    workers: int | None,
    run_dir: Path | None,
    *,
    plan: bool,
) -> None:
    """Run SCRIPT with ARGUMENTS as a job of a Ray cluster, and show it as if it ran here.

    Sends the folder of the script (without environments, runs, and what begins with a dot) and Heliostat itself, by the
    one port of the cluster's job server. The run folder is brought here at the end. Ctrl-C leaves the run alone.

    With --run-dir the same command goes on with a run whose job has ended.

    Options of the script that have the same names go behind `--`:
    heliostat submit train.py --address http://HEAD:8265 -- --workers 4

    With --plan the job trains nothing: it says where and how the first fit, evaluate or predict would be computed.

    The exit status is the run's, as for `heliostat run`.
    """
    from heliostat.trainer.environment import named_address

    from .commands.submit import Submission
    from .commands.submit import plan as say_plan
    from .commands.submit import submit as send

    place = address or named_address() or ""
    if not place.startswith(("http://", "https://")):
        said = f"{place!r} is none" if place else "there is none"
        raise click.UsageError(f"--address must be that of a cluster's job server, http://HEAD:8265; {said}.")
    wanted = Submission(script=script, arguments=arguments, address=place, workers=workers, run_dir=run_dir)
    with closing(_screen()) as screen:
        raise SystemExit(say_plan(wanted, screen) if plan else send(wanted, screen))


@click.command()
@click.option("--json", "json_wanted", is_flag=True, help="Print one JSON object instead.")
@_RUN
def status(run: Path, json_wanted: bool) -> None:
    """Say how the run in the folder RUN stands, here or on a cluster."""
    found = _commands(run).look(run)
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
    for piece in _commands(run).log_pieces(run, worker):
        sys.stdout.buffer.write(piece)


@click.command()
@click.option("--json", "json_wanted", is_flag=True, help="Print what happens as JSON objects, one on each line.")
@_RUN
def attach(run: Path, json_wanted: bool) -> None:
    """Show the run in the folder RUN until it ends, here or on a cluster.

    The run may be in another process, on a cluster, or over. Ctrl-C leaves it alone. A submitted run is brought here at
    its end. The exit status is the run's: 0, 1 after an error, 75 when it was paused.
    """
    with closing(_screen("json" if json_wanted else "auto")) as screen:
        raise SystemExit(_commands(run).attach(run, screen))


@click.command()
@_RUN
def stop(run: Path) -> None:
    """Let the run in the folder RUN pause with a checkpoint, here or on a cluster, and wait until it has."""
    with closing(_screen()) as screen:
        raise SystemExit(_commands(run).stop(run, screen))


@click.command()
@_RUN
def fetch(run: Path) -> None:
    """Bring the run folder of the submitted run RUN from the cluster into the folder RUN.

    Compares every file with its hash; what is here already is not fetched again. Further run folders of the same script
    are put beside it, as RUN-2, RUN-3 ...
    """
    with closing(_screen()) as screen:
        _commands(run).fetch(run, screen)


def _commands(run: Path) -> ModuleType:
    """The module for runs of this machine, or that for submitted ones; both have the same functions."""
    from heliostat.trainer.remote.handle import Handle

    if Handle.is_in(run):
        from .commands import submitted

        return submitted
    from .commands import local_runs

    return local_runs


def _screen(verbose: Verbose = "auto") -> Display:
    from heliostat.trainer.driver.screen import make_display

    return make_display(verbose)


COMMANDS = (submit, status, logs, attach, stop, fetch)
