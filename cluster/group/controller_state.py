"""The values of the group's controller (`controller.py`): what can happen, what to do then, and where a task stands."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal

from ..assignment import Range
from ..pace import Dealing
from .messages import Answer, Evidence, Failure, InitialStateChanged, JoinRequest, Leave, PauseWanted

Status = Literal["gathering", "running", "regrouping", "closing", "ending", "collecting errors", "over"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A worker runs the task, and will ask for a place when it is ready."""

    worker: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequested:
    """A worker asks for a place."""

    worker: int
    request: JoinRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A worker completed its task."""

    worker: int


class Signal(Enum):
    """Events that say no more than that they happened."""

    ERRORS_COLLECTED = "the time to wait for further requests after an error is over"
    REGROUP_IF_WANTED = "the group is in the middle of steps: a good moment to change it, if somebody waits for that"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveWanted:
    """These workers shall leave when the others can do without them: fewer are wanted, or their machine goes away."""

    workers: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """The time to wait for enough workers is over."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceChanged:
    """Workers are not as fast as they were: so many seconds each takes now, by its number (see `pace.Dealing`)."""

    times_s: Mapping[int, float]


Event = (
    Started
    | JoinRequested
    | Finished
    | Failure
    | Signal
    | PauseWanted
    | LeaveWanted
    | PaceChanged
    | InitialStateChanged
    | Expired
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortGeneration:
    """Wake these workers out of whatever they wait for, unless they have gone on to a newer generation."""

    generation: int
    reason: str
    workers: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Answer a worker's request."""

    worker: int
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """End a worker's process."""

    worker: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDeath:
    """A member is lost; `num_left` go on."""

    failure: Failure
    num_left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFailed:
    """A worker was lost before it had a place: start another, after a while."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Formed:
    """A new generation works from now on; if it was `restarted`, since nobody had the state, from `initial_state`.

    By rank, `ranges` are the microbatches that each member brings to a step; empty if `assign` says it.
    """

    generation: int
    members: tuple[int, ...]
    joined: tuple[int, ...]
    restarted: bool
    initial_state: object = None
    ranges: tuple[Range, ...] = ()


class Order(Enum):
    """Actions that need no more words."""

    COLLECT_ERRORS = "send `Signal.ERRORS_COLLECTED` after a moment"
    COMPLETE = "the task is done: hand out its result"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Give the task up, because of `cause`; `others` are what else was reported."""

    cause: Failure
    others: tuple[Failure, ...] = ()


Action = AbortGeneration | Reply | Kill | WorkerDeath | StartFailed | Formed | Order | Stop


def _empty() -> Mapping[int, Any]:  # of whatever the field holds
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """Where a task of a worker group stands.

    Attributes:
        num_to_begin: so many workers can begin it.
        num_to_go_on: so many workers can go on with it.
        status: see `controller.py`.
        generation: number of the present membership, -1 before the first.
        members: living members, by rank.
        starting: workers that set themselves up.
        requests: requests that have not been answered, by worker.
        initial_state: checkpoint to begin from when nobody has the state; None begins anew.
        leaving: workers that shall leave.
        pause: why to pause, empty if not wanted.
        closer: who delivers.
        donor: who was asked to donate its state, and has not done so yet.
        failures: errors of workers' own, by worker.
        position: how far `initial_state` reaches, (epoch, step); empty before the first checkpoint.
        last_loss: the worker lost last, with a place or without; `new_deaths` are members lost since the present
            generation was formed.
        deaths: step and kind of evidence of each death for which both are known ("crash" stands for "exit", too); three
            alike end the task.
        num_restarts: how often all members were lost since a checkpoint that reached farther than any before.
        num_start_errors: workers in a row whose own code raised before they joined.
        dealing: how microbatches are dealt out by the workers' pace; None for all alike.
    """

    num_to_begin: int = 1
    num_to_go_on: int = 1
    status: Status = "gathering"
    generation: int = -1
    members: tuple[int, ...] = ()
    starting: frozenset[int] = frozenset()
    requests: Mapping[int, JoinRequest] = field(default_factory=_empty)
    initial_state: object = None
    position: tuple[int, ...] = ()
    leaving: frozenset[int] = frozenset()
    pause: str = ""
    closer: int | None = None
    donor: int | None = None
    failures: Mapping[int, Failure] = field(default_factory=_empty)
    last_loss: Failure | None = None
    new_deaths: tuple[Failure, ...] = ()
    deaths: tuple[tuple[int, Evidence], ...] = ()
    num_restarts: int = 0
    num_start_errors: int = 0
    dealing: Dealing | None = None

    @property
    def candidates(self) -> tuple[int, ...]:
        """Workers that wait to join, lowest number first."""
        waiting = (worker for worker, request in self.requests.items() if request.waiting_at == "join")
        return tuple(sorted(worker for worker in waiting if worker not in self.members))

    @property
    def newest(self) -> tuple[int, ...]:
        """Of the members that have reported those that are farthest, by rank."""
        calls = {worker: self.requests[worker].next_call for worker in self.members if worker in self.requests}
        return tuple(worker for worker, reached in calls.items() if reached == max(calls.values()))

    @property
    def all_waiting(self) -> bool:
        """Whether every member waits for an answer to its request."""
        return all(worker in self.requests for worker in self.members)

    @property
    def too_few(self) -> bool:
        """Whether the task must wait for more workers than there are, those included that set themselves up."""
        there = {*self.members, *self.starting, *self.candidates}
        needed = self.num_to_begin if self.generation < 0 else self.num_to_go_on
        return self.status in ("gathering", "regrouping") and len(there) < needed

    def can_do_with(self, workers: Collection[int]) -> bool:
        """Whether so few could go on without help."""
        return len(workers) >= self.num_to_go_on

    def step_of(self, failure: Failure) -> int | None:
        """The step of a death: members are at most one apart, so what they have reported since tells it exactly."""
        requests = (self.requests[worker] for worker in self.members if worker in self.requests)
        return max((request.step for request in requests if request.step is not None), default=failure.step)

    @property
    def over(self) -> bool:
        """`Order.COMPLETE` or `Stop` was decided."""
        return self.status == "over"


class Turn:
    """One decision in the making: the state as it becomes, and the actions so far."""

    def __init__(self, state: TaskState) -> None:
        self.state = state
        self.actions: list[Action] = []

    def change(self, **fields: Any) -> None:  # Any: as `dataclasses.replace` takes them
        """Go on with another state: one with these fields (any of `TaskState`)."""
        for name in fields.keys() & {"requests", "failures"}:
            fields[name] = MappingProxyType(dict(fields[name]))
        self.state = replace(self.state, **fields)

    def act(self, *actions: Action) -> None:
        """Do this as well."""
        self.actions.extend(actions)

    def forget(self, worker: int) -> None:
        """A worker is not there any more."""
        state = self.state
        self.change(
            members=tuple(each for each in state.members if each != worker),
            starting=state.starting - {worker},
            requests={each: request for each, request in state.requests.items() if each != worker},
            donor=None if worker == state.donor else state.donor,
        )

    def reply(self, worker: int, answer: Answer) -> None:
        """Answer a worker's request; who is let go before the end is a member no more."""
        requests = {each: request for each, request in self.state.requests.items() if each != worker}
        self.change(requests=requests)
        if isinstance(answer, Leave) and self.state.status != "ending":
            members = tuple(each for each in self.state.members if each != worker)
            self.change(members=members, leaving=self.state.leaving - {worker})
        self.act(Reply(worker=worker, answer=answer))

    def stop(self, cause: Failure, others: tuple[Failure, ...] = ()) -> None:
        """Give the task up."""
        self.change(status="over")
        self.act(Stop(cause=cause, others=others))

    def complete(self) -> None:
        """The task is done."""
        self.change(status="over")
        self.act(Order.COMPLETE)
