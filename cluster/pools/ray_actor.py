"""A worker's actor, as its pool knows it; whoever waits for it looks every second whether it is still wanted.

Ray never answers for an actor that was ended before it had a place, and an actor that hangs does not either. So no
thread of the pool waits for Ray alone: it ends with the worker, or with this process's connection to Ray.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import ObjectRef, ObjectRefGenerator
from ray.actor import ActorHandle

from ..spec import WorkerInfo

LOOK_S = 1.0
FETCH_S = 60.0


@dataclass(slots=True)
class ActorOfWorker:
    """The actor of one worker.

    Attributes:
        actor: the actor.
        info: where its process is, once it has one.
        log_path: where it prints.
        is_up: whether it is set up.
        ended: is set when the worker is ended.
    """

    actor: ActorHandle
    info: WorkerInfo | None = None
    log_path: str | None = None
    is_up: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def has(self, what: ObjectRef | ObjectRefGenerator, look: Callable[[], None] = lambda: None) -> bool:
        """Wait for a result, or for the next of a stream.

        Args:
            what: the result, or the stream.
            look: is called every second meanwhile.

        Returns:
            False if the worker is ended before.
        """
        while not self.ended.is_set() and ray.is_initialized():
            look()
            ready, _ = ray.wait([what], timeout=LOOK_S)
            if ready:
                return True
        return False

    def answer(self, reference: ObjectRef) -> Any:  # Any: as the method says that was called
        """What the worker answers; None if it is ended before. Raises RayError."""
        return ray.get(reference, timeout=FETCH_S) if self.has(reference) else None

    def references(self, events: ObjectRefGenerator) -> Iterator[ObjectRef]:
        """The references of a stream, each once it is there, until the stream or the worker ends."""
        while self.has(events):
            try:
                yield next(events)
            except StopIteration:
                return
