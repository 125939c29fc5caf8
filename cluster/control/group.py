"""A worker group: workers that run tasks together, one task after another, and are replaced when they are lost."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from ..errors import PlacementError
from ..spec import GroupSpec, WorkerInfo
from .pool import Alive, Ended, Up, WorkerPool
from .task_loop import TICK_S, Handler, Roster, Task, TaskLoop

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
            if isinstance(message, Up):
                worker = message.info.worker
                waiting.discard(worker)
                self._known.add(message.info, message.address)
            elif isinstance(message, Ended) and message.outcome.failure is not None:
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
            if isinstance(message, Up):
                self._launched.discard(message.info.worker)
                self._known.add(message.info, message.address)
            elif isinstance(message, Ended) and message.outcome.failure is not None:
                self._launched.discard(message.outcome.failure.worker)
                self._known.pop(message.outcome.failure.worker, None)
            elif isinstance(message, Alive):
                continue
