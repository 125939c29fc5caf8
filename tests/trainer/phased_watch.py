"""What workers of this process come to in steps of several phases, and what befalls them there."""

from __future__ import annotations

import threading
import time
from collections import Counter

from ..phase_of_step import PhaseOfStep
from ..slow import SLOW


class Watch:
    """What the workers of this process come to, phase by phase, and what befalls whom there.

    Attributes:
        seen: how often (worker, point, step, phase) was reached; worker None stands for the calling process.
    """

    def __init__(self) -> None:
        self.seen: Counter = Counter()
        self._phases = PhaseOfStep()
        self._orders: list[tuple] = []
        self._lock = threading.Lock()

    def at(self, point, step, phase, action, worker=None) -> None:
        """Do something once, when a worker is at a point of a phase; phases with a sum are counted, from 0."""
        self._orders.append((point, step, phase, worker, action))

    def reached(self, point, step) -> None:
        name = threading.current_thread().name
        worker = int(name.split("-")[-1]) if name.startswith("heliostat-worker-") else None
        with self._lock:
            at, phase = self._phases.reached(point, step)
            self.seen[worker, point, at, phase] += 1
            found = [o for o in self._orders if o[:3] == (point, at, phase) and o[3] in (None, worker)]
            for order in found:
                self._orders.remove(order)
        for order in found:
            order[-1]()

    @staticmethod
    def wait(until) -> None:
        """Wait until something is true."""
        until_s = time.monotonic() + 60 * SLOW
        while not until():
            assert time.monotonic() < until_s, "what was waited for did not happen"
            time.sleep(0.01)

    def computed(self, step: int, phases: int, workers) -> dict[tuple, int]:
        """How often these workers have begun to compute the first phases of a step."""
        return {
            (worker, phase): self.seen[worker, "compute", step, phase] for worker in workers for phase in range(phases)
        }

    @property
    def missing(self) -> list[tuple]:
        return [order[:4] for order in self._orders]
