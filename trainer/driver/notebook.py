"""The screen of a notebook: one output of the cell, which is replaced as the run goes on; it needs no widget.

A cell's output can be shown under a name and be shown anew under the same name, in every front end that knows HTML.
So what a terminal has, lines and the live block beneath, is drawn by rich into a text, and the text is replaced. In the
end only the lines are left, which the notebook keeps.

IPython gives what is shown to the cell that runs, and knows by the thread's context which one that is; the display is
called by a thread of its own. So the context is taken along from where the display is made.
"""

from __future__ import annotations

import contextvars
import io
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from .. import jobs
from ..events import EpochRecord, Event
from .block import MAX_COLUMNS, Block
from .display import TableDisplay, epoch_line
from .doing import Doing
from .run_view import RunView
from .shown_text import printable
from .worker_table import WorkerTable

_DRAW_EVERY_S = 0.5
_FIRST_LINES, _LAST_LINES = 40, 100  # of a long run that are shown
_HTML = (
    '<pre style="white-space:pre-wrap;line-height:1.3;margin:0;'
    "font-family:Menlo,'DejaVu Sans Mono',consolas,monospace\">{code}</pre>"
)


def in_notebook() -> bool:
    """Whether what is printed here goes to the cell of a notebook."""
    return type(sys.stdout).__module__.partition(".")[0] == "ipykernel"


class NotebookDisplay(TableDisplay):
    """Shows lines and the live block in one output of the cell that runs."""

    def __init__(self) -> None:
        super().__init__()
        self._context = contextvars.copy_context()
        self._lines: list[str] = []
        self._num_left_out = 0
        self._view = RunView(time.monotonic)
        self._handle: Any = None  # of IPython
        self._drawn_s, self._is_new = 0.0, False

    def say(self, text: str) -> None:
        """Add the line."""
        self._lines.append(printable(text))
        if len(self._lines) > _FIRST_LINES + _LAST_LINES:
            del self._lines[_FIRST_LINES]
            self._num_left_out += 1
        self._draw_soon()

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
        self.say(epoch_line(record, epochs, seconds))

    def tick(self) -> None:
        """Show how long it has taken by now, and what was not shown yet."""
        if self._is_new or not self._view.block.is_empty:
            self._draw_soon()

    def end(self, record: Mapping[str, Any]) -> None:
        """Take the block away."""
        self._view.over()
        self._draw()

    def close(self) -> None:
        """Show what is left, without the block."""
        self._view.over()
        if self._is_new or self._handle is not None:
            self._draw()

    def _draw_soon(self) -> None:
        """Show it all anew, unless that was done a moment ago: then the next call, or tick, does."""
        self._is_new = True
        if time.monotonic() - self._drawn_s >= _DRAW_EVERY_S:
            self._draw()

    def _draw(self) -> None:
        self._drawn_s, self._is_new = time.monotonic(), False
        shown = drawn(self._shown_lines(), self._view.block)
        if shown["text/plain"]:
            self._context.run(self._show, shown)

    def _show(self, shown: dict[str, str]) -> None:
        from IPython.display import display  # it is there: what is printed goes through it

        if self._handle is None:
            self._handle = display(shown, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(shown, raw=True)

    def _shown_lines(self) -> list[str]:
        if not self._num_left_out:
            return self._lines
        left_out = f"... {self._num_left_out:,} lines are left out here; the run folder has what they tell"
        return [*self._lines[:_FIRST_LINES], left_out, *self._lines[_FIRST_LINES:]]


def drawn(lines: list[str], block: Block) -> dict[str, str]:
    """Lines with the block beneath, as HTML and as text, by media type."""
    console = Console(
        file=io.StringIO(), record=True, width=MAX_COLUMNS, force_jupyter=False, force_terminal=True, highlight=False
    )
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    if not block.is_empty:
        console.print(block)
    return {
        "text/html": console.export_html(code_format=_HTML, inline_styles=True, clear=False),
        "text/plain": console.export_text(),
    }
