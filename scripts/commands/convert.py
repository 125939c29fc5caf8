"""``heliostat convert``: files, folders and data sets of Keras to datasets, with a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from heliostat.data.conversion.convert import Conversion
from heliostat.data.conversion.convert import convert as write
from heliostat.data.errors import DatasetError
from heliostat.data.format.columns import Column
from heliostat.data.stored import StoredDataset
from heliostat.trainer.environment import quiet_tensorflow
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import ScriptError


def convert(
    source: str,
    destination: os.PathLike[str],
    *,
    columns: Sequence[str] = (),
    fill_nulls: Sequence[str] = (),
    features: Sequence[str] = (),
    console: Console,
    **options: Any,
) -> StoredDataset:
    """Write the source as a dataset, see `heliostat.data.convert`; what it found and how far it is goes to the console.

    `columns` are NAME=KIND, `fill_nulls` NAME=VALUE. Raises ScriptError for
    others, DatasetError, OSError, and click.Abort after Ctrl-C, which leaves what is complete.
    """
    quiet_tensorflow()  # if the source needs it
    with _shown(console) as on_progress:
        try:
            return write(
                source,
                destination,
                columns=_pairs(columns, "--column", "KIND"),
                fill_nulls=_pairs(fill_nulls, "--fill-null", "VALUE"),
                features=list(features) or None,
                on_progress=on_progress,
                **options,
            )
        except KeyboardInterrupt:
            click.echo("Interrupted. The same command with --resume goes on from the complete shards.", err=True)
            raise click.Abort from None
        except (DatasetError, OSError):
            if options.get("resume"):
                click.echo("What is complete is kept: the same command with --resume goes on from there.", err=True)
            raise


def _pairs(texts: Sequence[str], option: str, what: str) -> dict[str, str]:
    found = {}
    for text in texts:
        # A name may hold a sign of equality, a kind does not.
        name, equals, value = text.rpartition("=") if what == "KIND" else text.partition("=")
        if not name or not equals or (not value and what == "KIND"):
            raise ScriptError(f"{option} {text!r} should be NAME={what}.")
        found[name] = value
    return found


@contextmanager
def _shown(console: Console) -> Iterator[Callable[[Conversion], None]]:
    """Shows the columns once rows come, and a progress bar where there is a terminal."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]} rows, {task.fields[size]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("converting", total=None, rows="0", size="0 MB")
        state = {"is_new": True}

        def on_progress(now: Conversion) -> None:
            if now.columns is None:
                bar.update(task, description="looking through the source", size=f"{now.num_bytes / 1e6:,.1f} MB")
                return
            if state["is_new"]:
                state["is_new"] = False
                bar.print(found_text(now), markup=False, highlight=False, soft_wrap=True)
            by_bytes = bool(now.total_bytes)
            bar.update(
                task,
                description="converting",
                completed=now.num_bytes if by_bytes else now.num_rows,
                total=now.total_bytes if by_bytes else now.total_rows,
                rows=_of(now.num_rows, now.total_rows),
                size=f"{now.num_bytes / 1e6:,.1f} MB",
            )

        yield on_progress


def found_text(now: Conversion) -> str:
    """What a source was found to be, in a line."""
    rows = "" if now.total_rows is None else f", {now.total_rows:,} rows"
    if now.columns is None:
        return f"{now.kind}{rows}"
    return f"{now.kind}{rows}: " + ", ".join(f"{column.name} {_type(column)}" for column in now.columns)


def _of(part: int, whole: int | None) -> str:
    return f"{part:,}" if whole is None else f"{part:,} of {whole:,}"


def _type(column: Column) -> str:
    if column.kind in ("string", "bytes"):
        return column.kind
    shape = f"[{','.join(map(str, column.shape))}]" if column.shape else ""
    return f"{'list:' if column.kind == 'list' else ''}{column.dtype.name}{shape}"
