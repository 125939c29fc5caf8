"""Who is overdue in a task: whom the user must hear of, and who is taken for lost. Decided from what was heard.

Three kinds of workers are looked at: members that work, for silence, and for standing still at what they do by
themselves; members that the others wait for (to report for the next generation, or to end), for lateness; workers that
have no place yet, for both. The limits are in `liveness.py`, the clock is the caller's (`driver_loop.py`), who also
carries out what follows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from ..spec import FIRST_DEADLINE_S, GroupSpec
from .controller_state import TaskState
from .liveness import (
    Activity,
    Heartbeat,
    Life,
    lateness_limit_s,
    must_be_named,
    reason_of_silence,
    reason_of_stillness,
    reason_to_end,
    stillness_limit_s,
)

_UNHEARD = Heartbeat(activity=Activity.SET_UP)  # a member works within a second of its start, before its first one


@dataclass(slots=True)
class Overdue:
    """Looks at the workers of one task.

    Attributes:
        spec: of the group.
        waiting_since_s: since when members are to report, or to end; None while they are not.
    """

    spec: GroupSpec
    waiting_since_s: float | None = None
    _named: set[int] = field(default_factory=set)  # members, since the last generation
    _named_early: set[int] = field(default_factory=set)  # those that have no place yet

    def formed(self) -> None:
        """A new generation works: nobody is waited for."""
        self.waiting_since_s = None
        self._named.clear()

    def answered(self, life: Life | None, now_s: float) -> None:
        """A worker waited, and is to do something now (to copy its state): its time for that begins."""
        if self.waiting_since_s is not None:
            self.waiting_since_s = now_s
        if life is not None:
            life.forgive(now_s)

    def stalled(self, for_s: float) -> None:
        """The driver did not look for so long: that counts against nobody."""
        if self.waiting_since_s is not None:
            self.waiting_since_s += for_s

    def to_name(
        self, state: TaskState, lives: Mapping[int, Life], launched: Collection[int], now_s: float
    ) -> list[int]:
        """The workers that have become late since this was asked last.

        Args:
            state: of the task.
            lives: what was heard of all workers, by number.
            launched: those that are on their way.
            now_s: the time.
        """
        limit_s = min(self._deadline_s(lives), FIRST_DEADLINE_S)
        late = [
            worker
            for worker, life, heartbeat in _working(state, lives)
            if worker not in self._named and self._late_s(state, life, heartbeat, now_s) >= limit_s
        ]
        self._named.update(late)
        deadline_s = self.spec.deadline_of(0.0)
        early = [
            worker
            for worker, life in _without_place(state, lives, launched)
            if worker not in self._named_early and must_be_named(life, deadline_s, now_s)
        ]
        self._named_early.update(early)
        return late + early

    def to_end(
        self, state: TaskState, lives: Mapping[int, Life], launched: Collection[int], now_s: float
    ) -> dict[int, str]:
        """The workers that are taken for lost, with the reason; one member at a time, for its loss changes the others.

        Args:
            state: of the task.
            lives: what was heard of all workers, by number.
            launched: those that are on their way.
            now_s: the time.
        """
        deadline_s = self.spec.deadline_of(0.0)
        early = {
            worker: reason
            for worker, life in _without_place(state, lives, launched)
            if (reason := reason_to_end(life, deadline_s, self.spec.start_timeout_s, now_s))
        }
        members = (
            {worker: reason}
            for worker, life, heartbeat in _working(state, lives)
            if (reason := self._reason(state, life, heartbeat, self._deadline_s(lives), now_s))
        )
        return early | next(members, {})

    def _reason(self, state: TaskState, life: Life, heartbeat: Heartbeat, deadline_s: float, now_s: float) -> str:
        """Why a member that works is taken for lost; empty if it is not."""
        if silent := reason_of_silence(life, deadline_s, now_s):
            return silent
        limit_s = lateness_limit_s(heartbeat, deadline_s)
        if state.status in ("regrouping", "ending") and self._waited_s(now_s) > limit_s:
            return reason_of_stillness(heartbeat, limit_s)
        still_s = life.told_still_s
        if state.status == "running" and still_s > stillness_limit_s(heartbeat, deadline_s):
            return reason_of_stillness(heartbeat, still_s)
        return ""

    def _late_s(self, state: TaskState, life: Life, heartbeat: Heartbeat, now_s: float) -> float:
        """For how long the others have waited for a member to report, or it has stood still by itself."""
        if state.status == "regrouping":
            return self._waited_s(now_s)
        by_itself = state.status == "running" and stillness_limit_s(heartbeat, 0.0) < float("inf")
        return life.told_still_s if by_itself else 0.0

    def _waited_s(self, now_s: float) -> float:
        return 0.0 if self.waiting_since_s is None else now_s - self.waiting_since_s

    def _deadline_s(self, lives: Mapping[int, Life]) -> float:
        """How long a member may be unheard of: steps are as long as those of the slowest."""
        beats = (life.heartbeat for life in lives.values())
        return self.spec.deadline_of(max((beat.step_s for beat in beats if beat is not None), default=0.0))


def _working(state: TaskState, lives: Mapping[int, Life]) -> Iterator[tuple[int, Life, Heartbeat]]:
    """The members that work, with what they do as far as they have said it: who falls silent may never have done so."""
    for worker in state.members:
        life = lives.get(worker)
        if worker not in state.requests and life is not None:
            yield worker, life, life.heartbeat or _UNHEARD


def _without_place(
    state: TaskState, lives: Mapping[int, Life], launched: Collection[int]
) -> Iterator[tuple[int, Life]]:
    """Those that are on their way, or set themselves up."""
    for worker in sorted({*launched, *state.starting}):
        if (life := lives.get(worker)) is not None:
            yield worker, life
