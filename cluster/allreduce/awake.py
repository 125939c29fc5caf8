"""A clock that stands still while this process does: `AwakeClock`, for whoever judges others by their silence.

A machine that is frozen (a virtual machine that is moved, a stopped container, a laptop's lid) finds on waking that
everybody has been silent for longer than any deadline, and so do all others that were frozen with it. Who was away
itself knows nothing of that time. So nobody sleeps longer here than `LOOK_S` without looking at this clock, and what
lies between two looks counts as that much at most: a peer is given its whole deadline of time in which this process
could have heard it.
"""

from __future__ import annotations

import select
import time

LOOK_S = 0.5
AWAY_S = 2 * LOOK_S  # so long between two looks, and this process was away


class AwakeClock:
    """Seconds for which this process was awake. Who waits for long must look at least every `LOOK_S`."""

    def __init__(self) -> None:
        self._looked_s = time.monotonic()
        self._away_s = 0.0

    def now_s(self) -> float:
        """Look at the clock."""
        looked_s = time.monotonic()
        gap_s = looked_s - self._looked_s
        if gap_s > AWAY_S:
            self._away_s += gap_s - LOOK_S
        self._looked_s = looked_s
        return looked_s - self._away_s


def sleep(poll: select.poll, timeout_s: float) -> list[tuple[int, int]]:
    """Wait for events and return them; for `LOOK_S` at most, even if `timeout_s` is more."""
    return poll.poll(max(1.0, min(timeout_s, LOOK_S) * 1000.0))
