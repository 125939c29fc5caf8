"""Killing workers on purpose while a `fit` trains, for ``heliostat chaos``."""

from __future__ import annotations

import contextlib
import functools
import random
import time
from collections.abc import Iterator, Sequence

from heliostat.cluster.group.driver_loop import TaskLoop
from heliostat.cluster.group.worker_group import WorkerGroup

from ..environment import KillSchedule
from ..events import WorkerKilled
from ..storage_thread import beside
from .record import Record

POLL_S = 0.02
_DISTURBABLE = ("running", "regrouping")


class Killer:
    """Chooses a random member of the group at intervals.

    The last member is spared until others have come, unless the run has but one worker: then it is killed, and another
    one goes on from the last checkpoint. A kill that is due waits for the group to be in its steps or regrouping.

    Args:
        schedule: how long from the beginning of the first steps to the first kill, and from one kill to the next; and
            the seed that chooses who is killed.
    """

    def __init__(self, schedule: KillSchedule) -> None:
        self._every_s = schedule.every_s
        self._random = random.Random(schedule.seed)
        self._due_s: float | None = None
        self._killed: set[int] = set()  # the group hears of a death a moment later

    def begin(self) -> None:
        """Another fit begins, perhaps of another trainer, which counts its workers anew."""
        self._killed = set()

    def victim(self, status: str, members: Sequence[int], target: int, now_s: float) -> int | None:
        """Whom to kill now, None for nobody.

        Args:
            status: of the group's task.
            members: numbers of the group's workers.
            target: how many there shall be.
            now_s: the time, by any clock that does not jump.
        """
        if status not in _DISTURBABLE:
            return None
        if self._due_s is None:
            self._due_s = now_s + self._every_s
        living = sorted(set(members) - self._killed)
        if now_s < self._due_s or not living or len(living) < min(2, target):
            return None
        self._due_s = now_s + self._every_s
        victim = self._random.choice(living)
        self._killed.add(victim)
        return victim


@functools.cache
def killer_of(schedule: KillSchedule) -> Killer:
    """The process's one killer of a schedule, which runs over all fits of a script: short ones are disturbed, too."""
    return Killer(schedule)


@contextlib.contextmanager
def killing(schedule: KillSchedule | None, group: WorkerGroup, loop: TaskLoop, record: Record) -> Iterator[None]:
    """While the block runs, kill workers as scheduled, and note every kill as an event of the run.

    Args:
        schedule: when and whom; None for nobody.
        group: the workers.
        loop: the task that they run.
        record: of the run.
    """
    if schedule is None:
        yield
        return
    killer = killer_of(schedule)
    killer.begin()

    def look(seconds: float) -> None:
        victim = killer.victim(loop.state.status, loop.state.members, group.target, time.monotonic())
        if victim is not None:
            record.note(WorkerKilled(worker=victim, host=group.seen[victim].host))
            group.pool.crash(victim)

    with beside(look, POLL_S, "heliostat-kills"):
        yield
