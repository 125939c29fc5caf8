"""``heliostat convert``: files, folders and data sets of Keras to datasets; says what it found, and how far it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import click
from heliostat.data.conversion.convert import Conversion
from heliostat.data.conversion.convert import convert as write
from heliostat.data.errors import DatasetError
from heliostat.data.format.columns import Column
from heliostat.data.stored import StoredDataset
from heliostat.trainer.driver.display import Display
from heliostat.trainer.driver.doing import Doing
from heliostat.trainer.environment import quiet_tensorflow

from ..errors import ScriptError


def convert(
    source: str,
    destination: os.PathLike[str],
    *,
    columns: Sequence[str] = (),
    fill_nulls: Sequence[str] = (),
    features: Sequence[str] = (),
    screen: Display,
    **options: Any,
) -> StoredDataset:
    """Write the source as a dataset, see `heliostat.data.convert`; what it found and how far it is goes to the screen.

    `columns` are NAME=KIND, `fill_nulls` NAME=VALUE. Raises ScriptError for
    others, DatasetError, OSError, and click.Abort after Ctrl-C, which leaves what is complete.
    """
    quiet_tensorflow()  # if the source needs it
    screen.doing(Doing(what="opening the source"))
    try:
        return write(
            source,
            destination,
            columns=_pairs(columns, "--column", "KIND"),
            fill_nulls=_pairs(fill_nulls, "--fill-null", "VALUE"),
            features=list(features) or None,
            on_progress=_shown_on(screen),
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


def _shown_on(screen: Display) -> Callable[[Conversion], None]:
    """Shows the columns once rows come, and how far it is."""
    said = list[str]()

    def show(now: Conversion) -> None:
        if now.columns is None:
            screen.doing(Doing(what="looking through the source", done=now.num_bytes, unit="bytes"))
            return
        if not said:
            said.append(found_text(now))
            screen.say(said[0])
        if now.total_bytes or not now.total_rows:
            screen.doing(Doing(what="converting", done=now.num_bytes, total=now.total_bytes or None, unit="bytes"))
        else:
            screen.doing(Doing(what="converting", done=now.num_rows, total=now.total_rows, unit="rows"))

    return show


def found_text(now: Conversion) -> str:
    """What a source was found to be, in a line."""
    rows = "" if now.total_rows is None else f", {now.total_rows:,} rows"
    if now.columns is None:
        return f"{now.kind}{rows}"
    return f"{now.kind}{rows}: " + ", ".join(f"{column.name} {_type(column)}" for column in now.columns)


def _type(column: Column) -> str:
    if column.kind in ("string", "bytes"):
        return column.kind
    shape = f"[{','.join(map(str, column.shape))}]" if column.shape else ""
    return f"{'list:' if column.kind == 'list' else ''}{column.dtype.name}{shape}"
