"""What to do when something happens to a worker: a pure function `(state, event) -> (state, actions)`.

No Ray, no clock, no socket: the shell (`driver_loop.py`) feeds events and carries out actions. A task goes through
these phases::

    gathering    workers set themselves up; those that are ready ask for a place; enough of them form a generation
    running      the members work; who loses another reports it, and reports again end in
    regrouping   every living member is awaited (the others are woken); then the next generation is formed
    closing      all members are at the end: one of them delivers what the task makes; if it dies, the next one does
    ending       the others are dismissed
    settling     a worker raised an error of its own: the others' reports are awaited for a moment, for the cause
    over

A generation never loses a member: a change of members is a new generation. A worker that is not a member any more gets
no answer, and what it writes under its old generation is never committed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from ..assignment import Range, hand_out
from .controller_state import (
    AbortGeneration,
    Action,
    Complete,
    Event,
    Expired,
    Failed,
    Failure,
    FailureKind,
    Finished,
    Formed,
    Kill,
    LeaveWanted,
    Lost,
    Nudged,
    OriginChanged,
    PauseWanted,
    Reply,
    Reported,
    Settled,
    Short,
    Started,
    StartSettling,
    Stop,
    TaskState,
)
from .messages import Answer, Deliver, Dismiss, Donate, Place, Report

# Who is to blame when several workers report: a death explains lost peers; so does an error of a worker's own code.
_BLAME: dict[FailureKind, int] = {"died": 0, "raised": 1, "lost_peer": 2}
DEATHS_AT_A_STEP = 3
MAX_RESTARTS = 10
MAX_START_FAILURES = 3


def decide(state: TaskState, event: Event) -> tuple[TaskState, tuple[Action, ...]]:
    """The next state and what to do now; events after the end change nothing."""
    if state.over:
        return state, ()
    turn = _Turn(state)
    turn.take(event)
    return turn.state, tuple(turn.actions)


class _Turn:
    """One decision: the state as it becomes, and the actions so far."""

    def __init__(self, state: TaskState) -> None:
        self.state = state
        self.actions: list[Action] = []

    def take(self, event: Event) -> None:
        state = self.state
        if isinstance(event, Started):
            self.started(event.worker)
        elif isinstance(event, Reported):
            self.reported(event.worker, event.report)
        elif isinstance(event, Finished):
            self.finished(event.worker)
        elif isinstance(event, Failed):
            self.failed(event.failure)
        elif isinstance(event, Settled):
            if state.phase == "settling":
                self.stop()
        elif isinstance(event, PauseWanted):
            self.pause(event.reason)
        elif isinstance(event, LeaveWanted):
            self.leave(event.workers)
        elif isinstance(event, Nudged):
            self.nudged()
        elif isinstance(event, OriginChanged):
            self.change(origin=event.origin, num_restarts=0)
        else:
            self.expired(event)

    # -- what happens ---------------------------------------------------------------------------------------------

    def started(self, worker: int) -> None:
        if self.state.phase == "ending":
            self.actions.append(Kill(worker=worker, reason="the task ended before it was ready"))
        else:
            self.change(starting=self.state.starting | {worker})

    def reported(self, worker: int, report: Report) -> None:
        self.change(donor=None if worker == self.state.donor else self.state.donor)
        state = self.state
        if worker not in state.members and worker not in state.starting:
            return  # it was ended or dismissed before this came
        if state.phase == "ending" or (state.phase == "closing" and report.at == "join"):
            self.change(starting=state.starting - {worker})
            self.reply(worker, Dismiss("the task is over"))
            return
        joins = report.at == "join"
        if state.phase in ("settling", "closing") or not (joins or worker in state.members):
            self.change(reports={**state.reports, worker: report} if worker in state.members else state.reports)
            if state.phase == "settling":
                self.check_settled()
            return
        self.change(starting=state.starting - {worker}, reports={**state.reports, worker: report})
        if joins:
            self.change(num_start_failures=0)
        if state.phase == "gathering":
            self.form_first()
        elif state.phase == "regrouping":
            self.check_regrouped()
        elif joins and worker not in state.members:
            self.nudged()
        elif report.at == "end":
            self.check_end()
        else:
            self.interrupt(report.reason)

    def finished(self, worker: int) -> None:
        state = self.state
        self.change(members=_without(state.members, worker), starting=state.starting - {worker})
        if state.phase == "closing" and worker == state.closer:
            self.change(phase="ending", closer=None)
            for other in sorted(state.reports):
                self.reply(other, Dismiss("the task is over"))
            for other in sorted(state.starting):
                self.actions.append(Kill(worker=other, reason="the task ended before it was ready"))
            self.change(starting=frozenset())
        self.check_ended()

    def failed(self, failure: Failure) -> None:
        state, worker = self.state, failure.worker
        was_member = worker in state.members
        known = was_member or worker in state.starting or worker in state.reports
        if not known and worker not in state.failures:
            return  # fenced before, or dismissed
        self.change(
            members=_without(state.members, worker),
            starting=state.starting - {worker},
            reports=_minus(state.reports, worker),
            donor=None if worker == state.donor else state.donor,
        )
        if failure.kind == "died" and state.phase != "settling":
            self.died(failure) if was_member else self.failed_to_start(failure)
        elif was_member or state.generation < 0 or state.phase == "settling":
            self.raised(failure)
        else:
            self.failed_to_start(failure)

    def died(self, failure: Failure) -> None:
        state, step = self.state, self.step_of(failure)
        self.change(last_loss=failure)
        self.actions.append(Lost(failure=failure, num_left=len(state.members)))
        if failure.evidence and step is not None:
            self.change(deaths=(*state.deaths, (step, failure.evidence)))
        if self.state.deaths.count((step, failure.evidence)) >= DEATHS_AT_A_STEP:
            self.change(phase="over")
            self.actions.append(Stop(cause=replace(failure, step=step)))
        elif state.phase == "ending":
            self.check_ended()
        elif state.phase == "closing":
            if state.closer == failure.worker:
                self.close()
        elif not state.members:
            self.restart(failure)
        elif state.phase == "regrouping":
            self.check_regrouped()
        else:
            self.interrupt(f"worker {failure.worker} died: {failure.reason}")

    def raised(self, failure: Failure) -> None:
        """An error of a worker's own code: give up, after hearing the others out."""
        state, first = self.state, not self.state.failures
        if _explains_less(failure, state.failures.get(failure.worker)):
            return
        self.change(failures={**state.failures, failure.worker: failure}, phase="settling")
        if first:
            reason = f"worker {failure.worker} {failure.kind.replace('_', ' ')}: {failure.reason}"
            self.abort(reason)
            self.actions.append(StartSettling())
        self.check_settled()

    def failed_to_start(self, failure: Failure) -> None:
        state = self.state
        num = state.num_start_failures + 1
        self.change(num_start_failures=num)
        if state.phase == "ending":
            self.check_ended()
        elif not state.members and state.phase == "gathering" and num >= MAX_START_FAILURES:
            self.change(phase="over")
            self.actions.append(Stop(cause=failure))
        elif state.phase == "gathering":
            self.form_first()  # the others may have waited for its state

    def nudged(self) -> None:
        """Change the group now if somebody waits for it."""
        state = self.state
        if state.pause:
            self.interrupt(state.pause)
        elif state.candidates:
            self.interrupt("a worker joins the group")
        elif state.leaving & set(state.members) and self.can_do_with(_minus_all(state.members, state.leaving)):
            self.interrupt("a worker leaves the group")
        elif len(state.members) < state.limits.min_workers:
            self.interrupt("too few workers are left")

    def pause(self, reason: str) -> None:
        self.change(pause=self.state.pause or reason)
        if self.state.phase == "gathering":
            self.gather()
        elif self.state.phase == "regrouping":
            self.check_regrouped()  # all may have reported, and wait for more workers
        self.interrupt(reason)

    def leave(self, workers: frozenset[int]) -> None:
        state = self.state
        for worker in sorted(workers & {*state.starting, *state.candidates}):
            self.actions.append(Kill(worker=worker, reason="fewer workers are wanted"))
            self.change(starting=self.state.starting - {worker}, reports=_minus(self.state.reports, worker))
        self.change(
            leaving=state.leaving | (workers & set(state.members)),
            donor=state.donor if state.donor in {*self.state.starting, *state.members} else None,
        )
        if state.phase == "gathering":
            self.form_first()  # the others may have waited for the state of one of them
        self.nudged()

    def expired(self, event: Expired) -> None:
        if self.state.phase not in ("gathering", "regrouping") or self.state.donor is not None:
            return  # enough workers have come meanwhile, or they are not needed any more
        failure = self.state.last_loss or Failure(worker=-1, kind="died", reason="")
        self.change(phase="over")
        self.actions.append(Stop(cause=replace(failure, reason=f"{event.reason} {failure.reason}".strip())))

    # -- the membership -------------------------------------------------------------------------------------------

    def form_first(self) -> None:
        """Form a generation of workers of which none has been a member, if there are enough."""
        state, workers = self.state, self.state.candidates
        need = state.limits.num_needed if state.generation < 0 else state.limits.min_workers
        if len(workers) < need:
            self.actions.append(Short(num_workers=len(workers)))
            return
        if state.donor is not None:
            return  # its state is the one to begin with
        trained = [worker for worker in workers if not state.reports[worker].fresh]
        donor = min(trained or workers)
        members = (donor, *_without(workers, donor))
        report = state.reports[donor]
        others = [worker for worker in members if state.reports[worker].digest != report.digest]
        if state.origin is None and others and report.state is None:
            self.ask_to_donate(donor)
            return
        origins = dict.fromkeys(members, state.origin)
        if state.origin is None:
            origins |= dict.fromkeys(others, report.state)
        self.enter(members, members, origins, first_round=0, round_=0, donor=donor, ranges=())

    def check_regrouped(self) -> None:
        """Form the next generation once every living member has reported."""
        state = self.state
        if any(worker not in state.reports for worker in state.members):
            return
        for victim in cut_off({worker: state.reports[worker] for worker in state.members}, state.members):
            self.actions.append(Kill(worker=victim, reason="its connection with another worker is cut"))
            self.failed(Failure(worker=victim, kind="died", reason="its connection with another worker is cut"))
            return  # `failed` has come back here
        # Who had a place but could not take it has no state yet: it waits to join, as it did before.
        self.change(members=tuple(worker for worker in state.members if state.reports[worker].at != "join"))
        state = self.state
        if not state.members:
            self.restart(state.last_loss) if state.last_loss else self.gather()
            return
        newest = self.newest()
        if state.pause and any(state.reports[worker].clean for worker in newest):
            self.close()
            return
        if all(state.reports[worker].at == "end" for worker in state.members) and len(newest) == len(state.members):
            self.close()
            return
        self.form_next(newest)

    def form_next(self, newest: tuple[int, ...]) -> None:
        state = self.state
        at_step = all(state.reports[worker].at == "step" for worker in newest)
        joined = state.candidates if at_step else ()
        if at_step and len(state.members) + len(joined) < state.limits.min_workers:
            self.actions.append(Short(num_workers=len(state.members)))
            return
        staying = _minus_all(state.members, state.leaving)
        if not set(staying) & set(newest) or not self.can_do_with((*staying, *joined)):
            staying = state.members  # who shall leave is needed: nobody else has the newest result, or they are too few
        donor = next(worker for worker in newest if worker in staying)
        report = state.reports[donor]
        if joined and report.state is None:
            self.ask_to_donate(donor)
            return
        for worker in _minus_all(state.members, staying):
            self.reply(worker, Dismiss("fewer workers are wanted"))
        members = (*staying, *joined)
        ranges = self.pending_ranges(members, tuple(worker for worker in newest if worker in staying))
        round_ = report.round
        first = min(state.reports[worker].round for worker in staying)
        origins = dict.fromkeys(joined, report.state)
        self.enter(members, joined, origins, first_round=first, round_=round_, donor=donor, ranges=ranges)

    def pending_ranges(self, members: tuple[int, ...], newest: tuple[int, ...]) -> tuple[tuple[Range, ...], ...]:
        """Who brings what to the pending step; nothing if nobody has entered it."""
        reports, num_microbatches = self.state.reports, self.state.limits.num_microbatches
        if not num_microbatches or all(reports[worker].at != "step" for worker in newest):
            return ()
        return hand_out(num_microbatches, [reports[worker].held if worker in newest else () for worker in members])

    def enter(
        self,
        members: tuple[int, ...],
        joined: tuple[int, ...],
        origins: Mapping[int, Any],
        *,
        first_round: int,
        round_: int,
        donor: int,
        ranges: tuple[tuple[Range, ...], ...],
    ) -> None:
        """Give every member its place in a new generation."""
        state = self.state
        generation = state.generation + 1
        restarted = state.generation >= 0 and not state.members
        waiting = set(state.candidates) - set(members) or state.pause or state.leaving & set(members)
        self.change(phase="running", generation=generation, members=members)
        for worker in members:
            place = Place(
                generation=generation,
                members=members,
                round=round_,
                first_round=first_round,
                donor=members.index(donor),
                ranges=ranges,
                origin=origins.get(worker),
                stop_at_step=bool(waiting) and not ranges,
            )
            self.reply(worker, place)
        self.actions.append(Formed(generation=generation, members=members, joined=joined, restarted=restarted))

    def restart(self, failure: Failure) -> None:
        """Nobody is left who has the state: begin again from the last checkpoint with whoever comes."""
        num = self.state.num_restarts + 1
        if num > MAX_RESTARTS:
            self.change(phase="over")
            reason = f"all workers were lost {num} times without a checkpoint in between; the last time: "
            self.actions.append(Stop(cause=replace(failure, reason=reason + failure.reason)))
            return
        self.change(num_restarts=num)
        self.gather()

    def gather(self) -> None:
        """Wait for workers to begin with; for a pause there is nothing that is not in the last checkpoint."""
        if self.state.pause:
            self.change(phase="over")
            self.actions.append(Complete())
            return
        self.change(phase="gathering")
        self.form_first()

    def interrupt(self, reason: str) -> None:
        """Ask every member to report."""
        if self.state.phase != "running":
            return
        self.change(phase="regrouping")
        self.abort(reason)
        self.check_regrouped()

    def abort(self, reason: str) -> None:
        state = self.state
        running = frozenset(state.members) - set(state.reports)
        if running:
            self.actions.append(AbortGeneration(generation=state.generation, reason=reason, workers=running))

    # -- the end --------------------------------------------------------------------------------------------------

    def check_end(self) -> None:
        state = self.state
        if all(worker in state.reports for worker in state.members):
            self.close()

    def close(self) -> None:
        """Let one of the members that have gone farthest deliver; begin again if nobody is left who can."""
        state = self.state
        able = [w for w in self.newest() if state.reports[w].at == "end" or (state.pause and state.reports[w].clean)]
        behind = [worker for worker in state.members if state.reports[worker].clean and state.pause]
        if not able and not behind:
            if state.members:
                self.change(phase="running")
                self.interrupt("who delivers the result is lost")
            else:
                self.restart(state.last_loss or Failure(worker=-1, kind="died", reason=""))
            return
        closer = (able or behind)[0]
        self.change(phase="closing", closer=closer)
        self.reply(closer, Deliver())

    def check_ended(self) -> None:
        if self.state.phase == "ending" and not self.state.members:
            self.change(phase="over")
            self.actions.append(Complete())

    def check_settled(self) -> None:
        state = self.state
        if all(worker in state.reports for worker in state.members):
            self.stop()

    def stop(self) -> None:
        ordered = sorted(self.state.failures.values(), key=lambda failure: (_BLAME[failure.kind], failure.worker))
        cause, *others = ordered
        if cause.step is None:
            steps = [failure.step for failure in others if failure.step is not None]
            cause = replace(cause, step=min(steps, default=None))
        self.change(phase="over")
        self.actions.append(Stop(cause=cause, others=tuple(others)))

    # -- small helpers --------------------------------------------------------------------------------------------

    def newest(self) -> tuple[int, ...]:
        """The members that are farthest, by rank."""
        reports = self.state.reports
        farthest = max((reports[worker].round for worker in self.state.members if worker in reports), default=-1)
        return tuple(w for w in self.state.members if w in reports and reports[w].round == farthest)

    def step_of(self, failure: Failure) -> int | None:
        """The step of a death: the members are at most one apart, so what they have reported since tells it exactly."""
        reports = (self.state.reports.get(worker) for worker in self.state.members)
        reported = [report.step for report in reports if report is not None and report.step is not None]
        return max(reported, default=failure.step)

    def can_do_with(self, workers: tuple[int, ...]) -> bool:
        return len(workers) >= max(1, self.state.limits.min_workers)

    def ask_to_donate(self, worker: int) -> None:
        if worker not in self.state.members:
            self.change(starting=self.state.starting | {worker})
        self.change(donor=worker)
        self.reply(worker, Donate())

    def reply(self, worker: int, answer: Answer) -> None:
        self.change(reports=_minus(self.state.reports, worker))
        if isinstance(answer, Dismiss) and self.state.phase != "ending":
            self.change(members=_without(self.state.members, worker), leaving=self.state.leaving - {worker})
        self.actions.append(Reply(worker=worker, answer=answer))

    def change(self, **fields: Any) -> None:
        for name in ("reports", "failures"):
            if name in fields and not isinstance(fields[name], MappingProxyType):
                fields[name] = MappingProxyType(dict(fields[name]))
        self.state = replace(self.state, **fields)


def cut_off(reports: Mapping[int, Report], by_rank: Iterable[int]) -> tuple[int, ...]:
    """Who must leave because two living workers cannot hear each other: at most one at a time.

    A worker that blames another for its silence is right only if the other was in a call as well, and in no earlier
    one: else that one was merely late, or held up by a third. Of the workers in such pairs the one in most pairs
    leaves; then the one blamed most; then the one of highest rank, so that the chief stays.
    """
    order = list(by_rank)
    blames = [
        (worker, other)
        for worker, report in reports.items()
        for other in report.blames
        if other != worker and other in reports and report.in_call and reports[other].in_call
        if reports[other].round >= report.call
    ]
    pairs = {frozenset(each) for each in blames}
    if not pairs:
        return ()
    blamed = {worker: sum(worker == other for _, other in blames) for worker in order}
    in_pairs = {worker: sum(worker in pair for pair in pairs) for worker in order}
    return (max(order, key=lambda worker: (in_pairs[worker], blamed[worker], order.index(worker))),)


def _explains_less(failure: Failure, known: Failure | None) -> bool:
    """Of one worker: its own error came before its death."""
    return known is not None and (known.kind == "raised" or _BLAME[failure.kind] >= _BLAME[known.kind])


def _without(workers: tuple[int, ...], worker: int) -> tuple[int, ...]:
    return tuple(each for each in workers if each != worker)


def _minus(reports: Mapping[int, Report], worker: int) -> dict[int, Report]:
    return {each: report for each, report in reports.items() if each != worker}


def _minus_all(workers: tuple[int, ...], others: Collection[int]) -> tuple[int, ...]:
    return tuple(worker for worker in workers if worker not in others)
