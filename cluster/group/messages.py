"""What workers and the driver say to each other: plain values.

=====================  ============================  =============================  ================================
message                who sends it                  who acts                       what changes
=====================  ============================  =============================  ================================
`JoinRequest`          a worker without a place      the controller                 it waits until it is answered
`Membership`           the controller                the worker's `Member`          it connects with the others
`SendState`            the controller                the worker's `Member`          it asks again, with its state
`Finish`               the controller                the worker's `Member`          it delivers, for the group
`Leave`                the controller                the worker's `Member`          its task ends
`TaskEvent`            a task, while it runs         the driver's half of the task  nothing in the group
`TaskRequest`          a task, which waits           the driver's half of the task  the worker gets its answer
`Heartbeat`            a worker's process            the driver's loop              it is known to live
`WorkerUp`             a pool                        the driver's loop              the worker can be given tasks
`WorkerAlive`          a pool                        the driver's loop              carries the heartbeat
`PauseWanted`          a signal, or a timer          the controller                 one worker saves, all leave
`InitialStateChanged`  the task's driver's half      the controller                 what lost workers begin from
`Said`                 another of its threads        the driver's half of the task  nothing in the group
`TaskEnded`            a worker's process, or a pool the driver's loop              its task, or the worker, is gone
=====================  ============================  =============================  ================================

Workers have a number that is never used again, and a rank, their place in one generation. All calls that workers make
together are numbered; results of the last calls are kept, so that who is behind after a failure can be handed what the
others have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..assignment import Range
from ..spec import WorkerInfo
from .liveness import Heartbeat

Address = tuple[str, int]
# Where a worker is when it asks for a place: not in the group yet; at a step's first all-reduce, where it holds the
# complete state and nothing else; at a later one inside of the step; at another call; waiting for the driver, or
# validating; at the end of the task.
WaitingAt = Literal["join", "step", "phase", "call", "wait", "end"]
FailureKind = Literal["died", "raised", "lost_peer"]
# Why a process died, as far as there is evidence: killed for want of memory, crashed in native code (by a signal other
# than SIGKILL), ended by its own code, or unknown.
Evidence = Literal["", "out of memory", "crash", "exit"]


# -- a worker's place in the group ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """A worker asks for a place in the next generation.

    Attributes:
        waiting_at: where it is.
        generation: the last it was given; -1 before the first.
        next_call: the first call whose result it does not have; -1 before the first.
        held: microbatches of that call it has computed (at a step, or inside of one).
        blames: numbers of workers that failed it in a call.
        in_call: whether the failure met it inside a call, and not before it.
        failed_call: the number of that call; -1 where it was connecting with the others.
        clean: whether its state can be saved here and resumed from.
        step: step of the run, for messages.
        digest: of the state it would begin with (when it joins).
        fresh: whether it lacks the state that the task begins with, so that others' counts (when it joins).
        state: handle of its state, once it was asked to send it.
        copy_s: how long its last copy of its state took, such as the chief makes for a checkpoint.
        reason: why it asks, in one line.
    """

    waiting_at: WaitingAt
    generation: int = -1
    next_call: int = -1
    held: tuple[Range, ...] = ()
    blames: tuple[int, ...] = ()
    in_call: bool = False
    failed_call: int = -1
    clean: bool = False
    step: int | None = None
    digest: str = ""
    fresh: bool = True
    state: object = None
    copy_s: float = 0.0
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
        held: for each rank the microbatches of `call` that it has computed; empty if nobody is at it as an all-reduce.
        ranges: for each rank the microbatches that it brings to every other step; empty for what `assign` gives.
        initial_state: where a new member's state comes from; None leaves its own.
        stop_at_step: ask again at the first all-reduce of the next step, where the group can be changed.
        copy_s: how long a copy of the state takes: a peer may be silent for that much longer.
        addresses: where the members listen, by rank; `secret` is what they know each other by.
    """

    generation: int
    members: tuple[int, ...]
    call: int
    first_call: int
    donor: int
    held: tuple[tuple[Range, ...], ...] = ()
    ranges: tuple[Range, ...] = ()
    initial_state: object = None
    stop_at_step: bool = False
    copy_s: float = 0.0
    addresses: tuple[Address, ...] = ()
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


# -- a task, and its driver's half ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent:
    """A task tells its driver's half something."""

    worker: int
    content: object


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest(TaskEvent):
    """A task asks its driver's half something, and waits for the answer to this number."""

    number: int


# -- workers and their processes --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How one worker ended badly.

    Attributes:
        worker: its number.
        kind: ``"died"`` (its process is gone, or was ended because it did not answer), ``"raised"`` (an error of its
            own), ``"lost_peer"`` (a call between workers failed in a way that a new group cannot mend).
        reason: one line.
        step: the step it was at, None where unknown.
        traceback: its traceback, empty where it left none.
        error: the exception itself where it could travel, for the driver to raise or to chain.
        where: the innermost frame of the user's code, empty where there is none.
        frames: all frames of the user's code, the innermost last.
        evidence: what is known about why its process died.
    """

    worker: int
    kind: FailureKind
    reason: str
    step: int | None = None
    traceback: str = ""
    error: BaseException | None = None
    where: str = ""
    frames: tuple[str, ...] = ()
    evidence: Evidence = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerUp:
    """A worker is set up, waits at `address` for its peers and can be given tasks."""

    info: WorkerInfo
    address: Address

    @property
    def worker(self) -> int:
        """Its number."""
        return self.info.worker


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAlive:
    """A worker lives, and says what it does; and where it is, as long as it is not up."""

    worker: int
    heartbeat: Heartbeat
    info: WorkerInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnded:
    """A worker's task ended with a result (None for most), or with a failure; between tasks the worker has died."""

    worker: int
    result: Any = None  # whatever its task delivers
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseWanted:
    """The user wants to stop and resume later."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialStateChanged:
    """There is a new checkpoint to begin from, should all workers be lost; `position` is (epoch, step) before it."""

    initial_state: object
    position: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Another thread of the driver's process says something to the driver's half of the task."""

    content: object


Message = WorkerUp | WorkerAlive | TaskEvent | TaskEnded
Wish = PauseWanted | InitialStateChanged | Said  # of the driver's own, in the same queue
