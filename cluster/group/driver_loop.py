"""Runs one task of a worker group: takes messages, asks the controller, carries its actions out.

Everything with a clock is here: workers that do not answer, workers that are late, how long to wait for replacements.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..errors import TaskFailed
from ..spec import GroupSpec, WorkerInfo
from .controller import MAX_START_FAILURES, decide
from .controller_state import (
    AbortGeneration,
    Action,
    Event,
    Expired,
    Failed,
    Failure,
    Finished,
    Formed,
    InitialStateChanged,
    JoinRequested,
    Kill,
    LeaveWanted,
    Limits,
    Order,
    PauseWanted,
    Reply,
    Signal,
    Started,
    Stop,
    TaskState,
    WorkerDeath,
)
from .messages import Heartbeat, JoinRequest, Leave, Membership
from .pool import Alive, Message, Spoke, Up, WorkerPool
from .worker_process import TaskLimits

TICK_S = 0.25
LATE_AFTER_DEADLINES = 10
STALLED_S = 2.0  # a driver that did not look for so long was stopped itself, and knows nothing of anybody's silence
# Work whose duration nobody can know: it is reported when others wait for it, and never cut short.
PATIENT_ACTIVITIES = ("the chief's callbacks", "start", "saving")


class Handler(Protocol):
    """The task's side of the driver. Answers are by worker; to a worker that asked nothing they are dropped."""

    def handle(self, worker: int, event: Any) -> Mapping[int, Any]:
        """Take what a worker told or asked."""

    def lost(self, failure: Failure, num_left: int) -> Mapping[int, Any]:
        """A member is lost."""

    def formed(self, formed: Formed) -> Mapping[int, Any]:
        """A new generation works."""

    def late(self, worker: int, heartbeat: Heartbeat, stacks: str) -> None:
        """The others wait for this worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task.

    Attributes:
        method: what to call on the hosted objects.
        job: what to call it with, on every worker.
        limits: of its group.
        initial_state: where the state comes from, None for the workers' own.
        log_path: log file of a worker, or None.
    """

    method: str
    job: Any
    limits: Limits
    initial_state: Any = None
    log_path: Callable[[int], str | None] = lambda _: None


@dataclass(slots=True)
class Known:
    """What the driver knows about a worker."""

    info: WorkerInfo
    address: tuple[str, int]
    heard_s: float = field(default_factory=time.monotonic)
    heartbeat: Heartbeat | None = None


class Roster(dict[int, Known]):
    """The workers that are up, by number; `seen` also has those that are gone."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, WorkerInfo] = {}

    def add(self, info: WorkerInfo, address: tuple[str, int]) -> None:
        """A worker is up."""
        self[info.worker] = Known(info=info, address=address)
        self.seen[info.worker] = info


class TaskLoop:
    """One task on the workers of a pool.

    Args:
        pool: the workers.
        known: those that are up, by number; changed as workers come and go.
        spec: of the group.
        secret: what the run's workers know each other by.
        task: what to run.
        handler: the task's side of the driver.
        target: how many workers there shall be; may be called at any time.
        launched: workers on their way; changed as they come up.
    """

    def __init__(
        self,
        pool: WorkerPool,
        known: Roster,
        spec: GroupSpec,
        secret: bytes,
        task: Task,
        handler: Handler,
        target: Callable[[], int],
        launched: set[int],
    ) -> None:
        self._pool, self._known, self._spec, self._secret = pool, known, spec, secret
        self._task, self._handler, self._target = task, handler, target
        self.state = TaskState(limits=task.limits, initial_state=task.initial_state)
        self.results: dict[int, Any] = {}
        self._launched = launched
        self._questions: dict[int, tuple[int, bool]] = {}  # the last of each worker, and whether it is a request
        self._settle_at: float | None = None
        self._short_since: float | None = None
        self._regrouping_since: float | None = None
        self._tick_at = 0.0
        self._ticked_s = time.monotonic()
        self._said_late: set[tuple[int, int]] = set()
        self._pause = ""

    def run(self) -> dict[int, Any]:
        """Run the task to its end; returns what workers delivered, by number.

        Raises:
            TaskFailed: it was given up.
        """
        for worker in sorted(self._known):
            self._begin(worker)
        while not self.state.over:
            if self._pool.execute(self.feed):
                continue
            message = self._pool.receive(TICK_S)
            if message is not None:
                self.feed(message)
            self.tick()
        return self.results

    def pause(self, reason: str) -> None:
        """Ask for a pause at the next good moment; may be called from a signal handler."""
        self._pause = self._pause or reason

    def set_initial_state(self, initial_state: Any) -> None:
        """There is a new checkpoint."""
        self._decide(InitialStateChanged(initial_state=initial_state))

    def regroup_if_wanted(self) -> None:
        """The group is in the middle of steps."""
        self._decide(Signal.REGROUP_IF_WANTED)

    def feed(self, message: Message) -> None:
        """Take one message."""
        worker = message.info.worker if isinstance(message, Up) else message.worker
        if worker in self._known:
            self._known[worker].heard_s = time.monotonic()
        if isinstance(message, Up):
            self._launched.discard(worker)
            self._known.add(message.info, message.address)
            self._begin(worker)
        elif isinstance(message, Alive):
            if worker in self._known:
                self._known[worker].heartbeat = message.heartbeat
        elif isinstance(message, Spoke):
            if worker in self._known:  # who was ended is not heard of again
                self._spoken(message)
        elif message.outcome.failure is not None:
            self._ended_badly(message.outcome.failure)
        else:
            if message.outcome.result is not None:
                self.results[worker] = message.outcome.result
            if self.state.status in ("running", "regrouping", "gathering") and worker not in self.state.members:
                self._known.pop(worker, None)  # it was let go: what it holds is free again
                self._pool.kill(worker)
            self._decide(Finished(worker=worker))
        self._take_pause()

    def tick(self) -> None:
        """Look at the clock, and at what is wanted."""
        now_s = time.monotonic()
        if self.state.over or now_s < self._tick_at:
            return
        if now_s - self._ticked_s > STALLED_S:
            for known in self._known.values():
                known.heard_s = max(known.heard_s, now_s - TICK_S)
        self._tick_at, self._ticked_s = now_s + TICK_S, now_s
        self._take_pause()
        if self._settle_at is not None and now_s >= self._settle_at:
            self._decide(Signal.ERRORS_COLLECTED)
        if self._short_since is not None and now_s > self._short_since + self._spec.start_timeout_s:
            waited = f"No replacement came within {self._spec.start_timeout_s:g} s."
            self._decide(Expired(reason=waited))
        if not self.state.over:
            self._fence_silent(now_s)
            self._watch_late(now_s)
            self._fit_size()

    # -- messages -------------------------------------------------------------------------------------------------

    def _begin(self, worker: int) -> None:
        limits = TaskLimits(first_deadline_s=self._spec.first_deadline_s, deadline_s=self._spec.deadline_s)
        log_path = self._task.log_path(worker)
        self._known[worker].heartbeat, self._known[worker].heard_s = None, time.monotonic()
        self._pool.begin(worker, self._task.method, self._task.job, limits, log_path)
        self._decide(Started(worker=worker))

    def _spoken(self, message: Spoke) -> None:
        if message.question is not None:
            self._questions[message.worker] = message.question, isinstance(message.event, JoinRequest)
        if self.state.over and isinstance(
            message.event, JoinRequest
        ):  # it came up to a task that was paused before it began
            self._answer({message.worker: Leave("the task is over")}, to_reports=True)
        elif isinstance(message.event, JoinRequest):
            self._decide(JoinRequested(worker=message.worker, request=message.event))
        elif self.state.status not in ("collecting errors", "over"):
            self._answer(self._handler.handle(message.worker, message.event))
        elif message.question is None:  # a task that is given up answers nobody, but what is told still counts
            self._handler.handle(message.worker, message.event)

    def _ended_badly(self, failure: Failure) -> None:
        known = self._known.get(failure.worker)
        if failure.worker in self._launched:  # it counts as one that did not get ready
            self._launched.discard(failure.worker)
            self._decide(Started(worker=failure.worker))
        if failure.kind == "died":
            self._known.pop(failure.worker, None)
            if failure.step is None and known is not None and known.heartbeat is not None:
                failure = replace(failure, step=known.heartbeat.step)
        self._decide(Failed(failure=failure))

    def _answer(self, answers: Mapping[int, Any], *, to_reports: bool = False) -> None:
        """Answer who waits. The task's answers come too late for a worker that has reported meanwhile."""
        for worker, reply in answers.items():
            question, is_report = self._questions.get(worker, (None, False))
            if question is not None and is_report == to_reports:
                del self._questions[worker]
                self._pool.answer(worker, question, reply)

    def _take_pause(self) -> None:
        if self._pause and not self.state.pause and not self.state.over:
            self._decide(PauseWanted(reason=self._pause))

    # -- decisions ------------------------------------------------------------------------------------------------

    def _decide(self, event: Event) -> None:
        self.state, actions = decide(self.state, event)
        for action in actions:
            self._act(action)

    def _act(self, action: Action) -> None:
        if isinstance(action, Reply):
            answer = action.answer
            if isinstance(answer, Membership):
                addresses = tuple(self._known[member].address for member in answer.members)
                answer = replace(answer, addresses=addresses, secret=self._secret)
            self._answer({action.worker: answer}, to_reports=True)
        elif isinstance(action, AbortGeneration):
            self._regrouping_since = time.monotonic()
            for worker in sorted(action.workers):
                self._pool.abort(worker, action.generation, action.reason)
        elif isinstance(action, Kill):
            self._known.pop(action.worker, None)
            self._pool.kill(action.worker)
        elif isinstance(action, WorkerDeath):
            self._answer(self._handler.lost(action.failure, action.num_left))
        elif isinstance(action, Formed):
            self._short_since = self._regrouping_since = None
            self._said_late.clear()
            self._answer(self._handler.formed(action))
        elif action is Order.AWAIT_WORKERS:
            if self.state.generation >= 0 and self._short_since is None:
                self._short_since = time.monotonic()
        elif action is Order.COLLECT_ERRORS:
            self._settle_at = time.monotonic() + self._spec.settle_s
        elif isinstance(action, Stop):
            raise TaskFailed(action.cause, action.others)

    # -- the clock ------------------------------------------------------------------------------------------------

    def _deadline_s(self) -> float:
        """How long a member may be unheard of."""
        if self._spec.deadline_s is not None:
            return self._spec.deadline_s
        times = [known.heartbeat.step_s for known in self._known.values() if known.heartbeat is not None]
        return max(5.0, 10 * max(times, default=0.0))

    def _fence_silent(self, now_s: float) -> None:
        for worker in self.state.members:
            known = self._known.get(worker)
            if known is None or worker in self.state.requests or known.heartbeat is None:
                continue
            silent_s = now_s - known.heard_s
            if silent_s > self._deadline_s():
                self._fence(worker, known, f"it did not answer for {silent_s:.1f} s: it is stopped, or cut off")
                return

    def _fence(self, worker: int, known: Known, reason: str) -> None:
        """End a worker that does not take part any more; should it wake up, nobody listens to it."""
        self._pool.kill(worker)
        self._known.pop(worker, None)
        step = None if known.heartbeat is None else known.heartbeat.step
        self._decide(Failed(failure=Failure(worker=worker, kind="died", reason=reason, step=step)))

    def _watch_late(self, now_s: float) -> None:
        """While the group regroups: name those it waits for, and let go of one that stands still for too long."""
        if self.state.status != "regrouping" or self._regrouping_since is None:
            return
        deadline_s = self._deadline_s()
        if now_s - self._regrouping_since < min(deadline_s, self._spec.first_deadline_s):
            return
        for worker in self.state.members:
            known = self._known.get(worker)
            if worker in self.state.requests or known is None or known.heartbeat is None:
                continue
            if (worker, self.state.generation) not in self._said_late:
                self._said_late.add((worker, self.state.generation))
                self._handler.late(worker, known.heartbeat, self._pool.stacks(worker, wait_s=1.0))
            limit_s = LATE_AFTER_DEADLINES * deadline_s if known.heartbeat.step_s else self._spec.first_deadline_s
            if known.heartbeat.activity not in PATIENT_ACTIVITIES and now_s - self._regrouping_since > limit_s:
                self._fence(worker, known, f"it stood still at '{known.heartbeat.activity}' for {limit_s:.0f} s")
                return

    def _fit_size(self) -> None:
        """Launch workers that are wanted; let those go that are not, or whose machines go away."""
        state = self.state
        if state.status in ("closing", "ending", "collecting errors", "over"):
            return
        target, leaving = self._target(), self._pool.leaving() - state.leaving
        surplus = len(set(self._known) - state.leaving) + len(self._launched) - target
        if surplus > 0:
            leaving |= frozenset(sorted(set(self._known) - state.leaving - leaving)[-surplus:])
        if leaving:
            self._decide(LeaveWanted(workers=leaving))
        while surplus < 0 and state.num_start_failures < MAX_START_FAILURES:
            worker = self._pool.launch()
            if worker is None:
                return
            self._launched.add(worker)
            surplus += 1
