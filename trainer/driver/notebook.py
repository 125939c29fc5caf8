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
from typing import Any

from rich.console import Console
from rich.text import Text

from .block import MAX_COLUMNS, Block
from .block_display import BlockDisplay
from .shown_text import printable

_FIRST_LINES, _LAST_LINES = 40, 100  # of a long run that are shown
_HTML = (
    '<pre style="white-space:pre-wrap;line-height:1.3;margin:0;'
    "font-family:Menlo,'DejaVu Sans Mono',consolas,monospace\">{code}</pre>"
)


def in_notebook() -> bool:
    """Whether what is printed here goes to the cell of a notebook."""
    return type(sys.stdout).__module__.partition(".")[0] == "ipykernel"


class NotebookDisplay(BlockDisplay):
    """Shows lines and the live block in one output of the cell that runs."""

    def __init__(self) -> None:
        super().__init__()
        self._context = contextvars.copy_context()
        self._lines: list[str] = []
        self._num_left_out = 0
        self._shown: tuple[list[str], Block] = ([], self._view.block)
        self._handle: Any = None  # of IPython, which has no types

    def say(self, text: str) -> None:
        """Add the line."""
        self._lines.append(printable(text))
        if len(self._lines) > _FIRST_LINES + _LAST_LINES:
            del self._lines[_FIRST_LINES]
            self._num_left_out += 1
        self.draw_soon()

    def draw(self) -> None:
        """Show lines and block in place of what was shown, if they are others."""
        now = [*self._lines], self._view.block
        if now != self._shown:
            self._shown = now
            self._context.run(self._show, drawn(self._shown_lines(), now[1]))

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
