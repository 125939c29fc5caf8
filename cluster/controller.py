"""What to do when something happens to a worker: a pure function `(state, event) -> (state, actions)`.

No Ray, no clock, no socket: the group's shell (`ray_group.py`, `local.py`) feeds events and carries out actions. While
a task runs, every worker ends in one of four ways: it finishes, it raises an error of its own, it loses a peer, or it
dies. The first failure aborts the generation, so that nobody waits for the dead; then the reports of the others are
awaited for a while, because the first to be heard of is often a victim and not the cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

FailureKind = Literal["died", "raised", "lost_peer"]
# Who is to blame when several workers report: a death explains lost peers; so does an error of a worker's own code.
_BLAME: dict[FailureKind, int] = {"died": 0, "raised": 1, "lost_peer": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How one worker ended badly.

    Attributes:
        rank: the worker.
        kind: ``"died"`` (its process is gone), ``"raised"`` (an error of its own), ``"lost_peer"`` (an error that
            another worker's end caused).
        reason: one line.
        step: the step it was at, None where unknown.
        traceback: its traceback, empty where it left none.
        error: the exception itself where it could travel, for the driver to raise or to chain.
        where: the innermost frame of the user's code, empty where there is none.
    """

    rank: int
    kind: FailureKind
    reason: str
    step: int | None = None
    traceback: str = ""
    error: BaseException | None = None
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A worker completed its task."""

    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A worker ended badly."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The time to wait for further reports after the first failure is over."""


Event = Finished | Failed | Settled


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortGeneration:
    """Wake every worker that still runs out of its collective call."""

    generation: int
    reason: str
    ranks: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSettling:
    """Send `Settled` after the group's ``settle_s``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """All workers finished: hand out their results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Give the task up, because of `cause`; `others` are what else was reported."""

    cause: Failure
    others: tuple[Failure, ...]


Action = AbortGeneration | StartSettling | Complete | Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """Where a task of a worker group stands.

    Attributes:
        generation: number of the group's present membership.
        running: ranks that have not reported an end.
        failures: what went wrong, by rank.
        over: `Complete` or `Stop` was decided.
    """

    generation: int
    running: frozenset[int]
    failures: Mapping[int, Failure] = field(default_factory=lambda: MappingProxyType({}))
    over: bool = False


def begin(generation: int, num_workers: int) -> TaskState:
    """The state of a task that all workers have just started."""
    return TaskState(generation=generation, running=frozenset(range(num_workers)))


def decide(state: TaskState, event: Event) -> tuple[TaskState, tuple[Action, ...]]:
    """The next state and what to do now; events after the end change nothing."""
    if state.over:
        return state, ()
    if isinstance(event, Settled):
        return _stop(state) if state.failures else (state, ())
    rank = event.rank if isinstance(event, Finished) else event.failure.rank
    if rank not in state.running and not _explains_more(state, event):
        return state, ()
    state = replace(state, running=state.running - {rank})
    actions: tuple[Action, ...] = ()
    if isinstance(event, Failed):
        first = not state.failures
        state = replace(state, failures=MappingProxyType({**state.failures, rank: event.failure}))
        if first:
            reason = f"worker {rank} {event.failure.kind.replace('_', ' ')}: {event.failure.reason}"
            abort = AbortGeneration(generation=state.generation, reason=reason, ranks=state.running)
            actions = (abort, StartSettling())
    if state.running:
        return state, actions
    if state.failures:
        state, stop = _stop(state)
        return state, (*actions, *stop)
    return replace(state, over=True), (Complete(),)


def _explains_more(state: TaskState, event: Event) -> bool:
    """Whether a second report about a worker says more than its first: it raised, and then its process was gone."""
    if not isinstance(event, Failed):
        return False
    known = state.failures.get(event.failure.rank)
    return known is not None and _BLAME[event.failure.kind] < _BLAME[known.kind] and known.kind == "lost_peer"


def _stop(state: TaskState) -> tuple[TaskState, tuple[Action, ...]]:
    ordered = sorted(state.failures.values(), key=lambda failure: (_BLAME[failure.kind], failure.rank))
    cause, *others = ordered
    if cause.step is None:
        steps = [failure.step for failure in others if failure.step is not None]
        cause = replace(cause, step=min(steps, default=None))
    return replace(state, over=True), (Stop(cause=cause, others=tuple(others)),)
