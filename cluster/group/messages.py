"""What a worker and the driver say to each other about the worker's place in the group: plain values.

Workers have a number that is never used again, and a rank, their place in one generation. All calls that workers make
together are numbered; results of the last calls are kept, so that who is behind after a failure can be
handed what the others have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..assignment import Range

# Where a worker is when it asks for a place: not in the group yet; at a step's all-reduce; at another call; waiting for
# the driver, or validating; at the end of the task.
WaitingAt = Literal["join", "step", "call", "wait", "end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """A worker asks for a place in the next generation.

    Attributes:
        generation: the last it was given; -1 before the first.
        next_call: the first call whose result it does not have; -1 before the first.
        waiting_at: where it is.
        held: microbatches of that call it has computed (at a step).
        blames: numbers of workers that failed it in a call.
        in_call: whether the failure met it inside a call, and not before it.
        failed_call: the number of that call; -1 where it was connecting with the others.
        clean: whether its state can be saved here and resumed from.
        step: step of the run, for messages.
        digest: of the state it would begin with (when it joins).
        fresh: whether that state is a new model's (when it joins).
        state: handle of its state, once it was asked to donate it.
        reason: why it asks, in one line.
    """

    generation: int
    next_call: int
    waiting_at: WaitingAt
    held: tuple[Range, ...] = ()
    blames: tuple[int, ...] = ()
    in_call: bool = False
    failed_call: int = -1
    clean: bool = False
    step: int | None = None
    digest: str = ""
    fresh: bool = True
    state: Any = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Answer: the next generation of the group, and a worker's place in it.

    Attributes:
        generation: its number.
        members: the workers' numbers, by rank.
        call: with which the group goes on; results of calls from `first_call` on are handed over before that.
        first_call: see `call`.
        donor: rank of the worker that hands over.
        ranges: for each rank the microbatches of `call` it brings, if it is a step (empty otherwise).
        initial_state: where a new member's state comes from; None leaves its own.
        stop_at_step: ask again at the next step, where the group can be changed.
        addresses: where the members listen, by rank; `secret` is what they know each other by.
    """

    generation: int
    members: tuple[int, ...]
    call: int
    first_call: int
    donor: int
    ranges: tuple[tuple[Range, ...], ...] = ()
    initial_state: Any = None
    stop_at_step: bool = False
    addresses: tuple[tuple[str, int], ...] = ()
    secret: bytes = b""


@dataclass(frozen=True, slots=True)
class SendState:
    """Answer: park a copy of your state and ask again with its handle."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Answer: the task ends; you deliver for the group (its result, or its state when it is paused)."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Answer: the task ends for you."""

    reason: str = ""


Answer = Membership | SendState | Finish | Leave


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A sign of life.

    Attributes:
        activity: what the worker does, such as "compute".
        activity_s: for how long.
        step: step of the run.
        step_s: median duration of its last steps; 0.0 while unknown.
        generation: the one it is in.
    """

    activity: str
    activity_s: float
    step: int | None
    step_s: float
    generation: int
