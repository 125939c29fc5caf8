"""A worker group: the workers of a trainer, which run tasks together one after another and are replaced when lost."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from ..errors import ClusterError
from ..links import LinksJob, PairBandwidth
from ..spec import GroupSpec, WorkerInfo
from .liveness import Life, back_off_s
from .messages import Address, Failure, Message, TaskEnded, Wish, WorkerAlive, WorkerUp
from .pool import WorkerPool
from .task import WorkerNotStarted

TICK_S = 0.25
STACKS_S = 1.0
STALLED_S = 2.0  # a driver that did not look for so long was held up itself: it knows nothing of anybody's silence
LINKS_S = 600.0  # all links are measured within this, or not at all


@dataclass(slots=True)
class KnownWorker:
    """What the driver knows about a worker that is up: where it is, what it was heard to do, whether it has a task."""

    info: WorkerInfo
    address: Address
    life: Life = field(default_factory=Life)
    has_task: bool = False

    def begin(self) -> None:
        """It was given a task."""
        self.life, self.has_task = Life(), True
        self.life.begin(time.monotonic())


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatistics:
    """Numbers of the workers that are on their way, that are up, and that have a task, given up or not."""

    launched: frozenset[int]
    up: frozenset[int]
    with_task: frozenset[int]


class WorkerGroup:
    """The workers of one trainer.

    Attributes:
        pool: where they live.
        spec: how many, and how long to wait.
        target: how many there shall be; may be changed at any time, from any thread.
        up: those that are up, by number.
        launched: those that are on their way, by number.
        not_started: those that were lost on their way before there was a task.
        seen: where all workers run or ran, by number, those that are gone included.
        secret: what they know each other by.
    """

    def __init__(self, pool: WorkerPool, spec: GroupSpec) -> None:
        self.pool, self.spec = pool, spec
        self.target = spec.most_workers
        self.up: dict[int, KnownWorker] = {}
        self.launched: dict[int, Life] = {}
        self.not_started: list[WorkerNotStarted] = []
        self._num_failed, self._launch_after_s, self._looked_s = 0, 0.0, 0.0
        self.seen: dict[int, WorkerInfo] = {}
        self.secret = secrets.token_bytes(32)

    @property
    def infos(self) -> dict[int, WorkerInfo]:
        """Where the workers that are up run, by number."""
        return {worker: known.info for worker, known in sorted(self.up.items())}

    @property
    def num_to_begin(self) -> int:
        """So many workers can begin a task."""
        return min(self.spec.num_to_begin, self.target)

    def launch(self) -> None:
        """Begin to start workers; `start_workers` waits for them."""
        if not self.up and not self.launched:
            self.launch_missing(min(self.spec.num_workers, self.target))

    def launch_missing(self, num: int) -> None:
        """Begin to start up to so many workers: none for a while after starts have failed, or where there is no room.

        Args:
            num: how many are missing.
        """
        for _ in range(num if time.monotonic() >= self._launch_after_s else 0):
            worker = self.pool.launch()
            if worker is None:
                return
            self.launched[worker] = Life(launched_s=time.monotonic())

    def back_off(self, num_failed: int) -> float:
        """Start nobody for a while, after so many failures in a row; returns for how many seconds."""
        wait_s = back_off_s(num_failed)
        self._launch_after_s = max(self._launch_after_s, time.monotonic() + wait_s)
        return wait_s

    def start_failed(self, failure: Failure) -> WorkerNotStarted:
        """A worker was lost before it had a place: the next one is started after a while."""
        self.launched.pop(failure.worker, None)
        self._num_failed += 1
        return WorkerNotStarted(failure=failure, again_s=self.back_off(self._num_failed))

    def started_well(self) -> None:
        """A worker has got as far as to work in its place: a row of failures is over."""
        self._num_failed = 0

    def look(self, now_s: float) -> bool:
        """The driver looks at its workers; what they did not say while it could not look is not held against them.

        Returns:
            whether it could not look, for longer than a moment.
        """
        stalled = now_s - self._looked_s > STALLED_S
        for life in self.lives().values() if stalled else ():
            life.forgive(now_s)
        self._looked_s = now_s
        return stalled

    def lost_on_its_way(self, failure: Failure) -> None:
        """A worker was lost while there is no task: the next task tells of it."""
        self.not_started.append(self.start_failed(failure))

    def measure_links(self) -> tuple[PairBandwidth, ...]:
        """How fast every two of the workers that are up talk; between two tasks. Takes some seconds.

        Raises:
            ClusterError: a worker was lost meanwhile, or does not answer; the group can only be closed then.
        """
        answers = self.together("links", LINKS_S)
        if silent := [str(worker) for worker, known in sorted(self.up.items()) if known.has_task]:
            raise ClusterError(
                f"The links between workers could not be measured within {LINKS_S:g} s: nothing was heard of "
                f"workers {', '.join(silent)}. They are stopped, or their machines cannot be reached."
            )
        for worker, ended in answers.items():
            if (failure := ended.failure) is not None:
                raise ClusterError(
                    f"The links between workers could not be measured: worker {worker} "
                    f"{failure.kind.replace('_', ' ')}: {failure.reason}"
                )
            table: tuple[PairBandwidth, ...] = ended.result
        return table

    def together(self, method: str, limit_s: float, attempt: int = 0) -> dict[int, TaskEnded]:
        """Let all workers that are up do something of `links.py` together.

        Args:
            method: what.
            limit_s: how long to wait for it, in seconds.
            attempt: how often they have tried it before.

        Returns:
            How it ended, on every worker that has answered.
        """
        self.hear()
        addresses = {worker: known.address for worker, known in self.up.items()}
        job = LinksJob(addresses=addresses, secret=self.secret, attempt=attempt)
        for worker in job.addresses:
            self.up[worker].begin()
            self.pool.begin(worker, method, job, None)
        ended: dict[int, TaskEnded] = {}
        until_s = time.monotonic() + limit_s
        while len(ended) < len(job.addresses) and time.monotonic() < until_s:
            message = self.pool.receive(TICK_S)
            self.take(message)
            if isinstance(message, TaskEnded) and message.worker in job.addresses:
                ended[message.worker] = message
        return ended

    def resize(self, num_workers: int) -> None:
        """Change how many workers there shall be, now or between the steps of a running task; from any thread."""
        self.target = num_workers

    def statistics(self) -> GroupStatistics:
        """Return who is where."""
        with_task = frozenset(worker for worker, known in self.up.items() if known.has_task)
        return GroupStatistics(launched=frozenset(self.launched), up=frozenset(self.up), with_task=with_task)

    def close(self) -> None:
        """End the workers and free what they hold."""
        self.pool.close()
        self.up.clear()

    def hear(self) -> None:
        """Between two tasks: hear what has happened since the last: workers that are up, and workers that have died."""
        while (message := self.pool.receive(0.0)) is not None:
            self.take(message)

    def take(self, message: Message | Wish | None) -> None:
        """Note who lives, who is up, and who is not any more; during a task the task's loop hears of ends.

        That somebody is up may wait in the queue while that one is ended: it is passed over.
        """
        if isinstance(message, WorkerAlive):
            if (life := self.life_of(message.worker)) is not None:
                life.beat(message.heartbeat, time.monotonic())
                if message.info is not None:
                    self.seen[message.worker] = message.info
        elif isinstance(message, WorkerUp) and message.worker in self.launched:
            self.launched.pop(message.worker)
            self.up[message.worker] = KnownWorker(info=message.info, address=message.address)
            self.seen[message.worker] = message.info
        elif isinstance(message, TaskEnded) and message.failure is not None:
            if message.worker in self.launched:
                self.lost_on_its_way(message.failure)
            self.up.pop(message.worker, None)
        elif isinstance(message, TaskEnded) and message.worker in self.up:
            self.up[message.worker].has_task = False

    def life_of(self, worker: int) -> Life | None:
        """What was heard of a worker that is up, or on its way; None for others."""
        known = self.up.get(worker)
        return self.launched.get(worker) if known is None else known.life

    def lives(self) -> dict[int, Life]:
        """What was heard of all that are up, or on their way, by number."""
        return self.launched | {worker: known.life for worker, known in self.up.items()}

    def end(self, worker: int) -> None:
        """End a worker; it is not heard of again."""
        self.pool.kill(worker)
        self.up.pop(worker, None)
        self.launched.pop(worker, None)
