"""The driver's side for toys: a handler, a pool that says what the driver does, and groups of both."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from heliostat.cluster.group.controller_state import Failure, Formed, Limits
from heliostat.cluster.group.driver_loop import Task
from heliostat.cluster.group.messages import Heartbeat, JoinRequest
from heliostat.cluster.group.pool import Ended, Message, Spoke
from heliostat.cluster.group.worker_group import WorkerGroup
from heliostat.cluster.pools.local import LocalPool
from heliostat.cluster.spec import GroupSpec

from .script import GUARD_S, Script
from .toy import Applied, Ask, Job, State, Toy

LEAVES = "a worker leaves the group"


@dataclass(slots=True)
class Driver:
    """The driver's side: it answers a question once all members have asked it, and remembers its answers."""

    script: Script
    on_event: Callable[[Applied | Ask], None] = lambda _: None
    regroup_if_wanted: Callable[[], None] = lambda: None
    members: tuple[int, ...] = ()
    losses: list[Failure] = field(default_factory=list)
    generations: list[Formed] = field(default_factory=list)
    histories: dict[int, list[State]] = field(default_factory=dict)
    _waiting: dict[int, Ask] = field(default_factory=dict)
    _answers: dict[int, int] = field(default_factory=dict)

    def handle(self, worker: int, event: Any) -> Mapping[int, Any]:
        if isinstance(event, Applied):
            self.histories.setdefault(worker, []).append(event.state)
            self.on_event(event)
            self.regroup_if_wanted()
            return {}
        self.on_event(event)
        self.script.note("asked", worker)
        if event.number in self._answers:
            return {worker: self._answers[event.number]}
        self._waiting[worker] = event
        return self._meet()

    def lost(self, failure: Failure, num_left: int) -> Mapping[int, Any]:
        self.losses.append(failure)
        self.members = tuple(worker for worker in self.members if worker != failure.worker)
        self._waiting.pop(failure.worker, None)
        self.script.note("lost", failure.worker)
        return self._meet()

    def formed(self, formed: Formed) -> Mapping[int, Any]:
        self.generations.append(formed)
        self.members = formed.members
        self._waiting.clear()
        self.script.note("formed", formed.generation)
        for worker in formed.joined if formed.generation and not formed.restarted else ():
            self.script.note("joined", worker)
        return {}

    def late(self, worker: int, heartbeat: Heartbeat, stacks: str) -> None:
        self.script.note("late", worker, heartbeat.activity, "compute" in stacks)

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

    def __init__(self, script: Script, num_slots: int, max_launches: int | None = None) -> None:
        super().__init__(lambda slot: Toy(slot, script), num_slots)
        self._script = script
        self.num_launched = 0
        self._left = num_slots if max_launches is None else max_launches
        self._until_s = time.monotonic() + GUARD_S

    def launch(self) -> int | None:
        if not self._left:
            return None
        worker = super().launch()
        self._left -= worker is not None
        self.num_launched += worker is not None
        return worker

    def abort(self, worker: int, generation: int, reason: str) -> None:
        super().abort(worker, generation, reason)
        self._script.note("abort", worker, reason)

    def kill(self, worker: int) -> None:
        super().kill(worker)
        self._script.note("kill", worker)

    def receive(self, wait_s: float) -> Message | None:
        if time.monotonic() > self._until_s:
            raise AssertionError(f"the task hangs; seen last: {self._script.seen[-30:]}")
        message = super().receive(wait_s)
        if isinstance(message, Spoke) and isinstance(message.event, JoinRequest):
            self._script.note("report", message.worker, message.event.waiting_at)
        elif isinstance(message, Ended):
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

    def run(self, job: Job, *, num_needed: int | None = None, initial_state: State | None = None) -> State:
        """Run a task to its end; returns the state that one worker delivered."""
        (at_end, state), *others = self.results(job, num_needed=num_needed, initial_state=initial_state).values()
        assert at_end
        assert not others
        return state

    def results(
        self, job: Job, *, num_needed: int | None = None, initial_state: State | None = None
    ) -> dict[int, tuple[bool, State]]:
        limits = Limits(
            num_needed=self.group.num_needed if num_needed is None else num_needed,
            num_microbatches=job.num_microbatches,
        )
        self.driver = Driver(self.script, self.on_event)
        loop = self.group.begin(Task(method="train", job=job, limits=limits, initial_state=initial_state), self.driver)
        self.driver.regroup_if_wanted = loop.regroup_if_wanted
        return loop.run()


def start_toys(
    script: Script, num_workers: int, *, max_launches: int | None = None, num_slots: int | None = None, **spec: Any
) -> Toys:
    pool = WatchedPool(script, num_slots or num_workers, num_workers if max_launches is None else max_launches)
    limits = {"deadline_s": 20.0, "first_deadline_s": 20.0, "start_timeout_s": 20.0, "settle_s": 2.0}
    group = WorkerGroup(pool, GroupSpec(num_workers=num_workers, **{**limits, **spec}), say=lambda _: None)
    toys = Toys(group, pool, script, Driver(script))
    try:
        group.start()
    except BaseException:
        group.close()
        raise
    return toys
