"""Scripts of what befalls the workers of this process at named points, and a record of what they came to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from heliostat.cluster.group.worker_process import WorkerKilled

from ...phase_of_step import PhaseOfStep
from ...slow import SLOW

GUARD_S = 30.0 * SLOW
OF_A_PHASE = ("compute", "reduce", "sending", "receiving", "summed")


class Script:
    """What befalls whom at which point, and everything that was seen.

    `on` adds a rule: the action runs once, in the thread of the worker that reaches the point, and only if that worker
    has passed the point `after` before. `seen` holds (worker, point, step), where points of exchanges are given the
    step that the worker is at, and what happens at the driver: ("report", worker, where), ("abort", worker, reason) ...
    Points of a step's later phases have the phase's number behind them: "compute 1" is the second phase's.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.fired: list[tuple[Any, ...]] = []
        self._rules: list[tuple[int | None, str, int | None, str, Callable[[], None]]] = []
        self._phases = PhaseOfStep()
        self._changed = threading.Condition()

    def on(
        self, worker: int | None, point: str, step: int | None, act: Callable[[], None], *, after: str = ""
    ) -> Script:
        self._rules.append((worker, point, step, after, act))
        return self

    def kill(
        self,
        worker: int,
        point: str,
        step: int | None = None,
        *,
        after: str = "",
        once: Callable[[], bool] | None = None,
    ) -> Script:
        """Let a worker die at a point, as soon as `once` is true."""
        return self.fail(worker, point, step, WorkerKilled(f"killed at {point}"), after=after, once=once)

    def fail(
        self,
        worker: int,
        point: str,
        step: int | None,
        error: BaseException,
        *,
        after: str = "",
        once: Callable[[], bool] | None = None,
    ) -> Script:
        def act() -> None:
            if once is not None:
                self.wait(once)
            raise error

        return self.on(worker, point, step, act, after=after)

    def hold(self, worker: int | None, point: str, step: int | None, until: Callable[[], bool]) -> Script:
        """Let a worker wait at a point until something is true of this script."""
        return self.on(worker, point, step, lambda: self.wait(until))

    def wait(self, until: Callable[[], bool]) -> None:
        with self._changed:
            if not self._changed.wait_for(until, GUARD_S):
                raise AssertionError(f"what was waited for did not happen; seen last: {self.seen[-20:]}")

    def note(self, *what: Any) -> None:
        with self._changed:
            self.seen.append(what)
            self._changed.notify_all()

    def saw(self, *what: Any) -> int:
        """How often something was seen; None stands for anything."""
        return sum(
            len(what) == len(each) and all(w is None or w == e for w, e in zip(what, each, strict=True))
            for each in tuple(self.seen)
        )

    def welcomed(self, worker: int) -> bool:
        """Whether a new worker is in the group, or has asked for that and the next generation is being formed."""
        seen = [each[0] for each in tuple(self.seen)]
        forming = seen[::-1].index("formed") > seen[::-1].index("abort") if "abort" in seen else False
        return self.saw("joined", worker) > 0 or (forming and self.saw("report", worker, "join") > 0)

    def reached(self, point: str, step: int | None = None) -> None:
        worker = current_worker()
        if worker is None:
            return
        step, phase = self._phases.reached(point, step)
        if point in OF_A_PHASE and phase:
            point = f"{point} {phase}"
        self.note(worker, point, step)
        for rule in tuple(self._rules):
            who, where, when, after, act = rule
            fits = who in (None, worker) and where == point and when in (None, step)
            if fits and (not after or self.saw(worker, after, None)):
                self._rules.remove(rule)
                self.fired.append((worker, point, step))
                act()

    @property
    def unfired(self) -> list[tuple[Any, ...]]:
        return [rule[:4] for rule in self._rules]


def current_worker() -> int | None:
    name = threading.current_thread().name
    return int(name.split("-")[-1]) if name.startswith("heliostat-worker-") else None
