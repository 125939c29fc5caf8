"""What follows from an event of a task's life: a pure function `(state, event) -> (state, actions)`.

How a group outlives a death. All workers run the same program and make the same calls in the same order; between two
calls each of them holds the whole state, and inside of a step what its calls so far have brought as well. So when one
dies, nothing is lost but the microbatches that it was computing.
The others are woken, each asks for a place and says how far it is, and once all living members have asked they form the
next *generation*: whoever has a result that others lack hands it over, what was computed stays with whoever has it, the
rest is computed by somebody else, and the call is made again. A generation never changes: who comes or goes makes the
next one. A worker without a place gets no answer, and what it writes under its old generation is never committed.

What was not done, and why. *Snapshots and rollback*: there is nothing to roll back to, since an all-reduce that one
worker has completed all have entered; a copy of the weights in every step would cost more than the rare call made
twice. *Consensus among workers* (Raft, say): the driver must live anyway, since it holds the run folder, and if it dies
the run pauses; so it alone decides, in one thread, and there are no votes to be split. *A membership that is agreed on
in every step* (torchft's quorum): it costs a round trip per step; here a step asks nobody, and only a closed
connection, a missed deadline or the driver's wish brings the members together. *Going on without the lost part of the
batch* (as torchft does): the result would depend on who died.

The idea that computation is cut into parts that workers only host is VirtualFlow's (Or et al., MLSys 2022) and
EasyScale's (Li et al., SC 2023); states as data and actions as values are dask/distributed's worker state machine.

No Ray, no clock, no socket: the shell (`driver_loop.py`) feeds events and carries out actions. How one generation leads
to the next is in `regroup.py`, the values are in `controller_state.py`. A task goes through these statuses::

    gathering           workers set themselves up and wait for a place; enough of them form a generation
    running             the members work
    regrouping          a member waits for a place: every living one is awaited, then the next generation is formed
    closing             all members are at the end: one of them delivers what the task makes; if it dies, the next does
    ending              the others are let go
    collecting errors   a worker raised an error of its own: the others are heard for a moment, for the cause
    over
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from .controller_state import (
    Action,
    Event,
    Expired,
    Finished,
    JoinRequested,
    Kill,
    LeaveWanted,
    Order,
    PaceChanged,
    Signal,
    Started,
    StartFailed,
    TaskState,
    Turn,
)
from .messages import Failure, FailureKind, InitialStateChanged, JoinRequest, Leave, PauseWanted
from .regroup import check_ended, close, gather, interrupt, lose, regroup, wake

MAX_START_ERRORS = 3  # of workers' own code, while nobody works; deaths are made good until the time is over
# Who is to blame when several workers fail: a death explains lost peers; so does an error of a worker's own code.
_BLAME: dict[FailureKind, int] = {"died": 0, "raised": 1, "lost_peer": 2}


def decide(state: TaskState, event: Event) -> tuple[TaskState, tuple[Action, ...]]:
    """What follows from an event.

    Args:
        state: where the task stands.
        event: what has happened.

    Returns:
        The next state, and what to do now, in this order; events after the end change nothing.
    """
    turn = Turn(state)
    if not state.over:
        _take(turn, event)
    return turn.state, tuple(turn.actions)


def _take(turn: Turn, event: Event) -> None:
    match event:
        case Started(worker=worker):
            _started(turn, worker)
        case JoinRequested(worker=worker, request=request):
            _join_requested(turn, worker, request)
        case Finished(worker=worker):
            _finished(turn, worker)
        case Failure():
            _failed(turn, event)
        case PauseWanted(reason=reason):
            _pause_wanted(turn, reason)
        case LeaveWanted(workers=workers):
            _leave_wanted(turn, workers)
        case PaceChanged(times_s=times_s):
            _pace_changed(turn, times_s)
        case InitialStateChanged(initial_state=initial_state, position=position):
            _initial_state_changed(turn, initial_state, position)
        case Expired(reason=reason):
            _expired(turn, reason)
        case Signal.REGROUP_IF_WANTED:
            _regroup_if_wanted(turn)
        case Signal.ERRORS_COLLECTED:
            if turn.state.status == "collecting errors":
                _give_up(turn)


def _started(turn: Turn, worker: int) -> None:
    if turn.state.status == "ending":
        turn.act(Kill(worker=worker, reason="the task ended before it was ready"))
    else:
        turn.change(starting=turn.state.starting | {worker})


def _join_requested(turn: Turn, worker: int, request: JoinRequest) -> None:
    """A worker asks for a place: what it says is kept until it is answered, at once or with the others."""
    if worker == turn.state.donor:
        turn.change(donor=None)
    state, joins = turn.state, request.waiting_at == "join"
    is_member = worker in state.members
    if not is_member and worker not in state.starting:
        return  # it was ended or dismissed before this came
    if state.status == "ending" or (state.status == "closing" and joins):
        turn.change(starting=state.starting - {worker})
        turn.reply(worker, Leave("the task is over"))
        return
    if is_member:
        turn.change(requests={**state.requests, worker: request})
    if state.status == "collecting errors":
        _check_collected(turn)
    if state.status in ("collecting errors", "closing") or not (joins or is_member):
        return
    turn.change(starting=state.starting - {worker}, requests={**state.requests, worker: request})
    if joins:
        turn.change(num_start_errors=0)
    if state.status == "gathering":
        gather(turn)
    elif state.status == "regrouping":
        regroup(turn)
    elif joins and not is_member:
        _regroup_if_wanted(turn)
    elif request.waiting_at != "end":
        interrupt(turn, request.reason)
    elif turn.state.all_waiting:
        close(turn)


def _finished(turn: Turn, worker: int) -> None:
    state = turn.state
    members = tuple(each for each in state.members if each != worker)
    turn.change(members=members, starting=state.starting - {worker})
    if state.status == "closing" and worker == state.closer:
        turn.change(status="ending", closer=None)
        for other in sorted(state.requests):
            turn.reply(other, Leave("the task is over"))
        for other in sorted(turn.state.starting):
            turn.act(Kill(worker=other, reason="the task ended before it was ready"))
        turn.change(starting=frozenset())
    check_ended(turn)


def _failed(turn: Turn, failure: Failure) -> None:
    state, worker = turn.state, failure.worker
    was_member, collecting = worker in state.members, state.status == "collecting errors"
    if not was_member and worker not in {*state.starting, *state.requests, *state.failures}:
        return  # fenced before, or dismissed
    turn.forget(worker)
    if failure.kind == "died" and was_member and not collecting:
        lose(turn, failure)
    elif collecting or (failure.kind != "died" and (was_member or state.generation < 0)):
        _collect(turn, failure)
    else:
        _failed_to_start(turn, failure)


def _failed_to_start(turn: Turn, failure: Failure) -> None:
    """A worker without a place is lost: another is started after a while."""
    if turn.state.status == "ending":
        check_ended(turn)
        return
    turn.act(StartFailed(failure=failure))
    turn.change(last_loss=failure)
    if failure.kind != "died":
        turn.act(Kill(worker=failure.worker, reason="it could not be set up"))
        turn.change(num_start_errors=turn.state.num_start_errors + 1)
    if turn.state.status == "gathering" and turn.state.num_start_errors >= MAX_START_ERRORS:
        turn.stop(failure)
    elif turn.state.status == "gathering":
        gather(turn)  # the others may have waited for its state


def _initial_state_changed(turn: Turn, initial_state: object, position: tuple[int, ...]) -> None:
    """There is a new checkpoint; one that was written again, after a restart, is no progress."""
    turn.change(initial_state=initial_state)
    if position > turn.state.position:
        turn.change(position=position, num_restarts=0)


def _regroup_if_wanted(turn: Turn) -> None:
    """Change the group now if somebody waits for it."""
    state = turn.state
    staying = [worker for worker in state.members if worker not in state.leaving]
    if state.pause:
        interrupt(turn, state.pause)
    elif state.candidates:
        interrupt(turn, "a worker joins the group")
    elif len(staying) < len(state.members) and state.can_do_with(staying):
        interrupt(turn, "a worker leaves the group")
    elif not state.can_do_with(state.members):
        interrupt(turn, "too few workers are left")


def _pause_wanted(turn: Turn, reason: str) -> None:
    turn.change(pause=turn.state.pause or reason)
    if turn.state.status == "gathering":
        gather(turn)
    elif turn.state.status == "regrouping":
        regroup(turn)  # all may have reported, and wait for more workers
    interrupt(turn, reason)


def _leave_wanted(turn: Turn, workers: frozenset[int]) -> None:
    state = turn.state
    for worker in sorted(workers & {*state.starting, *state.candidates}):
        turn.act(Kill(worker=worker, reason="fewer workers are wanted"))
        turn.forget(worker)
    turn.change(leaving=state.leaving | (workers & set(state.members)))
    if state.status == "gathering":
        gather(turn)  # the others may have waited for the state of one of them
    _regroup_if_wanted(turn)


def _pace_changed(turn: Turn, times_s: Mapping[int, float]) -> None:
    """Deal the microbatches anew, by a generation of the same members."""
    if turn.state.dealing is not None and turn.state.status == "running":
        turn.change(dealing=replace(turn.state.dealing, times_s=MappingProxyType(dict(times_s))))
        interrupt(turn, "microbatches are dealt anew")


def _expired(turn: Turn, reason: str) -> None:
    if turn.state.status not in ("gathering", "regrouping") or turn.state.donor is not None:
        return  # enough workers have come meanwhile, or they are not needed any more
    failure = turn.state.last_loss or Failure(worker=-1, kind="died", reason="")
    turn.stop(replace(failure, reason=f"{reason} {failure.reason}".strip()))


def _collect(turn: Turn, failure: Failure) -> None:
    """An error of a worker's own code: give up, after hearing the others out."""
    failures, known = turn.state.failures, turn.state.failures.get(failure.worker)
    if known is not None and (known.kind == "raised" or _BLAME[failure.kind] >= _BLAME[known.kind]):
        return  # of one worker: its own error came before its death
    turn.change(failures={**failures, failure.worker: failure}, status="collecting errors")
    if not failures:
        wake(turn, f"worker {failure.worker} {failure.kind.replace('_', ' ')}: {failure.reason}")
        turn.act(Order.COLLECT_ERRORS)
    _check_collected(turn)


def _check_collected(turn: Turn) -> None:
    if turn.state.all_waiting:
        _give_up(turn)


def _give_up(turn: Turn) -> None:
    """Stop because of the error that explains the others; its step may be known from those."""
    ordered = sorted(turn.state.failures.values(), key=lambda failure: (_BLAME[failure.kind], failure.worker))
    cause, *others = ordered
    if cause.step is None:
        steps = [failure.step for failure in others if failure.step is not None]
        cause = replace(cause, step=min(steps, default=None))
    turn.stop(cause, tuple(others))
