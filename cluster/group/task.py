"""What a task of a worker group is, and what the driver hears of it while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..pace import Change, Dealing, Measured
from .controller_state import Formed, WorkerDeath
from .liveness import Heartbeat
from .messages import Failure, InitialStateChanged, Said, TaskEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task.

    Attributes:
        method: what to call on the hosted objects.
        job: what to call it with, on every worker.
        initial_state: where the state comes from; None for the workers' own.
        log_dir: folder for the workers' logs; None leaves what they print where it is.
        dealing: how its microbatches are dealt out by the workers' pace; None for all alike.
    """

    method: str
    job: object
    initial_state: object = None
    log_dir: str | None = None
    dealing: Dealing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerNotStarted:
    """A worker was lost before it had a place; another is started after `again_s`. `said`: the screen has it."""

    failure: Failure
    again_s: float
    said: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLate:
    """The others wait for this worker; what it does, and where its threads are."""

    worker: int
    heartbeat: Heartbeat
    stacks: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersSeen:
    """Now and then: what workers were heard to do last, by number; those that have not said are left out."""

    heartbeats: Mapping[int, Heartbeat]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebalanced:
    """The group works with other ranges of microbatches from now on."""

    change: Change


GroupEvent = (
    TaskEvent
    | WorkerDeath
    | Formed
    | Rebalanced
    | Measured
    | WorkerLate
    | WorkersSeen
    | WorkerNotStarted
    | InitialStateChanged
    | Said
)
