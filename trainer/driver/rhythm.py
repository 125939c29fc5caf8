"""How fast a run goes, and how long the rest of it takes: from its progress, as it is told.

Time is taken from steps of the running epoch, so that what lies between epochs (validation, callbacks, checkpoints) is
counted once for each epoch and in no step. No clock is read here.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

from ..jobs import Progress

_WINDOW_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """How long the rest takes, of the epoch and of the run, in seconds; None while that is not known."""

    epoch_s: float | None = None
    run_s: float | None = None


@dataclass(slots=True)
class Rhythm:
    """What was measured of a run until now.

    Attributes:
        epochs: number of its last epoch.
        step_s: how long a step takes by the last of them; None while that is not known.
        rows_per_s: rows in a second, over all workers; likewise.
    """

    epochs: int = 0
    step_s: float | None = None
    rows_per_s: float | None = None
    _last: Progress | None = None
    _told: deque[tuple[float, Progress]] = field(default_factory=deque)
    _between_s: list[float] = field(default_factory=list)
    _epoch_s: list[float] = field(default_factory=list)
    _ended_s: float | None = None

    def steps(self, progress: Progress, epochs: int, at_s: float) -> None:
        """Take how far the run is.

        Args:
            progress: of the running epoch.
            epochs: number of the last one.
            at_s: when it was told, in seconds of a clock that only goes forward.
        """
        self.epochs = epochs
        last = self._last
        if last is None or (progress.epoch, progress.step) <= (last.epoch, last.step) or progress.epoch != last.epoch:
            self._told.clear()
        self._last = progress
        self._told.append((at_s, progress))
        while len(self._told) > 2 and at_s - self._told[1][0] >= _WINDOW_S:
            self._told.popleft()
        first_s, first = self._told[0]
        seconds = at_s - first_s
        if progress.step > first.step and seconds > 0:
            self.step_s = seconds / (progress.step - first.step)
            self.rows_per_s = (progress.rows - first.rows) / seconds

    def epoch_over(self, at_s: float, rows: int) -> None:
        """Take that the running epoch, of so many rows, is over with all that follows its steps."""
        if self._told:
            self._between_s.append(at_s - self._told[-1][0])
        if self._ended_s is not None and at_s > self._ended_s:
            self._epoch_s.append(at_s - self._ended_s)
            if self.rows_per_s is None:  # epochs of one step, or as short: they are all that can be measured
                self.rows_per_s = rows / self._epoch_s[-1]
        self._ended_s = at_s

    @property
    def rest(self) -> Rest:
        """How long the rest takes."""
        last = self._last
        if last is None:
            return Rest()
        epochs_left = max(0, self.epochs - last.epoch - 1)
        if self.step_s is None:
            return Rest(run_s=epochs_left * statistics.median(self._epoch_s)) if self._epoch_s else Rest()
        between_s = statistics.median(self._between_s) if self._between_s else 0.0
        epoch_s = (last.steps - last.step) * self.step_s
        return Rest(
            epoch_s=epoch_s, run_s=epoch_s + epochs_left * last.steps * self.step_s + (epochs_left + 1) * between_s
        )
