"""What a worker tells of itself with every heartbeat: what it does, at which step it is, and how long steps take it.

The driver decides by it whom it takes for lost (`liveness.py`) and who gets fewer microbatches (`pace.py`).
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator

from ..pace import Pacer
from .liveness import Activity, Heartbeat

NUM_TIMED = 32  # steps of which the median duration is taken


class WorkerProgress:
    """What one worker does, and how far it is.

    Attributes:
        generation: number of the group's membership, -1 before the first.
        step_s: the median duration of the last steps, 0.0 before a few have been timed.

    Args:
        note_step: called with every new step.
    """

    def __init__(self, note_step: Callable[[int | None], None]) -> None:
        self._note_step = note_step
        self.generation = -1
        self.step_s = 0.0
        self._activity = (Activity.SET_UP, time.monotonic())
        self._step: int | None = None
        self._step_times: list[float] = []
        self._pacer = Pacer()

    @property
    def step(self) -> int | None:
        """The step of the run that this worker is at."""
        return self._step

    @step.setter
    def step(self, step: int | None) -> None:
        self._step = step
        self._note_step(step)

    def time_step(self, seconds: float, compute_s: float | None = None) -> None:
        """Note how long a step took.

        Args:
            seconds: the whole step.
            compute_s: how long this worker computed for one microbatch on each of its replicas; None if it did not.
        """
        if compute_s:
            self._pacer.note(compute_s, seconds)
        self._step_times.append(seconds)
        if len(self._step_times) in (3, NUM_TIMED):
            self.step_s = statistics.median(self._step_times)
        if len(self._step_times) == NUM_TIMED:
            del self._step_times[: NUM_TIMED // 2]

    def note_activity(self, activity: Activity) -> None:
        """Note what this worker does now, for its heartbeat."""
        self._activity = activity, time.monotonic()

    @contextlib.contextmanager
    def at_activity(self, activity: Activity) -> Iterator[None]:
        """In the block this worker does this, and behind it what it did before."""
        before = self._activity[0]
        self.note_activity(activity)
        try:
            yield
        finally:
            self.note_activity(before)

    def heartbeat(self) -> Heartbeat:
        """What this worker does; from any thread."""
        activity, since = self._activity
        return Heartbeat(
            activity=activity,
            activity_s=time.monotonic() - since,
            step=self.step,
            step_s=self.step_s,
            generation=self.generation,
            processor_s=processor_s(),
            pace=self._pacer.pace,
        )


def processor_s() -> float:
    """What this process, and its children that have ended, have computed so far, in seconds of one core."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system
