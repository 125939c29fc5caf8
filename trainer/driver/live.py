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
import time
from collections.abc import Mapping
from io import TextIOBase
from typing import Any

from rich.live import Live

from .. import jobs
from ..events import EpochRecord, Event
from .display import PlainDisplay, epoch_line
from .doing import Doing
from .run_view import RunView
from .worker_table import WorkerTable

_DRAW_EVERY_S = 0.5


class TerminalDisplay(PlainDisplay):
    """The live block of what goes on, a lasting line for all that has happened.

    Args:
        stream: writes to the terminal.
    """

    def __init__(self, stream: TextIOBase) -> None:
        super().__init__(stream)
        self._view = RunView(time.monotonic)
        self._live: Live | None = None
        self._drawn_s = 0.0

    def progress(self, progress: jobs.Progress, epochs: int) -> None:
        """Show how far the epoch is."""
        self._view.progress(progress, epochs)
        self._draw_soon()

    def workers(self, table: WorkerTable) -> None:
        """Show how the workers do."""
        self._view.workers(table)
        self._draw_soon()

    def doing(self, doing: Doing | None) -> None:
        """Show what is done."""
        self._view.doing(doing)
        self._draw_soon()

    def event(self, event: Event) -> None:
        """Note what the block tells of it."""
        self._view.event(event)

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """A line for the epoch."""
        self._view.epoch_over(record.rows)
        line = epoch_line(record, epochs, seconds)
        width = max(20, self._console.width)
        self.say("\n".join(textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False)))

    def tick(self) -> None:
        """Show how long it has taken by now."""
        self._draw_soon()

    def end(self, record: Mapping[str, Any]) -> None:
        """Take the block away."""
        self._view.over()
        self.close()

    def close(self) -> None:
        """Take the block away."""
        if self._live is not None:
            self._live.stop()
        self._live = None

    def _draw_soon(self) -> None:
        """Draw the block, unless it was drawn a moment ago: then the next call, or tick, does."""
        now_s = time.monotonic()
        if now_s - self._drawn_s < _DRAW_EVERY_S:
            return
        self._drawn_s, block = now_s, self._view.block
        if block.is_empty:
            self.close()
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
            self._live.start()
        self._live.update(block, refresh=True)
