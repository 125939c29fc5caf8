"""From one generation of a group to the next: who is in it, where each member's state comes from, who brings what.

`first_generation` and `next_generation` find that out from the task's state. The other functions make the turn that
follows: they wake the members, wait until each has reported, and give each its place, or close the task.

A place tells what each member holds of the pending all-reduce (`NextGeneration.held`). Which microbatches are still to
be computed by whom follows from that, and each worker works it out for itself (`calls.py`, by `assignment.reassign`).

A step may have several all-reduces. Between them its members hold, beside the complete state, what the earlier ones
came to. That is given to nobody and saved nowhere: inside of a step a generation is formed of the survivors alone, and
who waits to join, to leave or to pause has its turn before the next step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..assignment import Range
from .controller_state import AbortGeneration, Formed, Kill, StartFailed, TaskState, Turn, WorkerDeath
from .cut_off import cut_off
from .messages import Failure, Finish, Leave, Membership, SendState

DEATHS_AT_A_STEP = 3
MAX_RESTARTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class NextGeneration:
    """A generation that can be formed.

    Attributes:
        members: by rank.
        joined: those of them that were not in the generation before.
        leaving: members of the generation before that are let go.
        initial_states: where a member's state comes from, by worker; its own where it is None or missing.
        call: the call with which the group goes on; `first_call` is the first result that some of them lack.
        donor: who hands over these results.
        held: for each rank the microbatches of the pending all-reduce that it has computed; empty if nobody is at one.
        before_step: whether it is the first one of a step: who waits for a change has had its turn.
    """

    members: tuple[int, ...]
    joined: tuple[int, ...]
    leaving: tuple[int, ...] = ()
    initial_states: Mapping[int, object]
    call: int = 0
    first_call: int = 0
    donor: int
    held: tuple[tuple[Range, ...], ...] = ()
    before_step: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StateNeeded:
    """This worker must first give a copy of its state to those that lack it."""

    worker: int


def first_generation(state: TaskState) -> NextGeneration | StateNeeded | None:
    """The generation of those who wait, of which none has been a member; None if they are too few."""
    workers = state.candidates
    if len(workers) < (state.num_to_begin if state.generation < 0 else state.num_to_go_on):
        return None
    trained = [worker for worker in workers if not state.requests[worker].fresh]
    donor = min(trained or workers)
    members = (donor, *(worker for worker in workers if worker != donor))
    request = state.requests[donor]
    initial_states = dict.fromkeys(members, state.initial_state)
    if state.initial_state is None:
        others = [worker for worker in members if state.requests[worker].digest != request.digest]
        if others and request.state is None:
            return StateNeeded(worker=donor)
        initial_states |= dict.fromkeys(others, request.state)
    return NextGeneration(members=members, joined=members, initial_states=initial_states, donor=donor)


def next_generation(state: TaskState) -> NextGeneration | StateNeeded | None:
    """The generation after this one, of which every member has reported; None if they are too few.

    Workers join only where all of the newest stand before a step, and leave anywhere but inside of one. Who shall leave
    stays if it alone has the newest result, or if the others are too few.
    """
    requests, newest = state.requests, state.newest
    before_step = all(requests[worker].waiting_at == "step" for worker in newest)
    inside_step = any(requests[worker].waiting_at == "phase" for worker in newest)
    joined = state.candidates if before_step else ()
    if before_step and not state.can_do_with((*state.members, *joined)):
        return None
    staying = tuple(worker for worker in state.members if worker not in state.leaving)
    if inside_step or not set(staying) & set(newest) or not state.can_do_with((*staying, *joined)):
        staying = state.members
    donor = next(worker for worker in newest if worker in staying)
    if joined and requests[donor].state is None:
        return StateNeeded(worker=donor)
    members = (*staying, *joined)
    return NextGeneration(
        members=members,
        joined=joined,
        leaving=tuple(worker for worker in state.members if worker not in staying),
        initial_states=dict.fromkeys(joined, requests[donor].state),
        call=requests[donor].next_call,
        first_call=min(requests[worker].next_call for worker in staying),
        donor=donor,
        held=_held(state, members, [worker for worker in newest if worker in staying]),
        before_step=before_step,
    )


def _held(state: TaskState, members: Sequence[int], newest: Sequence[int]) -> tuple[tuple[Range, ...], ...]:
    """What the members have computed of the pending all-reduce; nothing if nobody is at one."""
    if all(state.requests[worker].waiting_at not in ("step", "phase") for worker in newest):
        return ()
    return tuple(state.requests[worker].held if worker in newest else () for worker in members)


def interrupt(turn: Turn, reason: str) -> None:
    """Wake every member of a group that works, to ask for a place in the next one."""
    if turn.state.status == "running":
        turn.change(status="regrouping")
        wake(turn, reason)
        regroup(turn)


def wake(turn: Turn, reason: str) -> None:
    """Wake the members that have not reported out of whatever they wait for."""
    working = frozenset(turn.state.members) - set(turn.state.requests)
    if working:
        turn.act(AbortGeneration(generation=turn.state.generation, reason=reason, workers=working))


def regroup(turn: Turn) -> None:
    """Form the next generation, or close the task, once every living member has reported."""
    state, deaths = turn.state, turn.state.new_deaths
    if not state.all_waiting:
        return
    requests = {worker: state.requests[worker] for worker in state.members}
    for victim in cut_off(requests, state.members):
        said = [each.reason for each in requests.values() if victim in each.blames] or [requests[victim].reason]
        failure = Failure(worker=victim, kind="died", reason=f"its connection with another worker is cut ({said[0]})")
        turn.act(Kill(worker=victim, reason=failure.reason))
        turn.forget(victim)
        if requests[victim].waiting_at == "join":  # it has never worked, and nor may the next one on that machine
            turn.act(StartFailed(failure=failure))
        lose(turn, failure)
        return  # it has come back here
    if stop_if_lost_again_and_again(turn):
        return
    # Who had a place but could not take it has no state yet: it waits to join, as it did before.
    turn.change(members=tuple(worker for worker in state.members if state.requests[worker].waiting_at != "join"))
    state, newest = turn.state, turn.state.newest
    can_be_saved = any(state.requests[worker].clean for worker in newest)
    at_end = newest == state.members and all(state.requests[worker].waiting_at == "end" for worker in newest)
    if not state.members:
        begin_again(turn, deaths[-1] if deaths else None)
    elif at_end or (state.pause and can_be_saved):
        close(turn)
    else:
        _carry_out(turn, next_generation(state))


def gather(turn: Turn) -> None:
    """Form a generation of workers of which none has been a member, once there are enough.

    For a pause there is nothing that is not in the last checkpoint.
    """
    if turn.state.pause:
        for worker in sorted(turn.state.requests):  # who waits for a place would wait for ever
            turn.reply(worker, Leave("the run is paused"))
        turn.complete()
        return
    turn.change(status="gathering")
    plan = first_generation(turn.state)
    if plan is None or turn.state.donor is None:  # else its state is the one to begin with
        _carry_out(turn, plan)


def begin_again(turn: Turn, failure: Failure | None) -> None:
    """Nobody is left who has the state, since `failure`: begin from the last checkpoint with whoever comes."""
    if stop_if_lost_again_and_again(turn):
        return
    if failure is not None:
        turn.change(num_restarts=turn.state.num_restarts + 1)
    num = turn.state.num_restarts
    if failure is not None and num > MAX_RESTARTS:
        reason = f"all workers were lost {num} times before a checkpoint got farther; the last time: {failure.reason}"
        turn.stop(replace(failure, reason=reason))
    else:
        gather(turn)


def lose(turn: Turn, failure: Failure) -> None:
    """A member, which is forgotten already, has died: the others go on, or others begin again."""
    state = turn.state
    turn.change(last_loss=failure, new_deaths=(*state.new_deaths, failure))
    turn.act(WorkerDeath(failure=failure, num_left=len(state.members)))
    if state.status == "ending":
        check_ended(turn)
    elif state.status == "closing":
        if state.closer == failure.worker:
            close(turn)
    elif not state.members:
        begin_again(turn, failure)
    elif state.status == "regrouping":
        regroup(turn)
    else:
        interrupt(turn, f"worker {failure.worker} died: {failure.reason}")


def stop_if_lost_again_and_again(turn: Turn) -> bool:
    """Count the deaths since the last generation; stop at the third at one step that has the same kind of evidence.

    A process that was ended by SIGKILL leaves none, unless memory ran out: machines and people do that, and they are
    not tied to a step. One that ends or crashes by itself would do so again. They are counted when all survivors have
    told their step: only that tells the step of a death exactly.
    """
    for failure in turn.state.new_deaths:
        step = turn.state.step_of(failure)
        kind = "crash" if failure.evidence == "exit" else failure.evidence
        if kind and step is not None:
            turn.change(deaths=(*turn.state.deaths, (step, kind)))
        if turn.state.deaths.count((step, kind)) >= DEATHS_AT_A_STEP:
            turn.stop(replace(failure, step=step))
            return True
    turn.change(new_deaths=())
    return False


def close(turn: Turn) -> None:
    """Let one of the members that have gone farthest deliver; begin again if nobody is left who can."""
    state = turn.state
    clean = [worker for worker in state.members if state.pause and state.requests[worker].clean]
    at_end = [worker for worker in state.newest if state.requests[worker].waiting_at == "end"]
    able = [worker for worker in state.newest if worker in {*clean, *at_end}] or clean
    if able:
        turn.change(status="closing", closer=able[0])
        turn.reply(able[0], Finish())
    elif state.members:
        turn.change(status="running")
        interrupt(turn, "who delivers the result is lost")
    else:
        begin_again(turn, state.last_loss or Failure(worker=-1, kind="died", reason=""))


def check_ended(turn: Turn) -> None:
    """The task is done when the result is delivered and everybody has left."""
    if turn.state.status == "ending" and not turn.state.members:
        turn.complete()


def _carry_out(turn: Turn, plan: NextGeneration | StateNeeded | None) -> None:
    if isinstance(plan, StateNeeded):
        if plan.worker not in turn.state.members:
            turn.change(starting=turn.state.starting | {plan.worker})
        turn.change(donor=plan.worker)
        turn.reply(plan.worker, SendState())
    elif plan is not None:  # else there are too few
        _enter(turn, plan)


def _enter(turn: Turn, plan: NextGeneration) -> None:
    """Give every member its place."""
    restarted = turn.state.generation >= 0 and not turn.state.members
    for worker in plan.leaving:
        turn.reply(worker, Leave("fewer workers are wanted"))
    state, generation, members = turn.state, turn.state.generation + 1, plan.members
    ranges = () if state.dealing is None else state.dealing.ranges(members)
    waiting = set(state.candidates) - set(members) or state.pause or state.leaving & set(members)
    turn.change(status="running", generation=generation, members=members, new_deaths=())
    for worker in members:
        place = Membership(
            generation=generation,
            members=members,
            call=plan.call,
            first_call=plan.first_call,
            donor=members.index(plan.donor),
            held=plan.held,
            ranges=ranges,
            initial_state=plan.initial_states.get(worker),
            stop_at_step=bool(waiting) and not plan.before_step,
        )
        turn.reply(worker, place)
    begins_from = state.initial_state if restarted else None
    turn.act(
        Formed(
            generation=generation,
            members=members,
            joined=plan.joined,
            restarted=restarted,
            initial_state=begins_from,
            ranges=ranges,
        )
    )
