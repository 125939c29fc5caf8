"""Where workers live: `WorkerPool`, in this process (`pools/local.py`) or on Ray (`pools/ray_pool.py`)."""

from __future__ import annotations

import queue
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .messages import Message, Wish

if TYPE_CHECKING:
    from ..disk.disk import Disk  # which loads Ray


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """What a pool has done: how many workers it was asked to start, and how many of them are up now."""

    launched: int
    up: int


class WorkerPool(ABC):
    """Workers by number. Numbers are never used again.

    Commands go down by its methods, which return at once. What happens comes up by one queue: threads of the pool's own
    hear the workers and put it there, and wait for nothing else, so that no event is lost when a worker dies. Anybody
    else may put something there, too, even a signal handler.

    Attributes:
        inbox: that queue.
        disk: the driver's, where workers may be on machines that do not see it.
    """

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[Message | Wish] = queue.SimpleQueue()
        self.disk: Disk | None = None

    @abstractmethod
    def launch(self) -> int | None:
        """Begin to start a worker; `WorkerUp` or `TaskEnded` tells how that went. None if there can be no more."""

    @abstractmethod
    def begin(self, worker: int, method: str, job: object, log_path: str | None) -> None:
        """Let a worker run a task; `TaskEnded` tells how that went.

        Args:
            worker: its number.
            method: of its hosted object, which takes the job and the worker's `Member`.
            job: what to call it with.
            log_path: where its process prints meanwhile; None leaves that as it is.
        """

    @abstractmethod
    def answer(self, worker: int, number: int, reply: object) -> None:
        """Answer a request.

        Args:
            worker: who asked.
            number: of the request.
            reply: the answer.
        """

    @abstractmethod
    def abort(self, worker: int, generation: int, reason: str) -> None:
        """Wake a worker out of what it waits for.

        Args:
            worker: its number.
            generation: which is over; a worker that has gone on to a newer one is left alone.
            reason: why.
        """

    @abstractmethod
    def kill(self, worker: int) -> None:
        """End a worker; it is not heard of again."""

    @abstractmethod
    def crash(self, worker: int) -> None:
        """End a worker's process as a failure would, from any thread: `TaskEnded` tells that it died, as of any death.

        Nothing happens if there is no such worker.
        """

    def receive(self, wait_s: float) -> Message | Wish | None:
        """The next message, or None if there is none within `wait_s`.

        Raises:
            PlacementError: what the workers ran on is gone.
        """
        try:
            return self.inbox.get(timeout=wait_s)
        except queue.Empty:
            return None

    @abstractmethod
    def stacks(self, workers: Collection[int], wait_s: float) -> dict[int, str]:
        """The Python stacks of workers' threads, or why there are none, by number.

        Args:
            workers: whose; all are asked at the same time.
            wait_s: how long to wait for all of them together.
        """

    @abstractmethod
    def statistics(self) -> PoolStatistics:
        """Return counters since the pool was made; from any thread."""

    @abstractmethod
    def close(self) -> None:
        """End all workers."""

    def leaving(self) -> frozenset[int]:
        """Workers whose machines are about to go away."""
        return frozenset()

    def room(self) -> str:
        """What there is free for workers, in a sentence; empty where nothing can be said."""
        return ""
