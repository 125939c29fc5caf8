"""A worker group: workers that run tasks together, one task after another, and are replaced when they are lost."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from ..errors import ClusterError, PlacementError
from ..links import LinksJob, PairBandwidth
from ..spec import GroupSpec, WorkerInfo
from .driver_loop import TICK_S, Handler, Roster, Task, TaskLoop
from .pool import Ended, Message, Up, WorkerPool
from .worker_process import TaskLimits

SAY_EVERY_S = 8.0


class WorkerGroup:
    """The workers of one trainer.

    Args:
        pool: where they live.
        spec: how many, and how long to wait.
        say: told what is being waited for.
        room: describes what the cluster has free, for messages.
    """

    def __init__(
        self, pool: WorkerPool, spec: GroupSpec, say: Callable[[str], None], room: Callable[[], str] = lambda: ""
    ) -> None:
        self.pool, self.spec = pool, spec
        self._say, self._room = say, room
        self._known = Roster()
        self._launched: set[int] = set()
        self._secret = secrets.token_bytes(32)
        self.target = spec.max_workers or spec.num_workers
        self.loop: TaskLoop | None = None

    @property
    def infos(self) -> dict[int, WorkerInfo]:
        """Where the workers that are up run, by number."""
        return {worker: known.info for worker, known in sorted(self._known.items())}

    @property
    def seen(self) -> dict[int, WorkerInfo]:
        """Where all workers run or ran, those that are gone included."""
        return self._known.seen

    @property
    def num_needed(self) -> int:
        """Workers to begin with."""
        return min(self.spec.min_workers or self.spec.num_workers, self.target)

    def launch(self) -> None:
        """Begin to start workers; `start` waits for them."""
        if not self._launched:
            launched = (self.pool.launch() for _ in range(min(self.spec.num_workers, self.target)))
            self._launched = {worker for worker in launched if worker is not None}

    def start(self) -> None:
        """Start workers; returns when enough of them are up.

        Raises:
            PlacementError: the cluster has no room for them, or they died.
        """
        self.launch()
        waiting = self._launched
        began = said_at = time.monotonic()
        while len(self._known) < self.num_needed:
            message = self.pool.receive(TICK_S)
            self._welcome(message)
            if isinstance(message, Ended) and message.outcome.failure is not None:
                failure = message.outcome.failure
                if failure.error is not None:
                    failure.error.add_note(f"(while worker {failure.worker} was being set up)")
                    raise failure.error
                raise PlacementError(f"Worker {failure.worker} could not be set up: {failure.reason}")
            now = time.monotonic()
            if now - began > self.spec.start_timeout_s:
                raise PlacementError(
                    f"{len(waiting)} of {self.spec.num_workers} workers did not start within "
                    f"{self.spec.start_timeout_s:g} s. {self._room()} Ask for fewer workers, give min_workers to begin "
                    "with those there are, or add machines to the cluster."
                )
            if now - said_at > SAY_EVERY_S:
                said_at = now
                self._say(f"waiting for {len(waiting)} of {self.spec.num_workers} workers to start. {self._room()}")

    def begin(self, task: Task, handler: Handler) -> TaskLoop:
        """Prepare a task; its `run` runs it to the end. The group can run another one unless that raises."""
        self._drain()
        self.loop = TaskLoop(
            self.pool, self._known, self.spec, self._secret, task, handler, lambda: self.target, self._launched
        )
        return self.loop

    def measure_links(self) -> tuple[PairBandwidth, ...]:
        """How fast every two of the workers that are up talk; between two tasks. Takes some seconds.

        Raises:
            ClusterError: a worker was lost meanwhile, or does not answer; the group can only be closed then.
        """
        self._drain()
        job = LinksJob(addresses={worker: known.address for worker, known in self._known.items()}, secret=self._secret)
        for worker in job.addresses:
            self.pool.begin(worker, "links", job, TaskLimits(first_deadline_s=self.spec.first_deadline_s), None)
        found: dict[int, tuple[PairBandwidth, ...]] = {}
        while len(found) < len(job.addresses):
            message = self.pool.receive(TICK_S)
            if not isinstance(message, Ended):
                self._welcome(message)
            elif message.outcome.failure is None:
                found[message.worker] = message.outcome.result
            elif message.worker in job.addresses:
                raise ClusterError(
                    f"The links between workers could not be measured: worker {message.worker} "
                    f"{message.outcome.failure.kind.replace('_', ' ')}: {message.outcome.failure.reason}"
                )
        return next(iter(found.values()))

    def resize(self, num_workers: int) -> None:
        """Change how many workers there shall be, now or between the steps of a running task; from any thread."""
        self.target = num_workers

    def close(self) -> None:
        """End the workers and free what they hold."""
        self.pool.close()
        self._known.clear()

    def _drain(self) -> None:
        """Hear what has happened since the last task: workers that are up, and workers that have died."""
        while (message := self.pool.receive(0.0)) is not None:
            self._welcome(message)
            if isinstance(message, Ended) and message.outcome.failure is not None:
                self._launched.discard(message.outcome.failure.worker)
                self._known.pop(message.outcome.failure.worker, None)

    def _welcome(self, message: Message | None) -> None:
        """Know a worker that has come up."""
        if isinstance(message, Up):
            self._launched.discard(message.info.worker)
            self._known.add(message.info, message.address)
