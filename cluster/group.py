"""A worker group: workers that run tasks together, wherever they are.

Two implementations: `LocalGroup` (this process) and `RayGroup` (Ray actors). Both feed the pure controller and carry
out what it decides; what they share is here.
"""

from __future__ import annotations

import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .controller import AbortGeneration, Complete, Event, Failed, Finished, Settled, StartSettling, Stop, begin, decide
from .errors import TaskFailed
from .host import Outcome
from .spec import WorkerInfo

# handler(rank, event) -> answers by rank. It may answer other workers than the one that spoke, later or not at all.
Handler = Callable[[int, Any], Mapping[int, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoke:
    """A worker told or asked something."""

    rank: int
    event: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A worker's task ended, or the worker did (then the outcome holds its failure)."""

    rank: int
    outcome: Outcome


Message = Spoke | Ended


class WorkerGroup(ABC):
    """Workers that were started together; `run` makes them run one task after another."""

    num_workers: int
    generation: int

    @abstractmethod
    def start(self) -> list[WorkerInfo]:
        """Start and connect the workers; raises ClusterError."""

    @abstractmethod
    def run(self, method: str, jobs: Sequence[Any], handler: Handler) -> list[Any]:
        """Run one task on all workers: ``method(jobs[rank], context)``; returns their results in order of rank.

        What a worker tells or asks meanwhile is given to `handler` on the calling thread.

        Raises:
            TaskFailed: a worker died or raised; the others have been stopped. The group cannot be used again.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop the workers and free what they hold."""


class MessageLoop:
    """Runs one task to its end: takes messages, asks the controller, carries its actions out through callbacks.

    Args:
        generation: of the group.
        num_workers: of the group.
        settle_s: see `GroupSpec`.
        receive: returns the next message within a number of seconds, or raises `queue.Empty`.
        answer: hands an answer to a worker that asked.
        abort: wakes a worker out of its collective call, with a reason.
    """

    def __init__(
        self,
        *,
        generation: int,
        num_workers: int,
        settle_s: float,
        receive: Callable[[float], Message],
        answer: Callable[[int, Any], None],
        abort: Callable[[int, str], None],
    ) -> None:
        self._state = begin(generation, num_workers)
        self._settle_s, self._receive, self._answer, self._abort = settle_s, receive, answer, abort
        self._results: dict[int, Any] = {}
        self._settle_at: float | None = None

    def run(self, handler: Handler) -> list[Any]:
        """Serve messages until the task is over; see `WorkerGroup.run`."""
        while not self._state.over:
            message = self._next()
            if message is None:
                self._feed(Settled())
            elif isinstance(message, Spoke):
                self._serve(message, handler)
            elif message.outcome.failure is not None:
                self._feed(Failed(failure=message.outcome.failure))
            else:
                self._results[message.rank] = message.outcome.result
                self._feed(Finished(rank=message.rank))
        return [self._results[rank] for rank in sorted(self._results)]

    def _next(self) -> Message | None:
        while True:
            wait_s = 1.0 if self._settle_at is None else self._settle_at - time.monotonic()
            if wait_s <= 0:
                return None
            try:
                return self._receive(wait_s)
            except queue.Empty:
                continue

    def _serve(self, message: Spoke, handler: Handler) -> None:
        if self._state.failures:
            return  # the task is being given up; who waits for an answer is aborted
        for rank, reply in handler(message.rank, message.event).items():
            self._answer(rank, reply)

    def _feed(self, event: Event) -> None:
        self._state, actions = decide(self._state, event)
        for action in actions:
            if isinstance(action, AbortGeneration):
                for rank in sorted(action.ranks):
                    self._abort(rank, action.reason)
            elif isinstance(action, StartSettling):
                self._settle_at = time.monotonic() + self._settle_s
            elif isinstance(action, Stop):
                raise TaskFailed(action.cause, action.others)
            elif isinstance(action, Complete):
                return
