"""How fast workers are, and when microbatches are dealt out anew because of that: pure, without a clock.

The result does not depend on who computes which microbatch, so a worker that is slower than the others (an older
machine, a neighbour on its cores) may have fewer of them, and all are ready at the same time. Every worker measures how
long it computes (`Pacer`), its heartbeats tell the driver, and between two steps the driver deals anew (`Dealing`),
by a new generation, as when a worker joins. When it does so is decided by `Watch`:

- Workers whose times differ by less than a quarter count as equal, and have what `assign` gives.
- A step is predicted to take as long as the slowest worker computes, and the rest of a step as it is now. Less than
  10 % of gain is not worth a change; nor is a gain that was not there in three windows, one after another, of at least
  eight steps and a second each. A median over the last steps is what counts, so neither jitter nor a single long step
  moves anything.
- After a change it is measured what has come of it. A gain of less than half of what was expected, say because more
  nodes of the tree must travel, doubles the number of windows that the next change needs: nothing swings for long. So
  does a gain that could not be measured, because others joined or were lost before.

What was not done: thread CPU time, which a slow machine and a fast one have alike while a neighbour takes their cores.
Whole steps instead of computing: they take equally long on all workers, which wait for each other. A queue from which
workers take one microbatch after another (work stealing): it balances within a step, for a round trip per microbatch
and ranges in pieces, whose partial sums must all travel.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from .assignment import Range, assign, assign_by_time, slowest_s

NUM_PACED = 16  # steps over which the median is taken
EQUAL_UP_TO = 1.25  # workers whose times differ by less count as equal
LEAST_GAIN = 0.1
WINDOW_STEPS, WINDOW_S = 8, 1.0
PATIENCE, MAX_PATIENCE = 3, 96  # windows in a row in which a gain must be there
WINDOWS_TO_MEASURE = 2  # after a change


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a worker was in its last steps (medians).

    Attributes:
        compute_s: how long it computes one microbatch on each of its replicas; waiting for rows or others is not in it.
        step_s: how long a step takes.
    """

    compute_s: float
    step_s: float


class Pacer:
    """Measures the pace of one worker."""

    def __init__(self) -> None:
        self._times: deque[tuple[float, float]] = deque(maxlen=NUM_PACED)

    def note(self, compute_s: float, step_s: float) -> None:
        """A step took so long, and the worker computed so long for one microbatch on each replica."""
        self._times.append((compute_s, step_s))

    def start_anew(self) -> None:
        """Forget what was measured."""
        self._times.clear()

    @property
    def pace(self) -> Pace | None:
        """Over the last steps; None before there are enough. From any thread."""
        times = list(self._times)
        if len(times) < WINDOW_STEPS:
            return None
        compute_s, step_s = map(statistics.median, zip(*times, strict=True))
        return Pace(compute_s=compute_s, step_s=step_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealing:
    """How microbatches are dealt out to the workers of a group.

    Attributes:
        num_microbatches: V.
        num_replicas: of each worker.
        times_s: seconds that a worker computes one microbatch on each of its replicas, as of the last change; empty
            while all count as equal.
    """

    num_microbatches: int
    num_replicas: int = 1
    times_s: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))

    def ranges(self, members: Sequence[int]) -> tuple[Range, ...]:
        """The microbatches of each member, by rank; those who are new are taken for as fast as the others."""
        times_s = self.times_of(members)
        if max(times_s) <= EQUAL_UP_TO * min(times_s) or not self.leaves_choice(len(members)):
            return assign(self.num_microbatches, len(members))
        return assign_by_time(self.num_microbatches, times_s, self.num_replicas)

    def times_of(self, members: Sequence[int]) -> list[float]:
        """The time of each member, by rank; who is not known has the usual one."""
        known = [self.times_s[worker] for worker in members if worker in self.times_s]
        usual_s = statistics.median_low(known or [1.0])
        return [self.times_s.get(worker, usual_s) for worker in members]

    def leaves_choice(self, num_workers: int) -> bool:
        """Whether there are more microbatches than the replicas of so many workers compute at a time."""
        return num_workers > 1 and -(-self.num_microbatches // self.num_replicas) > num_workers

    def slowest_s(self, ranges: Sequence[Range], times_s: Sequence[float]) -> float:
        """How long the slowest worker computes its range; by rank, `times_s` is what one on each replica takes."""
        return slowest_s([-(-(hi - lo) // self.num_replicas) for lo, hi in ranges], times_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Microbatches are to be dealt out anew.

    Attributes:
        members: of the group, by rank.
        before: the ranges that they have, by rank; if the group became another one at the same time, those that its
            members would have without the change.
        after: those that they are to have.
        times_s: see `Dealing`; by worker.
        step_s: how long a step takes as it is.
        expected_s: how long it is predicted to take.
    """

    members: tuple[int, ...]
    before: tuple[Range, ...]
    after: tuple[Range, ...]
    times_s: Mapping[int, float]
    step_s: float
    expected_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came of a change: a step takes `step_s` now; None if the group became another one before it was measured."""

    change: Change
    step_s: float | None


def better_ranges(
    dealing: Dealing, members: tuple[int, ...], ranges: tuple[Range, ...], paces: Sequence[Pace]
) -> Change | None:
    """The change that makes steps faster by more than 10 %, None if there is none.

    Args:
        dealing: how microbatches are dealt out.
        members: workers' numbers, by rank.
        ranges: by rank, what each has now.
        paces: by rank, how fast each is.
    """
    if not dealing.leaves_choice(len(members)):
        return None
    times_s = [pace.compute_s for pace in paces]
    by_worker = MappingProxyType(dict(zip(members, times_s, strict=True)))
    after = replace(dealing, times_s=by_worker).ranges(members)
    now_s, then_s = dealing.slowest_s(ranges, times_s), dealing.slowest_s(after, times_s)
    step_s = max(now_s, statistics.median(pace.step_s for pace in paces))
    expected_s = step_s - now_s + then_s
    if expected_s >= (1 - LEAST_GAIN) * step_s:
        return None
    return Change(members=members, before=ranges, after=after, times_s=by_worker, step_s=step_s, expected_s=expected_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Looks at the paces of a group, window by window; a value: `formed` and `look` return the next one.

    Attributes:
        dealing: how microbatches are dealt out to the present generation.
        members: of the present generation, by rank; `ranges` are what they have.
        began_s: when the present window began, None before the first look; `steps` are the members' steps then.
        num_better: windows in a row in which a change was worth it.
        patience: windows in a row in which it must be.
        pending: a change that was decided, and is not made yet.
        made: a change that was made, and whose gain is not measured yet; `num_since` are the windows since.
    """

    dealing: Dealing
    members: tuple[int, ...] = ()
    ranges: tuple[Range, ...] = ()
    began_s: float | None = None
    steps: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    num_better: int = 0
    patience: int = PATIENCE
    pending: Change | None = None
    made: Change | None = None
    num_since: int = 0

    def formed(self, members: tuple[int, ...], ranges: tuple[Range, ...]) -> tuple[Watch, Change | Measured | None]:
        """A new generation.

        Args:
            members: by rank.
            ranges: what they have, by rank.

        Returns:
            The watch, and what is to be said now: the change that is made with this generation, or that the gain of an
            earlier one remains unknown.
        """
        watch = Watch(dealing=self.dealing, members=members, ranges=ranges, patience=self.patience)
        change = self.pending or self.made
        if change is None:
            return watch, None
        watch = replace(watch, dealing=replace(self.dealing, times_s=change.times_s))
        if (change.members, change.after) == (members, ranges):
            return replace(watch, made=change), self.pending
        found = self._overtaken(change, watch) if self.pending else Measured(change=change, step_s=None)
        return (watch if found is None else replace(watch, patience=self._longer)), found

    def _overtaken(self, change: Change, now: Watch) -> Change | None:
        """What a change is for a group that became another one before it was made; None if it changes nothing."""
        before, times_s = self.dealing.ranges(now.members), now.dealing.times_of(now.members)
        if before == now.ranges:
            return None
        planned_s = [change.times_s[worker] for worker in change.members]
        rest_s = change.step_s - self.dealing.slowest_s(change.before, planned_s)
        return Change(
            members=now.members,
            before=before,
            after=now.ranges,
            times_s=MappingProxyType(dict(zip(now.members, times_s, strict=True))),
            step_s=rest_s + self.dealing.slowest_s(before, times_s),
            expected_s=rest_s + self.dealing.slowest_s(now.ranges, times_s),
        )

    def look(self, now_s: float, paces: Mapping[int, tuple[int, Pace]]) -> tuple[Watch, Change | Measured | None]:
        """Look at the members of the present generation.

        Args:
            now_s: by a clock that does not jump.
            paces: by worker, its step and its pace; who is not heard of yet is missing.

        Returns:
            The watch, and what is to be done or said now.
        """
        if self.pending is not None or not self.members or not set(self.members) <= paces.keys():
            return self, None
        steps = MappingProxyType({worker: paces[worker][0] for worker in self.members})
        if self.began_s is None:
            return replace(self, began_s=now_s, steps=steps), None
        fewest = min(steps[worker] - self.steps[worker] for worker in self.members)
        if fewest < WINDOW_STEPS or now_s < self.began_s + WINDOW_S:
            return self, None
        return replace(self, began_s=now_s, steps=steps)._judged([paces[worker][1] for worker in self.members])

    def _judged(self, paces: Sequence[Pace]) -> tuple[Watch, Change | Measured | None]:
        """A window is over."""
        if self.made is not None:
            if self.num_since + 1 < WINDOWS_TO_MEASURE:
                return replace(self, num_since=self.num_since + 1), None
            return self._measured(self.made, statistics.median(pace.step_s for pace in paces))
        change = better_ranges(self.dealing, self.members, self.ranges, paces)
        num_better = 0 if change is None else self.num_better + 1
        if change is None or num_better < self.patience:
            return replace(self, num_better=num_better), None
        return replace(self, num_better=0, pending=change), change

    def _measured(self, change: Change, step_s: float) -> tuple[Watch, Measured]:
        kept = change.step_s - step_s >= (change.step_s - change.expected_s) / 2
        patience = PATIENCE if kept else self._longer
        return replace(self, made=None, num_since=0, patience=patience), Measured(change=change, step_s=step_s)

    @property
    def _longer(self) -> int:
        """The patience after a change that was not worth it, as far as is known."""
        return min(2 * self.patience, MAX_PATIENCE)
