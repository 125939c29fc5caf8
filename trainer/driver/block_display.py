"""The live block as a terminal and a notebook have it: made of what a display is told, drawn now and then."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from ..events import EpochRecord, Event
from ..jobs import Progress
from .display import TableDisplay, epoch_line
from .doing import Doing
from .run_view import RunView
from .worker_table import WorkerTable

_DRAW_EVERY_S = 0.5


class BlockDisplay(TableDisplay, ABC):
    """Lines that last, and a block that is drawn anew: when something is told, and when some time went by."""

    def __init__(self) -> None:
        super().__init__()
        self._view = RunView(time.monotonic)
        self._drawn_s = 0.0

    @abstractmethod
    def draw(self) -> None:
        """Show what there is now."""

    def progress(self, progress: Progress, epochs: int) -> None:
        """Show how far the epoch is."""
        self._view.progress(progress, epochs)
        self.draw_soon()

    def workers(self, table: WorkerTable) -> None:
        """Show how the workers do."""
        self._view.workers(table)
        self.draw_soon()

    def doing(self, doing: Doing | None) -> None:
        """Show what is done."""
        self._view.doing(doing)
        self.draw_soon()

    def event(self, event: Event) -> None:
        """Note what the block tells of it."""
        self._view.event(event)

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """A line for the epoch."""
        self._view.epoch_over(record.rows)
        self.say(epoch_line(record, epochs, seconds))

    def tick(self) -> None:
        """Show how long it has taken by now, and what was not shown yet."""
        self.draw_soon()

    def end(self, record: Mapping[str, Any]) -> None:
        """Take the block away."""
        self.close()

    def close(self) -> None:
        """Take the block away."""
        self._view.over()
        self.draw()

    def draw_soon(self) -> None:
        """Show it, unless that was done a moment ago: then the next call, or tick, does."""
        now_s = time.monotonic()
        if now_s - self._drawn_s >= _DRAW_EVERY_S:
            self._drawn_s = now_s
            self.draw()
