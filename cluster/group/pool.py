"""Where workers live: `WorkerPool`, with implementations in this process (`local.py`) and on Ray (`ray_pool.py`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..spec import WorkerInfo
from .messages import Heartbeat
from .worker_process import Outcome, TaskLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """A worker is set up, waits at `address` for its peers and can be given tasks."""

    info: WorkerInfo
    address: tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoke:
    """A worker told something, or asked (then `question` is its number)."""

    worker: int
    question: int | None
    event: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """A worker answers."""

    worker: int
    heartbeat: Heartbeat | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A worker's task ended; or the worker did, before, in or between tasks (then the outcome holds how it died)."""

    worker: int
    outcome: Outcome


Message = Up | Spoke | Alive | Ended


class WorkerPool(ABC):
    """Workers by number. Numbers are never used again."""

    @abstractmethod
    def launch(self) -> int | None:
        """Begin to start a worker; `Up` or `Ended` tells how that went. None if there can be no more."""

    @abstractmethod
    def begin(self, worker: int, method: str, job: Any, limits: TaskLimits, log_path: str | None) -> None:
        """Let a worker run a task; `Ended` tells how that went."""

    @abstractmethod
    def answer(self, worker: int, question: int, reply: Any) -> None:
        """Answer a question."""

    @abstractmethod
    def abort(self, worker: int, generation: int, reason: str) -> None:
        """Wake a worker out of what it waits for in a generation."""

    @abstractmethod
    def kill(self, worker: int) -> None:
        """End a worker; it is not heard of again."""

    @abstractmethod
    def crash(self, worker: int) -> None:
        """End a worker's process as a failure would, from any thread: `Ended` tells that it died, as of any death.

        Nothing happens if there is no such worker. Raises ClusterError where the worker is this process.
        """

    @abstractmethod
    def receive(self, wait_s: float) -> Message | None:
        """The next message, or None if there is none within `wait_s`."""

    @abstractmethod
    def stacks(self, worker: int, wait_s: float) -> str:
        """The Python stacks of a worker's threads, or why there are none."""

    @abstractmethod
    def close(self) -> None:
        """End all workers."""

    def execute(self, feed: Callable[[Message], None]) -> bool:
        """Run a task that lives on the calling thread, if this pool has one; returns whether it has."""
        return False

    def leaving(self) -> frozenset[int]:
        """Workers whose machines are about to go away."""
        return frozenset()
