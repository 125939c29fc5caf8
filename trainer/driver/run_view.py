"""What the live block shows, made of what a display is told: the same for a terminal and a notebook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..events import CheckpointCommitted, Event
from ..jobs import Progress
from .block import Block
from .doing import Doing
from .rhythm import Rhythm
from .worker_table import WorkerTable


class RunView:
    """Keeps what was told last.

    Args:
        clock: tells seconds, and only goes forward.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._rhythm, self._block = clock, Rhythm(), Block()
        self._doing_since_s = 0.0
        self._checkpoint_s: float | None = None

    @property
    def block(self) -> Block:
        """What is to be shown now."""
        now_s, rhythm, committed_s = self._clock(), self._rhythm, self._checkpoint_s
        return replace(
            self._block,
            step_s=rhythm.step_s,
            rows_per_s=rhythm.rows_per_s,
            rest=rhythm.rest,
            doing_s=0.0 if self._block.doing is None else now_s - self._doing_since_s,
            checkpoint_s=None if committed_s is None else now_s - committed_s,
        )

    def progress(self, progress: Progress, epochs: int) -> None:
        """Take how far the epoch is; whatever was done or waited for until now is over."""
        self._rhythm.steps(progress, epochs, self._clock())
        self._block = replace(self._block, progress=progress, epochs=epochs, doing=None)

    def epoch_over(self, rows: int) -> None:
        """An epoch of so many rows is over."""
        self._rhythm.epoch_over(self._clock(), rows)

    def workers(self, table: WorkerTable) -> None:
        """Take how the workers do."""
        self._block = replace(self._block, table=table)

    def event(self, event: Event) -> None:
        """Take what has happened."""
        if isinstance(event, CheckpointCommitted):
            self._checkpoint_s = self._clock()

    def doing(self, doing: Doing | None) -> None:
        """Take what is done from now on."""
        before = self._block.doing
        if doing is not None and (before is None or doing.what != before.what):
            self._doing_since_s = self._clock()
        self._block = replace(self._block, doing=doing)

    def over(self) -> None:
        """The run is over: nothing of it is shown any more."""
        self._block, self._rhythm, self._checkpoint_s = Block(), Rhythm(), None
