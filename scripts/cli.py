"""The command ``heliostat``: arguments and options, one function per command; the work is in a module for each.

Those modules are imported when their command runs: TensorFlow and Ray take seconds to load, ``--help`` must not.
"""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from heliostat.scripts.failures import is_ours, message_of

_PACKAGES = ("heliostat", "tensorflow", "keras", "ray")
_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)


class _Commands(click.Group):
    """Shows Heliostat's own errors, and the operating system's, as a message with exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if is_ours(error) or isinstance(error, OSError):
                raise click.ClickException(message_of(error)) from error
            raise


def _show_versions(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(", ".join(f"{package} {_version(package)}" for package in _PACKAGES))
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_versions,
    help="Show the versions of Heliostat and of what it stands on.",
)
def main() -> None:
    """Train Keras models on many workers, with the bits of one."""


@main.command()
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="0: in this process, no Ray.")
@click.option("--replicas", type=click.IntRange(1), default=1, show_default=True, help="Devices per worker.")
@click.option(
    "--loop",
    type=click.Choice(["fit", "train_on_batch", "custom", "all"]),
    default="all",
    show_default=True,
    help="The way to train.",
)
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, help="Epochs of every way.")
@click.option("--run-dir", type=_FOLDER, help="Folder of data and runs.  [default: runs/demo-<time>]")
def demo(workers: int, replicas: int, loop: Any, epochs: int, run_dir: Path | None) -> None:
    """Train a text classifier in three ways and compare them.

    The texts are docstrings of the Python packages on this machine, the classes the modules they come from: real data
    without a download. All ways share the same workers; fit and custom end with the same weights.
    """
    # Before TensorFlow is loaded: what it says about this machine's processor has no use here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    from heliostat.scripts.demo import DemoSettings, run_demo
    from heliostat.trainer.config import LOOP_NAMES
    from rich.console import Console

    settings = DemoSettings(
        workers=workers,
        replicas=replicas,
        loops=LOOP_NAMES if loop == "all" else (loop,),
        epochs=epochs,
        cache_dir=cache_dir(),
        run_dir=run_dir,
    )
    run_demo(settings, Console(highlight=False))


# Options after the script's name are the script's.
@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--traceback", is_flag=True, help="Show tracebacks of Heliostat's errors, the worker's among them.")
@click.argument("script", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(traceback: bool, script: Path, arguments: tuple[str, ...]) -> None:
    """Run SCRIPT with ARGUMENTS, as `python SCRIPT` does.

    Unlike there, an error of Heliostat is shown as its message alone, and the traceback of another error begins in the
    script. The script runs with the Python that Heliostat is installed in. Options go before SCRIPT; what follows it
    belongs to the script.
    """
    from heliostat.scripts.run import run_script

    run_script(script, arguments, show_traceback=traceback)


@main.command()
@click.argument("source", type=_FILE)
@click.argument("destination", type=_FOLDER)
@click.option("--target", metavar="COLUMN", help="CSV: this column becomes y, the features become x.")
@click.option("--features", metavar="A,B,C", help="CSV: only these columns.  [default: all others]")
@click.option("--overwrite", is_flag=True, help="Replace the dataset at DESTINATION.")
@click.option("--rows-per-shard", type=click.IntRange(1), help="Rows of a file.  [default: about 64 MiB]")
def convert(
    source: Path,
    destination: Path,
    target: str | None,
    features: str | None,
    overwrite: bool,
    rows_per_shard: int | None,
) -> None:
    """Write SOURCE (.npz, .csv or .csv.gz) as a dataset into the folder DESTINATION."""
    from heliostat.data import describe
    from heliostat.scripts.convert import convert as write

    dataset = write(
        source,
        destination,
        target=target,
        features=None if features is None else [name.strip() for name in features.split(",")],
        overwrite=overwrite,
        rows_per_shard=rows_per_shard,
    )
    click.echo(describe(dataset))


@main.command()
@click.argument("dataset", type=_FOLDER)
@click.option("--verify", is_flag=True, help="Read every shard and compare its hash with the manifest's.")
def inspect(dataset: Path, verify: bool) -> None:
    """Show the rows, files and columns of a DATASET, and how often each class occurs."""
    from heliostat.scripts.inspect import inspect as summary

    click.echo(summary(dataset, verify=verify))


def cache_dir() -> Path:
    """Return the folder for what can be made again: ``$XDG_CACHE_HOME/heliostat``, by default in ``~/.cache``."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification tells programs to ignore a relative path.
    return (Path(named) if os.path.isabs(named) else Path.home() / ".cache") / "heliostat"


def _version(package: str) -> str:
    for name in (package, f"{package}-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "(not installed)"
