"""What workers and the caller of a session say to each other, on the driver: asked by the ones, answered by the other.

Two threads meet here. The driver's loop hears every worker ask what is wanted at a place of the run, and answers where
that is known; the caller's thread, which may sleep, sit in a debugger or wait for a person, hears of each place once
and says what it wants there when it likes. Neither waits for the other: words to the loop go through its own queue, and
what it tells the caller goes into the caller's.

What was said is kept. So a worker that asks again gets the same answer, and a group that begins again at a checkpoint
comes back to where the caller is without a word of his.
"""

from __future__ import annotations

import queue
from dataclasses import dataclass

from heliostat.cluster.group.controller_state import WorkerDeath
from heliostat.cluster.group.driver_loop import TaskLoop
from heliostat.cluster.group.messages import Said, TaskEvent
from heliostat.cluster.group.task import GroupEvent

from ..caller_words import NOT_BEGUN, CallerAsked, CallerWants, Place
from .coordinator import Answers
from .result import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """The run is over: with a result, with an error, or with neither, where it was not to be made (a plan, a trace)."""

    result: Result | None = None
    error: BaseException | None = None


class Dialogue:
    """One session's.

    Attributes:
        news: for the caller: places of the run, each once; at last that it is over.
    """

    def __init__(self) -> None:
        self.news: queue.SimpleQueue[CallerAsked | RunEnded] = queue.SimpleQueue()
        self._wanted: dict[Place, CallerWants] = {}  # where the caller wanted more than to go on
        self._until: Place = (NOT_BEGUN, NOT_BEGUN)  # up to here everything is answered
        self._told: Place = self._until
        self._waiting: dict[int, Place] = {}
        self._loop: TaskLoop | None = None
        self._pause = ""  # why, once it is wanted

    # -- the loop's side ------------------------------------------------------------------------------------------

    def open(self, loop: TaskLoop) -> None:
        """A task begins; what the caller says from now on comes up in its loop."""
        self._loop, self._waiting = loop, {}
        if self._pause:
            loop.pause(self._pause)

    def take(self, event: GroupEvent) -> Answers:
        """Take what happens; returns the answers it makes possible, by worker."""
        match event:
            case TaskEvent(worker=worker, content=CallerAsked() as asked):
                self._waiting[worker] = asked.place
                if asked.place > max(self._told, self._until):
                    self._told = asked.place
                    self.news.put(asked)
            case Said(content=CallerWants() as wants):
                self._until = max(self._until, wants.place)
                if wants != CallerWants(place=wants.place):
                    self._wanted[wants.place] = wants
            case WorkerDeath(failure=failure):
                self._waiting.pop(failure.worker, None)
            case _:
                return {}
        return self._answers()

    def _answers(self) -> Answers:
        known = {worker: place for worker, place in self._waiting.items() if place <= self._until}
        for worker in known:
            del self._waiting[worker]
        return {worker: self._wanted.get(place, CallerWants(place=place)) for worker, place in known.items()}

    # -- the caller's side ----------------------------------------------------------------------------------------

    def say(self, wants: CallerWants) -> None:
        """Say what is wanted at the place of which the news told last."""
        if self._loop is not None:  # it has told of that place
            self._loop.say(wants)

    def pause(self, reason: str) -> None:
        """Have the run pause at the next good moment, or as soon as it begins; from any thread or signal handler."""
        self._pause = self._pause or reason
        if self._loop is not None:
            self._loop.pause(reason)
