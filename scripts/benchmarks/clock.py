"""When a timed training run is warm and when it is over, counted in steps so that all its processes stop together."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable

WARM_UP_STEPS = 6
PROBE_STEPS = 6


class StepClock:
    """Times steps: warm-up (traces), a probe that tells the rate, then as many steps as fill `seconds`.

    `agree` makes one rate of every process's own; each then stops after the same step. `now` is the time in seconds.
    """

    def __init__(
        self, seconds: float, agree: Callable[[float], float] = float, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._seconds = seconds
        self._agree = agree
        self._now = now
        self._count = 0
        self._started_at = 0.0
        self._num_steps: float = math.inf
        self.elapsed_s = 0.0

    def step_done(self) -> bool:
        """Note the end of a step; True when the run is over."""
        self._count += 1
        if self._count == WARM_UP_STEPS:
            self._started_at = self._now()
        elif self._count == WARM_UP_STEPS + PROBE_STEPS:
            rate = self._agree(PROBE_STEPS / (self._now() - self._started_at))
            self._num_steps = max(1, math.ceil(rate * self._seconds))
            self._started_at = self._now()
        elif self._count == WARM_UP_STEPS + PROBE_STEPS + self._num_steps:
            self.elapsed_s = self._now() - self._started_at
            return True
        return False

    def report(self, batch_size: int) -> str:
        """Return the result as one JSON line; steps of `batch_size` rows."""
        steps_per_s = self._num_steps / self.elapsed_s
        return json.dumps(
            {
                "steps_per_s": steps_per_s,
                "samples_per_s": steps_per_s * batch_size,
                "steps": self._num_steps,
                "seconds": self.elapsed_s,
            }
        )
