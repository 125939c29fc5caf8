"""The console of the commands: what it prints may come from files of others."""

from __future__ import annotations

from typing import Any

from heliostat.trainer.driver.shown_text import printable
from rich.console import Console
from rich.markup import escape


class SafeConsole(Console):
    """Prints strings without the escapes for terminals in them."""

    def print(self, *objects: Any, **options: Any) -> None:  # whatever rich takes
        """As `rich.console.Console.print`."""
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)


def cell(text: object) -> str:
    """Text of others for a cell of a table: no escapes, no markup."""
    return escape(printable(str(text)))
