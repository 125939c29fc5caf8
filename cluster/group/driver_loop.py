"""Runs one task of a worker group: takes messages, asks the controller, carries its actions out.

Commands go down by methods, what happens comes up as events, and nothing is called back::

    loop = TaskLoop(group, task)
    for event in loop.events():
        loop.answer(...)  # what the event makes possible

Everything with a clock is here: workers that do not answer, workers that are late, how long to wait for replacements.
A dead worker is noticed in `_take` (its pool tells), a silent one in `_fence_silent`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import TaskFailed
from ..spec import FIRST_DEADLINE_S
from .controller import MAX_START_FAILURES, decide
from .controller_state import (
    AbortGeneration,
    Action,
    Event,
    Expired,
    Finished,
    Formed,
    JoinRequested,
    Kill,
    LeaveWanted,
    Order,
    Reply,
    Signal,
    Started,
    Stop,
    TaskState,
    WorkerDeath,
)
from .messages import (
    Failure,
    Heartbeat,
    InitialStateChanged,
    JoinRequest,
    Membership,
    Message,
    PauseWanted,
    TaskEnded,
    TaskEvent,
    TaskRequest,
    Wish,
    WorkerUp,
)
from .worker_group import TICK_S, KnownWorker, WorkerGroup
from .worker_process import log_path

LATE_AFTER_DEADLINES = 10
COLLECT_ERRORS_S = 5.0  # after an error of a worker's own: how long the others' requests are awaited
STALLED_S = 2.0  # a driver that did not look for so long was stopped itself, and knows nothing of anybody's silence
STACKS_S = 1.0
# Work whose duration nobody can know: it is reported when others wait for it, and never cut short.
PATIENT_ACTIVITIES = ("the chief's callbacks", "start", "saving")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task.

    Attributes:
        method: what to call on the hosted objects.
        job: what to call it with, on every worker.
        initial_state: where the state comes from; None for the workers' own.
        log_dir: folder for the workers' logs; None leaves what they print where it is.
    """

    method: str
    job: object
    initial_state: object = None
    log_dir: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLate:
    """The others wait for this worker; what it does, and where its threads are."""

    worker: int
    heartbeat: Heartbeat
    stacks: str


GroupEvent = TaskEvent | WorkerDeath | Formed | WorkerLate | InitialStateChanged


class TaskLoop:
    """One task on the workers of a group.

    Attributes:
        state: where the task stands.
        results: what workers delivered, by number.

    Args:
        group: the workers.
        task: what to run.
    """

    def __init__(self, group: WorkerGroup, task: Task) -> None:
        group.hear()
        self._group, self._task = group, task
        self.state = TaskState(
            num_to_begin=group.num_to_begin, num_to_go_on=group.spec.num_to_go_on, initial_state=task.initial_state
        )
        self.results: dict[int, Any] = {}
        self._events: deque[GroupEvent] = deque()
        self._requests: dict[int, tuple[int, bool]] = {}  # the last of each worker, and whether it is for a place
        self._stop: Stop | None = None
        self._collect_until_s: float | None = None
        self._short_since_s: float | None = None
        self._regrouping_since_s: float | None = None
        self._ticked_s = time.monotonic()
        self._said_late: set[tuple[int, int]] = set()

    # -- events up ------------------------------------------------------------------------------------------------

    def events(self) -> Iterator[GroupEvent]:
        """Run the task to its end.

        Yields:
            What happens. A `TaskRequest` waits for its answer, which may come with a later event; every other worker
            goes on meanwhile.

        Raises:
            TaskFailed: the task was given up.
        """
        for worker in sorted(self._group.up):
            self._begin(worker)
        while not self.state.over:
            yield from self._pending()
            message = self._group.pool.receive(TICK_S)
            if message is not None:
                self._take(message)
            self._tick()
        yield from self._pending()
        if self._stop is not None:
            raise TaskFailed(self._stop.cause, self._stop.others)

    def _pending(self) -> Iterator[GroupEvent]:
        while self._events:
            yield self._events.popleft()

    # -- commands down --------------------------------------------------------------------------------------------

    def answer(self, answers: Mapping[int, object]) -> None:
        """Answer the requests of these workers; who waits for nothing, or has come to wait for a place, gets none."""
        for worker, reply in answers.items():
            self._reply(worker, reply, for_place=False)

    def pause(self, reason: str) -> None:
        """Ask for a pause at the next good moment; from any thread or signal handler."""
        self._group.pool.inbox.put(PauseWanted(reason=reason))

    def regroup_if_wanted(self) -> None:
        """The group is in the middle of steps: change it now if somebody waits for that."""
        self._decide(Signal.REGROUP_IF_WANTED)

    # -- messages -------------------------------------------------------------------------------------------------

    def _take(self, message: Message | Wish) -> None:
        if isinstance(message, PauseWanted | InitialStateChanged):
            self._decide(message)
            if isinstance(message, InitialStateChanged):
                self._events.append(message)  # whoever has told it hears that it counts
            return
        worker, known = message.worker, self._group.up.get(message.worker)
        if known is not None:
            known.heard_s = time.monotonic()
        if isinstance(message, WorkerUp):
            self._group.take(message)
            self._begin(worker)
        elif known is None and worker not in self._group.launched:
            return  # who was ended is not heard of again
        elif isinstance(message, TaskEnded):
            self._ended(message)
        elif isinstance(message, TaskEvent):
            self._told(message)
        elif known is not None:
            known.heartbeat = message.heartbeat

    def _begin(self, worker: int) -> None:
        task = self._task
        self._group.up[worker].begin()
        log = None if task.log_dir is None else log_path(task.log_dir, worker)
        self._group.pool.begin(worker, task.method, task.job, log)
        self._decide(Started(worker=worker))

    def _told(self, event: TaskEvent) -> None:
        is_request, for_place = isinstance(event, TaskRequest), isinstance(event.content, JoinRequest)
        if isinstance(event, TaskRequest):
            self._requests[event.worker] = event.number, for_place
        if isinstance(event.content, JoinRequest):
            self._decide(JoinRequested(worker=event.worker, request=event.content))
        elif not is_request or self.state.status != "collecting errors":  # a task that is given up answers nobody
            self._events.append(event)

    def _ended(self, ended: TaskEnded) -> None:
        group, worker, failure = self._group, ended.worker, ended.failure
        if worker in group.up:
            group.up[worker].has_task = False
        if failure is None:
            if ended.result is not None:
                self.results[worker] = ended.result
            if self.state.status in ("running", "regrouping", "gathering") and worker not in self.state.members:
                group.end(worker)  # it was let go: what it holds is free again
            self._decide(Finished(worker=worker))
            return
        if worker in group.launched:  # it counts as one that did not get ready
            group.launched.discard(worker)
            self._decide(Started(worker=worker))
        if failure.kind == "died":
            known = group.up.pop(worker, None)
            if failure.step is None and known is not None and known.heartbeat is not None:
                failure = replace(failure, step=known.heartbeat.step)
        self._decide(failure)

    def _reply(self, worker: int, reply: object, *, for_place: bool) -> None:
        """Answer a worker's last request, if it is of this kind: others come too late."""
        number, is_for_place = self._requests.get(worker, (None, False))
        if number is not None and is_for_place == for_place:
            del self._requests[worker]
            self._group.pool.answer(worker, number, reply)

    # -- decisions ------------------------------------------------------------------------------------------------

    def _decide(self, event: Event) -> None:
        self.state, actions = decide(self.state, event)
        for action in actions:
            self._act(action)

    def _act(self, action: Action) -> None:
        group = self._group
        match action:
            case Reply(worker=worker, answer=Membership() as place):
                addresses = tuple(group.up[member].address for member in place.members)
                self._reply(worker, replace(place, addresses=addresses, secret=group.secret), for_place=True)
            case Reply(worker=worker, answer=answer):
                self._reply(worker, answer, for_place=True)
            case AbortGeneration(workers=workers, generation=generation, reason=reason):
                self._regrouping_since_s = time.monotonic()
                for worker in sorted(workers):
                    group.pool.abort(worker, generation, reason)
            case Kill(worker=worker):
                group.end(worker)
            case WorkerDeath():
                self._events.append(action)
            case Formed():
                self._short_since_s = self._regrouping_since_s = None
                self._said_late.clear()
                self._events.append(action)
            case Order.AWAIT_WORKERS:
                if self.state.generation >= 0 and self._short_since_s is None:
                    self._short_since_s = time.monotonic()
            case Order.COLLECT_ERRORS:
                self._collect_until_s = time.monotonic() + COLLECT_ERRORS_S
            case Stop():
                self._stop = action

    # -- the clock ------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Look at the clock, and at what is wanted."""
        now_s = time.monotonic()
        if self.state.over or now_s < self._ticked_s + TICK_S:
            return
        if now_s - self._ticked_s > STALLED_S:
            for known in self._group.up.values():
                known.heard_s = max(known.heard_s, now_s - TICK_S)
        self._ticked_s = now_s
        timeout_s = self._group.spec.start_timeout_s
        if self._collect_until_s is not None and now_s >= self._collect_until_s:
            self._decide(Signal.ERRORS_COLLECTED)
        if self._short_since_s is not None and now_s > self._short_since_s + timeout_s:
            self._decide(Expired(reason=f"No replacement came within {timeout_s:g} s."))
        if not self.state.over:
            self._fence_silent(now_s)
            self._watch_late(now_s)
            self._fit_size()

    def _deadline_s(self) -> float:
        """How long a member may be unheard of."""
        times = (known.heartbeat.step_s for known in self._group.up.values() if known.heartbeat is not None)
        return self._group.spec.deadline_of(max(times, default=0.0))

    def _awaited(self) -> Iterator[tuple[int, KnownWorker, Heartbeat]]:
        """The members that work, and have been heard of."""
        for worker in self.state.members:
            known = self._group.up.get(worker)
            if worker not in self.state.requests and known is not None and known.heartbeat is not None:
                yield worker, known, known.heartbeat

    def _fence_silent(self, now_s: float) -> None:
        for worker, known, heartbeat in self._awaited():
            silent_s = now_s - known.heard_s
            if silent_s > self._deadline_s():
                self._fence(worker, heartbeat, f"it did not answer for {silent_s:.1f} s: it is stopped, or cut off")
                return

    def _fence(self, worker: int, heartbeat: Heartbeat, reason: str) -> None:
        """End a worker that does not take part any more; should it wake up, nobody listens to it."""
        self._group.end(worker)
        self._decide(Failure(worker=worker, kind="died", reason=reason, step=heartbeat.step))

    def _watch_late(self, now_s: float) -> None:
        """While the group regroups: name those it waits for, and let go of one that stands still for too long."""
        if self.state.status != "regrouping" or self._regrouping_since_s is None:
            return
        waited_s, deadline_s = now_s - self._regrouping_since_s, self._deadline_s()
        if waited_s < min(deadline_s, FIRST_DEADLINE_S):
            return
        for worker, _, heartbeat in self._awaited():
            if (worker, self.state.generation) not in self._said_late:
                self._said_late.add((worker, self.state.generation))
                stacks = self._group.pool.stacks(worker, STACKS_S)
                self._events.append(WorkerLate(worker=worker, heartbeat=heartbeat, stacks=stacks))
            limit_s = LATE_AFTER_DEADLINES * deadline_s if heartbeat.step_s else FIRST_DEADLINE_S
            if heartbeat.activity not in PATIENT_ACTIVITIES and waited_s > limit_s:
                self._fence(worker, heartbeat, f"it stood still at '{heartbeat.activity}' for {limit_s:.0f} s")
                return

    def _fit_size(self) -> None:
        """Launch workers that are wanted; let those go that are not, or whose machines go away."""
        state, group = self.state, self._group
        if state.status in ("closing", "ending", "collecting errors", "over"):
            return
        leaving = group.pool.leaving() - state.leaving
        staying = set(group.up) - state.leaving
        surplus = len(staying) + len(group.launched) - group.target
        if surplus > 0:
            leaving |= frozenset(sorted(staying - leaving)[-surplus:])
        if leaving:
            self._decide(LeaveWanted(workers=leaving))
        while surplus < 0 and state.num_start_failures < MAX_START_FAILURES:
            worker = group.pool.launch()
            if worker is None:
                return
            group.launched.add(worker)
            surplus += 1
