"""Runs one task of a worker group: takes messages, asks the controller, carries its actions out.

Commands go down by methods, what happens comes up as events, and nothing is called back::

    loop = TaskLoop(group, task)
    for event in loop.events():
        loop.answer(...)  # what the event makes possible

Everything with a clock is here: workers that do not answer, workers that are late, how long to wait for replacements.
A dead worker is noticed in `_take` (its pool tells), a silent one and a late one in `_look_at_workers`: who that is
decides `overdue.py`, by the limits in `liveness.py`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..errors import TaskFailed
from ..pace import Change, Measured, Watch
from .controller import decide
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
    PaceChanged,
    Reply,
    Signal,
    Started,
    StartFailed,
    Stop,
    TaskState,
    WorkerDeath,
)
from .liveness import Activity, Heartbeat
from .messages import (
    Failure,
    InitialStateChanged,
    JoinRequest,
    Membership,
    Message,
    PauseWanted,
    Said,
    TaskEnded,
    TaskEvent,
    TaskRequest,
    Wish,
    WorkerAlive,
    WorkerUp,
)
from .overdue import Overdue
from .task import GroupEvent, Rebalanced, Task, WorkerLate, WorkersSeen
from .worker_group import STACKS_S, STALLED_S, TICK_S, WorkerGroup
from .worker_process import log_path

SEEN_EVERY_S = 1.0
COLLECT_ERRORS_S = 5.0  # after an error of a worker's own: how long the others' requests are awaited


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
            num_to_begin=group.num_to_begin,
            num_to_go_on=group.spec.num_to_go_on,
            initial_state=task.initial_state,
            dealing=task.dealing,
        )
        self._watch = None if task.dealing is None else Watch(dealing=task.dealing)
        self.results: dict[int, Any] = {}
        self._events: deque[GroupEvent] = deque(group.not_started)
        group.not_started.clear()
        self._requests: dict[int, tuple[int, bool]] = {}  # the last of each worker, and whether it is for a place
        self._joining: set[int] = set()  # those that have asked for a place, and were not seen to work in it
        self._stop: Stop | None = None
        self._collect_until_s: float | None = None
        self._short_s = 0.0  # how long there have been too few workers, since the last generation was formed
        self._ticked_s = self._seen_s = time.monotonic()
        self._overdue = Overdue(group.spec)

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

    def say(self, content: object) -> None:
        """Let this come up as an event, `Said`; from any thread."""
        self._group.pool.inbox.put(Said(content=content))

    def regroup_if_wanted(self) -> None:
        """The group is in the middle of steps: change it now if somebody waits for that, or is slow."""
        self._decide(Signal.REGROUP_IF_WANTED)
        if self.state.status == "running":
            self._look_at_pace(time.monotonic())

    # -- messages -------------------------------------------------------------------------------------------------

    def _take(self, message: Message | Wish) -> None:
        if isinstance(message, Said):
            self._events.append(message)
            return
        if isinstance(message, PauseWanted | InitialStateChanged):
            self._decide(message)
            if isinstance(message, InitialStateChanged):
                self._events.append(message)  # whoever has told it hears that it counts
            return
        worker, life = message.worker, self._group.life_of(message.worker)
        if life is None:
            return  # who was ended is not heard of again
        if isinstance(message, WorkerUp):
            self._group.take(message)
            self._begin(worker)
        elif isinstance(message, WorkerAlive):
            self._group.take(message)
            self._note_place(worker, message.heartbeat)
        else:
            life.hear(time.monotonic())
            if isinstance(message, TaskEnded):
                self._ended(message)
            else:
                self._told(message)

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
            self._note_request(event.worker, event.content)
            self._decide(JoinRequested(worker=event.worker, request=event.content))
        elif not is_request or self.state.status != "collecting errors":  # a task that is given up answers nobody
            self._events.append(event)

    def _note_request(self, worker: int, request: JoinRequest) -> None:
        """A worker has got as far as to ask for a place."""
        if request.waiting_at == "join":
            self._joining.add(worker)
        if (life := self._group.life_of(worker)) is not None:
            life.copy_s = request.copy_s

    def _note_place(self, worker: int, heartbeat: Heartbeat) -> None:
        """A worker that asked for a place works in it: only now it has started well, for peers may not reach it."""
        if worker in self._joining and heartbeat.generation >= 0 and heartbeat.activity is not Activity.JOIN:
            self._joining.remove(worker)
            self._group.started_well()

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
        self._lost_on_its_way(worker)
        if failure.kind == "died":
            known = group.up.pop(worker, None)
            if failure.step is None and known is not None and known.life.heartbeat is not None:
                failure = replace(failure, step=known.life.heartbeat.step)
        self._decide(failure)

    def _lost_on_its_way(self, worker: int) -> None:
        """A worker is lost: if it was on its way, it counts as one that did not get ready."""
        if self._group.launched.pop(worker, None) is not None:
            self._decide(Started(worker=worker))

    def _reply(self, worker: int, reply: object, *, for_place: bool) -> None:
        """Answer a worker's last request, if it is of this kind: others come too late."""
        number, is_for_place = self._requests.get(worker, (None, False))
        if number is not None and is_for_place == for_place:
            del self._requests[worker]
            self._group.pool.answer(worker, number, reply)

    # -- decisions ------------------------------------------------------------------------------------------------

    def _decide(self, event: Event) -> None:
        before = self.state
        self.state, actions = decide(self.state, event)
        if self.state.num_restarts > before.num_restarts:
            self._group.back_off(before.num_restarts)  # at the first one others are started at once
        if self.state.status == "ending" != before.status:
            self._overdue.waiting_since_s = time.monotonic()
        for action in actions:
            self._act(action)

    def _act(self, action: Action) -> None:
        group = self._group
        match action:
            case Reply(worker=worker, answer=Membership() as place):
                members = [group.up[member] for member in place.members]
                addresses = tuple(known.address for known in members)
                copy_s = max(known.life.copy_s for known in members)
                self._reply(
                    worker, replace(place, addresses=addresses, secret=group.secret, copy_s=copy_s), for_place=True
                )
            case Reply(worker=worker, answer=answer):
                self._overdue.answered(group.life_of(worker), time.monotonic())
                self._reply(worker, answer, for_place=True)
            case AbortGeneration(workers=workers, generation=generation, reason=reason):
                self._overdue.waiting_since_s = time.monotonic()
                for worker in sorted(workers):
                    group.pool.abort(worker, generation, reason)
            case Kill(worker=worker):
                group.end(worker)
            case WorkerDeath():
                self._events.append(action)
            case StartFailed(failure=failure):
                self._events.append(group.start_failed(failure))
            case Formed():
                self._short_s = 0.0
                self._overdue.formed()
                self._events.append(action)
                if self._watch is not None:
                    self._watch, found = self._watch.formed(action.members, action.ranges)
                    if found is not None:
                        self._events.append(Rebalanced(change=found) if isinstance(found, Change) else found)
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
        elapsed_s, self._ticked_s = now_s - self._ticked_s, now_s
        if self._group.look(now_s):
            self._overdue.stalled(elapsed_s)
        if self._collect_until_s is not None and now_s >= self._collect_until_s:
            self._decide(Signal.ERRORS_COLLECTED)
        self._await_workers(min(elapsed_s, STALLED_S))
        if not self.state.over:
            self._look_at_workers(now_s)
            self._tell_seen(now_s)
            self._fit_size()

    def _await_workers(self, elapsed_s: float) -> None:
        """Give up when there have been too few workers for too long: those that set themselves up are there."""
        timeout_s = self._group.spec.start_timeout_s
        if self.state.too_few:
            self._short_s += elapsed_s
            if self._short_s > timeout_s:
                self._decide(Expired(reason=f"There were too few workers for {timeout_s:g} s."))

    def _look_at_workers(self, now_s: float) -> None:
        """Tell who is late, and end who is lost; should it wake up, nobody listens to it."""
        group = self._group
        lives = group.lives()
        late = self._overdue.to_name(self.state, lives, group.launched, now_s)
        for worker, stacks in group.pool.stacks(late, STACKS_S).items() if late else ():
            said = lives[worker].heartbeat or Heartbeat(activity=Activity.SET_UP)  # it has a task, and said nothing yet
            heartbeat = replace(said, activity_s=said.activity_s + lives[worker].silent_s(now_s))
            self._events.append(WorkerLate(worker=worker, heartbeat=heartbeat, stacks=stacks))
        for worker, reason in self._overdue.to_end(self.state, lives, group.launched, now_s).items():
            heartbeat_now = lives[worker].heartbeat
            step = None if heartbeat_now is None else heartbeat_now.step
            self._lost_on_its_way(worker)
            group.end(worker)
            self._decide(Failure(worker=worker, kind="died", reason=reason, step=step))

    def _tell_seen(self, now_s: float) -> None:
        """Tell what workers do, every `SEEN_EVERY_S`."""
        if now_s >= self._seen_s + SEEN_EVERY_S:
            self._seen_s = now_s
            said = {worker: known.life.heartbeat for worker, known in self._group.up.items() if known.has_task}
            self._events.append(WorkersSeen(heartbeats={each: beat for each, beat in said.items() if beat is not None}))

    def _look_at_pace(self, now_s: float) -> None:
        """Deal the microbatches anew if some workers are slower than others, and have been for a while."""
        if self._watch is None:
            return
        paces = {
            worker: (heartbeat.step, heartbeat.pace)
            for worker, life in self._group.lives().items()
            if worker in self.state.members and worker not in self.state.requests
            if (heartbeat := life.heartbeat) is not None
            if heartbeat.generation == self.state.generation
            if heartbeat.step is not None and heartbeat.pace is not None
        }
        self._watch, found = self._watch.look(now_s, paces)
        match found:
            case Change(times_s=times_s):
                self._decide(PaceChanged(times_s=times_s))
            case Measured():
                self._events.append(found)

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
        group.launch_missing(-surplus)
