"""How long a run will take, said once when some of its steps are measured.

Time is taken from the steps alone, by their median: the first ones, a checkpoint or a lost worker make a mean too long.
What lies between epochs (validation, callbacks, checkpoints) is counted once an epoch has shown it. What was not done:
a time that is said again and again (the live line has one for the epoch), and one for a run that is over in seconds.
"""

from __future__ import annotations

import statistics

from ..config import OPEN_END
from ..errors.texts import duration_text
from ..jobs import Progress
from .words import count

_MIN_STEPS, _MIN_S = 5, 3.0  # after so many and so long their median says something
_WORTH_S = 10.0  # what takes less needs no words


class ExpectedTime:
    """How long the rest of a run takes, said once: when its first steps are measured.

    Args:
        epochs: number of the run's last epoch.
        steps: of an epoch.
        validates: whether a validation follows each epoch.
    """

    def __init__(self, epochs: int, steps: int, *, validates: bool) -> None:
        self._epochs, self._steps = epochs, steps
        self._validates = validates
        self._said = epochs >= OPEN_END  # nobody knows how long the rest is
        self._last: tuple[int, int, float] | None = None  # epoch, step, when
        self._ended: tuple[int, float] | None = None  # epoch, when
        self._measured: list[float] = []  # seconds of a step
        self._num_steps, self._seconds = 0, 0.0  # of what was measured

    def after_steps(self, progress: Progress, at_s: float) -> str:
        """The line, once there is enough to say it; else nothing.

        Args:
            progress: of the running epoch.
            at_s: when it was told, in seconds of a clock that only goes forward.
        """
        if self._said:
            return ""
        epoch, step = progress.epoch, progress.step
        if self._last is not None and self._last[0] == epoch and step > self._last[1]:
            seconds, steps = at_s - self._last[2], step - self._last[1]
            self._measured.append(seconds / steps)
            self._num_steps, self._seconds = self._num_steps + steps, self._seconds + seconds
        self._last = epoch, step, at_s
        if step >= self._steps or self._num_steps < _MIN_STEPS or self._seconds < _MIN_S:
            return ""  # at an epoch's last step: soon more is known
        steps = self._left_after(epoch) * self._steps + self._steps - step
        step_s = statistics.median(self._measured)
        more = ", validation not included" if self._validates else ""
        return self._line(steps * step_s, f"{_parts(steps, 'step', step_s)}{more}")

    def after_epoch(self, epoch: int, at_s: float) -> str:
        """Likewise when an epoch is over with all that follows its steps."""
        before, self._ended = self._ended, (epoch, at_s)
        left = self._left_after(epoch)
        if self._said or self._last is None or self._last[0] != epoch:
            return ""
        if self._measured:
            steps, step_s, between_s = left * self._steps, statistics.median(self._measured), at_s - self._last[2]
            between = _parts(left, "validation" if self._validates else "epoch end", between_s)
            return self._line(steps * step_s + left * between_s, f"{_parts(steps, 'step', step_s)} and {between}")
        if before is None or before[0] != epoch - 1:
            return ""  # epochs of one step: the first one says nothing of how long it took
        epoch_s = at_s - before[1]
        return self._line(left * epoch_s, _parts(left, "epoch", epoch_s))

    def _left_after(self, epoch: int) -> int:
        return self._epochs - epoch - 1

    def _line(self, rest_s: float, what: str) -> str:
        self._said = True
        return f"expected: {duration_text(rest_s)} more: {what}" if rest_s >= _WORTH_S else ""


def _parts(number: int, what: str, seconds: float) -> str:
    return f"{count(number, what)} of {duration_text(seconds)}"
