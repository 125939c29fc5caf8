"""The driver's side for toys: a handler, a pool that says what the driver does, and groups of both."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from heliostat.cluster.group.controller_state import Formed, WorkerDeath
from heliostat.cluster.group.driver_loop import TaskLoop
from heliostat.cluster.group.messages import (
    Failure,
    InitialStateChanged,
    JoinRequest,
    Message,
    PauseWanted,
    TaskEnded,
    TaskEvent,
)
from heliostat.cluster.group.start import start_workers
from heliostat.cluster.group.task import GroupEvent, Task, WorkerLate, WorkerNotStarted
from heliostat.cluster.group.worker_group import WorkerGroup
from heliostat.cluster.pace import Dealing
from heliostat.cluster.pools.local import LocalPool
from heliostat.cluster.spec import GroupSpec

from .script import GUARD_S, Script
from .toy import Applied, Ask, Job, State, Toy

JOB = Job()
LEAVES = "a worker leaves the group"


@dataclass(slots=True)
class Driver:
    """The driver's side: it answers a question once all members have asked it, and remembers its answers."""

    script: Script
    on_event: Callable[[Applied | Ask], None] = lambda _: None
    members: tuple[int, ...] = ()
    losses: list[Failure] = field(default_factory=list)
    not_started: list[Failure] = field(default_factory=list)
    generations: list[Formed] = field(default_factory=list)
    histories: dict[int, list[State]] = field(default_factory=dict)
    _waiting: dict[int, Ask] = field(default_factory=dict)
    _answers: dict[int, int] = field(default_factory=dict)

    def take(self, event: GroupEvent) -> Mapping[int, Any]:
        match event:
            case TaskEvent(worker=worker, content=Applied() as applied):
                self.histories.setdefault(worker, []).append(applied.state)
                self.on_event(applied)
            case TaskEvent(worker=worker, content=Ask() as question):
                self.on_event(question)
                self.script.note("asked", worker)
                if question.number in self._answers:
                    return {worker: self._answers[question.number]}
                self._waiting[worker] = question
                return self._meet()
            case WorkerDeath(failure=failure):
                self.losses.append(failure)
                self.members = tuple(worker for worker in self.members if worker != failure.worker)
                self._waiting.pop(failure.worker, None)
                self.script.note("lost", failure.worker)
                return self._meet()
            case InitialStateChanged(initial_state=State(step=step)):
                self.script.note("kept", step)
            case Formed():
                self._formed(event)
            case WorkerNotStarted(failure=failure):
                self.not_started.append(failure)
                self.script.note("not started", failure.worker)
            case WorkerLate(worker=worker, heartbeat=heartbeat, stacks=stacks):
                self.script.note("late", worker, heartbeat.activity.value, "compute" in stacks)
        return {}

    def _formed(self, formed: Formed) -> None:
        self.generations.append(formed)
        self.members = formed.members
        self._waiting.clear()
        self.script.note("formed", formed.generation)
        for worker in formed.joined if formed.generation and not formed.restarted else ():
            self.script.note("joined", worker)

    def _meet(self) -> Mapping[int, Any]:
        if not self.members or not set(self.members) <= set(self._waiting):
            return {}
        asked = {self._waiting[worker] for worker in self.members}
        assert len(asked) == 1, f"the members disagree: {asked}"
        (question,) = asked
        self._waiting.clear()
        self._answers[question.number] = int(question.digest[:3], 16)
        return dict.fromkeys(self.members, self._answers[question.number])


class WatchedPool(LocalPool):
    """Workers of this process; what the driver does to them goes to the script, and no test waits forever."""

    def __init__(self, script: Script, spec: GroupSpec, max_launches: int) -> None:
        super().__init__(lambda slot: Toy(slot, script), spec)
        self._script = script
        self.num_launched = 0
        self.launched_s: list[float] = []
        self._left = max_launches
        self._until_s = time.monotonic() + GUARD_S

    def launch(self) -> int | None:
        if not self._left:
            return None
        worker = super().launch()
        self._left -= worker is not None
        self.num_launched += worker is not None
        self.launched_s += [time.monotonic()] * (worker is not None)
        return worker

    def abort(self, worker: int, generation: int, reason: str) -> None:
        super().abort(worker, generation, reason)
        self._script.note("abort", worker, reason)

    def kill(self, worker: int) -> None:
        super().kill(worker)
        self._script.note("kill", worker)

    def receive(self, wait_s: float) -> Message | PauseWanted | None:
        if time.monotonic() > self._until_s:
            raise AssertionError(f"the task hangs; seen last: {self._script.seen[-30:]}")
        message = super().receive(wait_s)
        if isinstance(message, TaskEvent) and isinstance(message.content, JoinRequest):
            self._script.note("report", message.worker, message.content.waiting_at)
        elif isinstance(message, TaskEnded):
            self._script.note("ended", message.worker)
        return message


@dataclass(slots=True)
class Toys:
    """A group of toys and everything it leaves behind."""

    group: WorkerGroup
    pool: WatchedPool
    script: Script
    driver: Driver
    on_event: Callable[[Applied | Ask], None] = lambda _: None
    loop: TaskLoop | None = None

    def run(self, job: Job, **wanted: Any) -> State:
        """Run a task to its end, as `results`; returns the state that one worker delivered."""
        (at_end, state), *others = self.results(job, **wanted).values()
        assert at_end
        assert not others
        return state

    def results(
        self,
        job: Job,
        *,
        num_needed: int | None = None,
        initial_state: State | None = None,
        dealing: Dealing | None = None,
    ) -> dict[int, tuple[bool, State]]:
        self.driver = Driver(self.script, self.on_event)
        task = Task(method="train", job=job, initial_state=initial_state, dealing=dealing)
        self.loop = TaskLoop(self.group, task)
        if num_needed is not None:
            self.loop.state = replace(self.loop.state, num_to_begin=num_needed)
        for event in self.loop.events():
            self.loop.answer(self.driver.take(event))
            if isinstance(event, TaskEvent) and isinstance(event.content, Applied):
                self.loop.regroup_if_wanted()
        return self.loop.results


def start_toys(script: Script, num_workers: int, *, max_launches: int | None = None, **wanted: Any) -> Toys:
    spec = GroupSpec(num_workers=num_workers, **{"deadline_s": 20.0, "start_timeout_s": 20.0, **wanted})
    pool = WatchedPool(script, spec, num_workers if max_launches is None else max_launches)
    group = WorkerGroup(pool, spec)
    toys = Toys(group, pool, script, Driver(script))
    try:
        deque(start_workers(group), maxlen=0)
    except BaseException:
        group.close()
        raise
    return toys


@cache
def undisturbed(job: Job) -> list[State]:
    """The states after every step of a group of one worker to which nothing happens, and the one it delivers."""
    toys = start_toys(Script(), 1)
    try:
        final = toys.run(job)
        return [*toys.driver.histories[0], final]
    finally:
        toys.group.close()


def check(toys: Toys, final: State, job: Job = JOB) -> None:
    """The result is that of the undisturbed run, and so is every state that any worker had on the way."""
    *steps, end = undisturbed(job)
    assert final.applied == tuple(range(job.num_steps))
    assert final.digest() == end.digest()
    for history in toys.driver.histories.values():
        for state in history:
            assert state.digest() == steps[state.step - 1].digest()


def lost(toys: Toys) -> list[int]:
    return [failure.worker for failure in toys.driver.losses]
