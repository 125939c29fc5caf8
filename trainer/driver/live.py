"""The live block in a terminal, and lasting lines above it.

rich takes the block away before it prints a line, and puts it back beneath. It is drawn by the one thread that calls
these methods (`screen.ScreenThread`): rich's own thread for that is not started, since it would be held up in the
middle of a write by a terminal that stands still, with a lock that the next one needs.

What was not done: the whole screen of the terminal, as an editor takes it (what a program prints belongs into the
scrollback, and is to be there when it has ended), and more than two pictures a second: whoever trains on all cores pays
for each.
"""

from __future__ import annotations

import textwrap
from io import TextIOBase

from rich.live import Live

from ..events import EpochRecord
from .block_display import BlockDisplay
from .display import epoch_line, line_console
from .shown_text import printable

_LEAST_COLUMNS = 20


class TerminalDisplay(BlockDisplay):
    """The live block of what goes on, a lasting line for all that has happened.

    Args:
        stream: writes to the terminal.
    """

    def __init__(self, stream: TextIOBase) -> None:
        super().__init__()
        self._console = line_console(stream)
        self._live: Live | None = None

    def say(self, text: str) -> None:
        """Print the line above the block."""
        self._console.print(printable(text), markup=False)

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """A line for the epoch, or several that are broken between words."""
        self._view.epoch_over(record.rows)
        width = max(_LEAST_COLUMNS, self._console.width)
        line = epoch_line(record, epochs, seconds)
        self.say("\n".join(textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False)))

    def draw(self) -> None:
        """Draw the block, or take it away where there is nothing to show."""
        block = self._view.block
        if block.is_empty:
            if self._live is not None:
                self._live.stop()
            self._live = None
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
            self._live.start()
        self._live.update(block, refresh=True)
