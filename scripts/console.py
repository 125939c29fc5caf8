"""The console of the commands: what it prints may come from files of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from heliostat.trainer.driver.shown_text import printable
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table


class SafeConsole(Console):
    """Prints strings without the escapes for terminals in them."""

    def print(self, *objects: Any, **options: Any) -> None:  # whatever rich takes
        """As `rich.console.Console.print`."""
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)


def cell(text: object) -> str:
    """Text of others for a cell of a table: no escapes, no markup."""
    return escape(printable(str(text)))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> Table:
    """A table of texts of others.

    Args:
        columns: their headings; those that begin with ">" are of numbers, those with "+" may be long.
        rows: what stands in them, as `cell` makes it.
        title: of the table.
    """
    made = Table(box=SIMPLE, title=title, title_justify="left")
    for heading in columns:
        is_number, is_long = heading.startswith(">"), heading.startswith("+")
        made.add_column(
            heading.lstrip(">+"), justify="right" if is_number else "left", overflow="fold" if is_long else "ellipsis"
        )
    for row in rows:
        made.add_row(*map(cell, row))
    return made
