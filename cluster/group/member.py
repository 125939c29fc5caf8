"""A worker's place in its group: what it takes part in when the group changes.

All members make the same calls in the same order, and calls are numbered over the task. A call that fails ends the
generation's connections on this worker, so that its peers notice at once; then the worker asks the driver for a place
in the next generation, and says which result it lacks first. With its place it connects anew, and whoever has results
that others lack broadcasts them. So who made the call sees nothing of a failure but the time it takes (`calls.py`).

Where a worker may be told of a change: while it connects or is in a call (`abort` wakes it), while it waits for the
driver's answer, and between two steps (`poll`). Nowhere else: in particular not while it computes, so nothing computed
is thrown away. A worker that is only late is waited for; one that has died shows by its closed connection; one that
is stopped or cut off shows by the missed deadline.

Two things are easy to get wrong here. *The state is older than the results*: a worker may be handed the sum of a call
in a generation that fails again before it has applied it. Then it can neither be saved nor serve a new member, and is
asked for nothing but to go on (`_completed`). *Whom to blame*: a worker that hears nothing of a peer may be the one
that is cut off. It says whom it missed and in which call, and the driver compares (`cut_off.py`).

What was not done: giving every member a copy of its neighbour's state (as Gemini does, Wang et al., SOSP 2023): in data
parallel training every member has the whole state already.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

from .. import instruments
from ..allreduce.collective import Alone, Collective
from ..allreduce.handshake import Peers
from ..allreduce.listener import Listener
from ..allreduce.mesh import connect
from ..assignment import Range
from ..errors import MENDABLE, Aborted, Call, CollectiveError, Dismissed
from ..spec import CONNECT_LIMIT_S, FIRST_DEADLINE_S, GroupSpec
from .liveness import COPIES, Activity
from .mailbox import Interrupted, Mailbox
from .messages import Finish, JoinRequest, Leave, Membership, SendState, WaitingAt
from .progress import WorkerProgress
from .results import Results

MAX_HANDED_BYTES = 1 << 40  # of a result that one worker hands to another


class Member(WorkerProgress):
    """A worker's place in the group, as it changes; see `WorkerProgress` for what it tells of itself.

    Attributes:
        worker: the worker's number.
        mailbox: its channel to the driver.
        members: the workers' numbers, by rank; this worker's is `rank`.
        place: where it stands in the group, None before the first generation.
        call: number of the next call; `results` are those of calls before, as far as they may be needed.
        results: see `call`.
        copy_s: how long this worker's last copy of its state took; noted by the task, told with every request.
        regrouped_s: how long this worker has taken part in changes of the group until now.
        is_between_hooks: the task is between two hooks that belong together, so that its state is none to save now.
        take_state: makes a copy of the worker's state, for one that joins; set by the task.
        deliver: makes what the task delivers, at its end (True) or where it is paused (False); set by the task.

    Args:
        worker: the worker's number.
        mailbox: its channel to the driver.
        listener: where its peers reach it.
        spec: of the group.
        note_step: called with every new step.
    """

    def __init__(
        self,
        worker: int,
        mailbox: Mailbox,
        listener: Listener,
        spec: GroupSpec,
        note_step: Callable[[int | None], None] = lambda step: None,
    ) -> None:
        super().__init__(note_step)
        self.worker, self.mailbox = worker, mailbox
        self._listener, self._spec = listener, spec
        self.rank, self.call = 0, -1
        self.members: tuple[int, ...] = (worker,)
        self.is_between_hooks = False
        self.take_state: Callable[[], object] = lambda: None
        self.deliver: Callable[[bool], object] = lambda at_end: None
        self.copy_s = self.regrouped_s = 0.0
        self.results = Results()
        self._collective: Collective | None = None
        self._sequence = 0
        self.place: Membership | None = None
        self._aborted = (-1, "")
        self._waited_s = 0.0

    @property
    def num_workers(self) -> int:
        """How many workers the group has."""
        return len(self.members)

    @property
    def is_chief(self) -> bool:
        """Whether this worker, being of rank 0, runs the callbacks and writes the checkpoints."""
        return self.rank == 0

    @property
    def deadline_s(self) -> float:
        """How long to wait for a silent peer, which may be copying its state for a checkpoint."""
        unknown = self._spec.deadline_s is None and not self.step_s
        deadline_s = FIRST_DEADLINE_S if unknown else self._spec.deadline_of(self.step_s)
        return deadline_s if self.place is None else deadline_s + COPIES * self.place.copy_s

    @property
    def _connect_limit_s(self) -> float:
        """How long to try to connect: all members do nothing else then."""
        return min(CONNECT_LIMIT_S, self.deadline_s)

    @property
    def waited_s(self) -> float:
        """How long this worker has slept in calls, until every other worker had begun the same one."""
        return self._waited_s + (0.0 if self._collective is None else self._collective.statistics().wait_s)

    # -- from other threads ---------------------------------------------------------------------------------------

    def abort(self, generation: int, reason: str) -> None:
        """Wake this worker out of whatever it waits for in a generation that is over; from any thread."""
        if generation < self.generation:
            return
        self._aborted = max(self._aborted, (generation, reason))
        collective = self._collective
        if collective is not None and collective.generation <= generation:
            collective.abort(reason)
        self._listener.abort(generation, reason)
        self.mailbox.wake()

    # -- the calls of a task --------------------------------------------------------------------------------------

    def join(self, *, digest: str, fresh: bool) -> object:
        """Wait for a place in the group; returns where this worker's state comes from, None for its own."""
        self.note_activity(Activity.JOIN)
        self.regroup(JoinRequest(waiting_at="join", digest=digest, fresh=fresh))
        instruments.fault_point("join", self.step)
        return None if self.place is None else self.place.initial_state

    def send(self, content: object) -> None:
        """Tell the driver's half of the task something; from any thread."""
        self.mailbox.send(content)

    def request(self, content: object, activity: Activity = Activity.AWAIT_DRIVER) -> Any:  # Any: see `Mailbox`
        """Ask the driver's half of the task something; takes part in changes of the group meanwhile, as `poll` does.

        Args:
            content: what is asked; it is asked again after a change of the group.
            activity: what this worker does meanwhile, for its heartbeat.

        Returns:
            The answer.
        """
        began_s = time.perf_counter()
        while True:
            self.note_activity(activity)
            try:
                answer = self.mailbox.request(content, self._is_aborted)
                instruments.note(activity.value, began_s)
                return answer
            except Interrupted:
                self.poll()

    def poll(self) -> None:
        """Between two steps, where the state is complete: take part in a change of the group, if there is one."""
        if self._is_aborted():
            self.regroup(JoinRequest(waiting_at="wait", reason=self._aborted[1]))

    def end(self) -> NoReturn:
        """Wait until all workers are at the end of the task, and the driver has let this one go.

        Raises:
            Dismissed: always; it holds what this worker has delivered, if it was to deliver.
        """
        while True:
            self.note_activity(Activity.END)
            instruments.fault_point("end", self.step)
            self.regroup(JoinRequest(waiting_at="end"))

    def leave(self) -> None:
        """Close the connections to the peers."""
        if self._collective is not None:
            self._waited_s = self.waited_s
            self._collective.close()
            self._collective = None

    # -- changes of the group -------------------------------------------------------------------------------------

    def connections(self, waiting_at: WaitingAt, held: tuple[Range, ...] = ()) -> Collective | None:
        """This generation's connections; None if there are none, or the group is to change: then it has changed."""
        if self._is_aborted() or self._collective is None:
            self.regroup(JoinRequest(waiting_at=waiting_at, held=held, reason=self._aborted[1]))
            return None
        return self._collective

    def mend(
        self, error: CollectiveError, waiting_at: WaitingAt, name: str, began_s: float, held: tuple[Range, ...] = ()
    ) -> None:
        """A call has failed in a way that a new generation mends: take part in it.

        Args:
            error: what failed.
            waiting_at: what kind of call it was.
            name: what it is called in traces.
            began_s: when it began, by the performance counter.
            held: the microbatches that this worker has computed for it.
        """
        instruments.note(f"{name} (interrupted)", began_s)
        in_call = _was_there(error, began_s, self.deadline_s)
        self.regroup(
            JoinRequest(
                waiting_at=waiting_at,
                held=held,
                blames=self._numbers(error.unresponsive),
                in_call=in_call,
                failed_call=self.call,
                reason=str(error),
            )
        )

    def regroup(self, why: JoinRequest) -> None:
        """Ask the driver for a place until this worker has one in a generation that stands; every change is made here.

        Args:
            why: where this worker is and why it asks; what only this method knows is added.

        Raises:
            Dismissed: the task is over for this worker.
        """
        joins = why.waiting_at == "join"
        if why.waiting_at not in ("join", "end"):
            self.note_activity(Activity.REGROUP)
            instruments.fault_point("regroup", self.step)
        self.leave()
        began_s = time.perf_counter()
        while True:
            answer = self.mailbox.request(self._completed(why))
            if isinstance(answer, SendState):
                why = replace(why, state=self._parked_state())
            elif isinstance(answer, Finish):
                raise Dismissed("this worker delivered", self.deliver(why.waiting_at == "end"))
            elif isinstance(answer, Leave):
                raise Dismissed(answer.reason)
            else:
                if joins:
                    self.call = -1
                    self.results.clear()
                entered_s = time.perf_counter()
                try:
                    self._enter(answer)
                    instruments.note("regrouping", began_s)
                    self.regrouped_s += time.perf_counter() - began_s
                    return
                except MENDABLE as error:
                    self.leave()
                    blames = self._numbers(error.unresponsive)
                    in_call = _was_there(error, entered_s, self._connect_limit_s)
                    why = replace(why, blames=blames, in_call=in_call, failed_call=-1, reason=str(error))

    def _parked_state(self) -> object:
        """Handle of a copy of this worker's state."""
        before, began_s = self._activity[0], time.perf_counter()
        self.note_activity(Activity.COPY)
        parked = self.mailbox.park(self.take_state())
        self.copy_s = time.perf_counter() - began_s
        self.note_activity(before)
        return parked

    def _completed(self, why: JoinRequest) -> JoinRequest:
        """The request with what is known here. Who was handed results in a generation that did not stand has a state
        that is older than they are: it is before no step, and can be neither saved nor sent.
        """
        lacking, waiting_at = self.results.first_lacking(self.call), why.waiting_at
        request = replace(why, generation=self.generation, next_call=lacking, step=self.step, copy_s=self.copy_s)
        if lacking > self.call:
            return replace(request, waiting_at="join" if waiting_at == "join" else "call", held=())
        return replace(request, clean=waiting_at in ("step", "wait") and not self.is_between_hooks)

    def _numbers(self, ranks: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.members[rank] for rank in ranks)

    def _enter(self, place: Membership) -> None:
        """Take a place: connect with the other members, and hand over or receive results."""
        self.place = place
        self._pacer.start_anew()
        self.generation, self.members = place.generation, place.members
        self.rank, self._sequence = place.members.index(self.worker), 0
        if self.num_workers == 1:
            self._collective = Alone(generation=self.generation)
        else:
            peers = Peers(rank=self.rank, addresses=place.addresses, generation=self.generation, secret=place.secret)
            self._collective = connect(
                self._listener, peers, timeout_s=self._connect_limit_s, deadline_s=self.deadline_s
            )
        if self._is_aborted():
            raise Aborted(Call(self.rank, self.generation, None), self._aborted[1])
        if self.call < 0:
            self.call = place.call
        for number in range(place.first_call, place.call):
            own = self.results.payload(number) if self.rank == place.donor else None
            handed = self._collective.broadcast(self.next_sequence(), own, root=place.donor, max_bytes=MAX_HANDED_BYTES)
            if number not in self.results:
                self.results.keep(number, handed)

    def next_sequence(self) -> int:
        """The number of the next collective operation of this generation."""
        self._sequence += 1
        return self._sequence - 1

    def _is_aborted(self) -> bool:
        return self._aborted[0] >= self.generation >= 0


def _was_there(error: CollectiveError, began_s: float, limit_s: float) -> bool:
    """Whether a worker whose call failed was in it with the others.

    Who is woken just after it has come was late; who has waited for long was cut off, as the others were.

    Args:
        error: what failed.
        began_s: when the call began, by the performance counter.
        limit_s: how long it waits for its peers.
    """
    return not isinstance(error, Aborted) or time.perf_counter() - began_s > limit_s / 2
