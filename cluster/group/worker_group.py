"""A worker group: the workers of a trainer, which run tasks together one after another and are replaced when lost."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import ClusterError, PlacementError
from ..links import LinksJob, PairBandwidth
from ..spec import GroupSpec, WorkerInfo
from .messages import Address, Heartbeat, Message, TaskEnded, Wish, WorkerUp
from .pool import WorkerPool

TICK_S = 0.25
SAY_EVERY_S = 8.0


@dataclass(slots=True)
class KnownWorker:
    """What the driver knows about a worker that is up: where it is, when it was heard of last, what it does."""

    info: WorkerInfo
    address: Address
    heard_s: float = field(default_factory=time.monotonic)
    heartbeat: Heartbeat | None = None
    has_task: bool = False

    def begin(self) -> None:
        """It was given a task."""
        self.heartbeat, self.heard_s, self.has_task = None, time.monotonic(), True


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
        launched: numbers of those that are on their way.
        seen: where all workers run or ran, by number, those that are gone included.
        secret: what they know each other by.
    """

    def __init__(self, pool: WorkerPool, spec: GroupSpec) -> None:
        self.pool, self.spec = pool, spec
        self.target = spec.most_workers
        self.up: dict[int, KnownWorker] = {}
        self.launched: set[int] = set()
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
        """Begin to start workers; `start` waits for them."""
        if not self.up and not self.launched:
            started = (self.pool.launch() for _ in range(min(self.spec.num_workers, self.target)))
            self.launched = {worker for worker in started if worker is not None}

    def start(self) -> Iterator[str]:
        """Start workers; ends when enough of them are up.

        Yields:
            Every few seconds a line that says what is waited for.

        Raises:
            PlacementError: the cluster has no room for them, or they died.
        """
        self.launch()
        began_s = said_s = time.monotonic()
        while len(self.up) < self.num_to_begin:
            message = self.pool.receive(TICK_S)
            self.take(message)
            if isinstance(message, TaskEnded) and (failure := message.failure) is not None:
                if failure.error is not None:
                    failure.error.add_note(f"(while worker {failure.worker} was being set up)")
                    raise failure.error
                raise PlacementError(f"Worker {failure.worker} could not be set up: {failure.reason}")
            now_s = time.monotonic()
            waiting = f"{len(self.launched)} of {self.spec.num_workers} workers"
            if now_s - began_s > self.spec.start_timeout_s:
                raise PlacementError(
                    f"{waiting} did not start within {self.spec.start_timeout_s:g} s. {self.pool.room()} Ask for fewer "
                    "workers, give min_workers to begin with those there are, or add machines to the cluster."
                )
            if now_s - said_s > SAY_EVERY_S:
                said_s = now_s
                yield f"waiting for {waiting} to start. {self.pool.room()}"

    def measure_links(self) -> tuple[PairBandwidth, ...]:
        """How fast every two of the workers that are up talk; between two tasks. Takes some seconds.

        Raises:
            ClusterError: a worker was lost meanwhile, or does not answer; the group can only be closed then.
        """
        self.hear()
        job = LinksJob(addresses={worker: known.address for worker, known in self.up.items()}, secret=self.secret)
        for worker in job.addresses:
            self.up[worker].begin()
            self.pool.begin(worker, "links", job, None)
        found: dict[int, tuple[PairBandwidth, ...]] = {}
        while len(found) < len(job.addresses):
            message = self.pool.receive(TICK_S)
            self.take(message)
            if isinstance(message, TaskEnded) and message.worker in job.addresses:
                if message.failure is not None:
                    raise ClusterError(
                        f"The links between workers could not be measured: worker {message.worker} "
                        f"{message.failure.kind.replace('_', ' ')}: {message.failure.reason}"
                    )
                found[message.worker] = message.result
        return next(iter(found.values()))

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
        """Note who is up, and who is not any more."""
        if isinstance(message, WorkerUp):
            self.launched.discard(message.worker)
            self.up[message.worker] = KnownWorker(info=message.info, address=message.address)
            self.seen[message.worker] = message.info
        elif isinstance(message, TaskEnded) and message.failure is not None:
            self.launched.discard(message.worker)
            self.up.pop(message.worker, None)
        elif isinstance(message, TaskEnded) and message.worker in self.up:
            self.up[message.worker].has_task = False

    def end(self, worker: int) -> None:
        """End a worker; it is not heard of again."""
        self.pool.kill(worker)
        self.up.pop(worker, None)
