"""Samples of a run: put together from what workers tell, for who watches; and which of them the run folder keeps.

A function of what happens, with the caller's clock. Workers tell their sums about once a second, each at its own time;
a sample has what each of the group has told last. It is made when all have told anew, or a second after the first.

**What is kept** is bounded: the n-th line comes when exp(n / 100 - 1) seconds have gone by since the one before (a
second at least), so that a minute is 60 lines, an hour 460 and a week 1,000, without a limit that a longer run would
meet, and with a resolution of one percent of the run everywhere. It follows from the number of lines alone, so that a
run that goes on after a pause needs to know no more. The end of an epoch is kept ten times as readily, since its sums
can be held against the epoch's record: that comes to 230 lines more at most. The first and the last are always kept.

What was not done: deleting every second line when there are too many, which rewrites a file that others read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from heliostat.cluster.group.controller_state import Formed, WorkerDeath
from heliostat.cluster.group.messages import TaskEvent
from heliostat.cluster.group.task import GroupEvent

from ..events import EpochRecord
from ..jobs import Progress
from ..samples import Sample, WorkerSample

SHOWN_EVERY_S = 0.9  # workers tell every second, and some come early
LATE_S = 1.0  # so long after the first a worker that has not told yet is not waited for
_LINES = 100  # after so many lines the interval begins to grow; it is e times as long after as many more
_EPOCH_END = 0.1  # of the interval: what the end of an epoch waits for


def interval_s(num_kept: int) -> float:
    """Seconds that go by before another sample is kept."""
    return math.exp(max(0.0, num_kept / _LINES - 1.0))


@dataclass(frozen=True, slots=True)
class Taken:
    """A sample, whether who watches is to see it, and whether the folder is to keep it."""

    sample: Sample
    is_shown: bool
    is_kept: bool


@dataclass(slots=True)
class Sampling:
    """Puts the samples of one run together.

    Attributes:
        num_steps: steps of an epoch.
        num_kept: samples that the run folder has.
    """

    num_steps: int
    num_kept: int = 0
    _rows: dict[int, int] = field(default_factory=dict)  # by epoch, of all before it
    _members: tuple[int, ...] = ()
    _told: dict[int, WorkerSample] = field(default_factory=dict)  # by worker, the last
    _fresh: set[int] = field(default_factory=set)  # who has told since the last sample
    _fresh_s: float = 0.0  # since when somebody has
    _progress: Progress | None = None
    _done: EpochRecord | None = None  # whose end the workers have yet to tell
    _ended: EpochRecord | None = None  # the last that is done
    _shown_s: float = -math.inf
    _kept_s: float = -math.inf
    _is_kept: bool = True  # whether nothing was told since the last that is kept

    def go_on(self, epochs: Sequence[EpochRecord], num_kept: int) -> None:
        """The run goes on after these epochs, in a folder that keeps so many samples."""
        self.num_kept = num_kept
        for epoch in epochs:
            self._count(epoch)

    def take(self, event: GroupEvent, now_s: float) -> Taken | None:
        """Take what happens, at a time of the caller's clock; returns the sample that is due then."""
        match event:
            case Formed(members=members, restarted=restarted):
                self._form(members, restarted=restarted)
            case WorkerDeath(failure=failure):
                self._form(tuple(each for each in self._members if each != failure.worker))
            case TaskEvent(content=Progress() as progress):
                self._progress = progress
            case TaskEvent(content=WorkerSample() as sample) if sample.worker in self._members:
                return self._hear(sample, now_s)
        return None

    def end_epoch(self, epoch: EpochRecord) -> None:
        """An epoch is over; workers tell of its end next."""
        self._count(epoch)
        self._done = self._ended = epoch

    def last(self) -> Taken | None:
        """The run is over: what was told since the last sample that is kept; None if nothing was."""
        if self._is_kept or not self._told:
            return None
        self._is_kept = True
        return Taken(self._sample(), is_shown=True, is_kept=True)

    def _form(self, members: tuple[int, ...], *, restarted: bool = False) -> None:
        if restarted:  # others go on from a checkpoint, and begin with sums of their own
            self._told, self._progress, self._done, self._ended = {}, None, None, None
        self._members = members
        self._told = {worker: told for worker, told in self._told.items() if worker in members}
        self._fresh &= set(members)

    def _hear(self, told: WorkerSample, now_s: float) -> Taken | None:
        if not self._fresh:
            self._fresh_s = now_s
        self._fresh.add(told.worker)
        self._told[told.worker], self._is_kept = told, False
        ends = self._done is not None and self._are_past(self._done)
        if ends:
            self._done = None
        is_whole = set(self._members) <= self._fresh or now_s - self._fresh_s >= LATE_S
        is_shown = is_whole and now_s - self._shown_s >= SHOWN_EVERY_S
        waits_s = interval_s(self.num_kept) * (_EPOCH_END if ends else 1.0)
        is_kept = (is_shown or ends) and now_s - self._kept_s >= waits_s
        if not (is_shown or is_kept):
            return None
        self._fresh = set()
        if is_shown:
            self._shown_s = now_s
        if is_kept:
            self._kept_s, self._is_kept, self.num_kept = now_s, True, self.num_kept + 1
        return Taken(self._sample(), is_shown, is_kept)

    def _are_past(self, epoch: EpochRecord) -> bool:
        """Whether all workers have told that an epoch is over."""
        end = (epoch.epoch + 1) * self.num_steps
        return all(worker in self._told and self._told[worker].step >= end for worker in self._members)

    def _sample(self) -> Sample:
        """What is known now."""
        workers = tuple(self._told[worker] for worker in self._members if worker in self._told)
        ended, progress = self._ended, self._progress
        if progress is not None and (ended is None or progress.epoch > ended.epoch):
            epoch, step, logs = progress.epoch, progress.epoch * self.num_steps + progress.step, progress.logs
            rows = self._rows.get(epoch, 0) + progress.rows
        elif ended is not None:
            epoch, step, logs = ended.epoch, (ended.epoch + 1) * self.num_steps, ended.logs
            rows = self._rows[epoch + 1]
        else:
            step = max(each.step for each in workers)
            epoch, logs = step // self.num_steps, {}
            rows = self._rows.get(epoch, 0)
        return Sample(epoch=epoch, step=step, rows=rows, logs=logs, workers=workers)

    def _count(self, epoch: EpochRecord) -> None:
        self._rows[epoch.epoch + 1] = self._rows.get(epoch.epoch, 0) + epoch.rows
