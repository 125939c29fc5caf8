"""A worker's membership in its group: calls with the other workers that outlive the loss of some of them.

All members make the same calls in the same order; which are numbered. A call that fails is reported to the
driver, which answers with a place in the next generation. There, who is behind is handed the results it lacks by one
who has them, and the failed call is made again. So a caller sees nothing of a failure but the time it takes.

An all-reduce waits for everybody, so who has its result knows that all have entered it: results of earlier calls are
needed by nobody any more and are dropped then. That keeps one vector, and the payloads of a few broadcasts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import instruments
from ..allreduce.collective import Alone, Collective
from ..allreduce.handshake import Peers
from ..allreduce.listener import Listener
from ..allreduce.mesh import connect
from ..assignment import Range, assign
from ..errors import MENDABLE, Aborted, Call, CollectiveError, Dismissed
from ..tree import Node, present_nodes
from ..vectors import BucketOp, Layout, Vector
from .mailbox import Interrupted, Mailbox
from .messages import Finish, Heartbeat, JoinRequest, Leave, Membership, SendState, WaitingAt

MAX_HANDED_BYTES = 1 << 40
NUM_TIMED = 32


@dataclass(frozen=True, slots=True)
class Buckets:
    """How the vectors of a sum lie in memory.

    Attributes:
        layout: of every bucket its dtype and length.
        ops: of every bucket how it is added up.
        new: makes memory for one sum, not initialised.
    """

    layout: Layout
    ops: tuple[BucketOp, ...]
    new: Callable[[], Vector]


class SumCall:
    """One all-reduce of a task: made again, as the group changes, until this worker has its sum.

    The worker computes between the calls of these methods; a call knows nothing of what is added up::

        while (total := call.result()) is None:
            ...  # compute those of call.ranges() that are not held yet
            call.all_reduce(nodes, held)

    Attributes:
        assigned: the number of every worker of the group, and the ranges of microbatches that it brought.

    Args:
        member: this worker's membership.
        present: of every microbatch of the step, whether it has rows.
        buckets: how the vectors lie.
    """

    def __init__(self, member: Member, present: Sequence[bool], buckets: Buckets) -> None:
        self._member, self._present, self._buckets = member, tuple(present), buckets
        self._sum: Vector | None = None
        self.assigned: tuple[tuple[int, tuple[Range, ...]], ...] = ()

    def result(self) -> Vector | None:
        """The sum, the same bits on every worker; None until it is here. The call after the next overwrites it."""
        if self._sum is None:
            self._sum = self._member.take_sum(self._buckets)
        return self._sum

    def ranges(self) -> tuple[Range, ...]:
        """The microbatches that this worker is to bring, as the group is now; what it has computed stays its own."""
        member = self._member
        ranges = member.ranges_of_all(len(self._present))
        self.assigned = tuple(zip(member.members, ranges, strict=True))
        member.note_activity("compute")
        instruments.fault_point("compute", member.step)
        return ranges[member.rank]

    def all_reduce(self, nodes: Mapping[Node, Vector], held: tuple[Range, ...]) -> None:
        """Add up with the other workers; returns when that is done, or when the group has changed.

        Args:
            nodes: partial sums over all that this worker holds, one per maximal node of every range.
            held: the ranges that it holds.
        """
        member = self._member
        if member.is_to_stop:
            member.regroup("step", held=held, reason="the group is to change")
            return
        expected = member.expected_nodes(tuple(each for _, each in self.assigned), self._present)
        member.note_activity("all-reduce")
        instruments.fault_point("reduce", member.step)
        collective = member.connections("step", held)
        if collective is None:
            return
        began_s = time.perf_counter()
        try:
            total = collective.all_reduce(
                member.next_sequence(),
                nodes,
                expected,
                self._buckets.layout,
                ops=self._buckets.ops,
                out=member.buffer(self._buckets),
                deadline_s=member.deadline_s,
            )
        except MENDABLE as error:
            member.mend(error, "step", "all-reduce", began_s, held)
        else:
            instruments.note("all-reduce", began_s)
            member.keep_result(total)


class Member:
    """A worker's place in the group, as it changes.

    `step_s` is the median duration of its last steps, 0.0 before a few have been timed.

    Args:
        worker: the worker's number.
        mailbox: its channel to the driver.
        listener: where its peers reach it; None for a worker that is always alone.
        first_deadline_s: how long to wait for a silent peer until steps have been timed, and for connections at first.
        deadline_s: the same afterwards; None means ten times the median step, at least five seconds.
        note_step: called with every new step.
    """

    def __init__(
        self,
        worker: int,
        mailbox: Mailbox,
        listener: Listener | None,
        *,
        first_deadline_s: float,
        deadline_s: float | None = None,
        note_step: Callable[[int | None], None] = lambda step: None,
    ) -> None:
        self._note_step = note_step
        self._step: int | None = None
        self.worker, self.mailbox = worker, mailbox
        self._listener = listener
        self._first_deadline_s, self._deadline_s = first_deadline_s, deadline_s
        self.generation, self.rank, self.num_workers, self.call = -1, 0, 1, -1
        self.members: tuple[int, ...] = (worker,)
        self._collective: Collective | None = None
        self._waited_s = 0.0
        self._sequence = 0
        self._place: Membership | None = None
        self._aborted = (-1, "")
        self._results: dict[int, Any] = {}
        self._buffers: list[Vector] = []
        self._expected: tuple[Any, list[list[Node]]] | None = None
        self._activity = ("start", time.monotonic())
        self._step_times: list[float] = []
        self.step_s = 0.0
        self.take_state: Callable[[], Any] = lambda: None
        self.deliver: Callable[[bool], Any] = lambda at_end: None

    @property
    def step(self) -> int | None:
        """The step of the run that this worker is at."""
        return self._step

    @step.setter
    def step(self, step: int | None) -> None:
        self._step = step
        self._note_step(step)

    @property
    def is_chief(self) -> bool:
        """Whether this worker is of rank 0."""
        return self.rank == 0

    @property
    def deadline_s(self) -> float:
        """How long to wait for a silent peer."""
        if self._deadline_s is not None:
            return self._deadline_s
        return max(5.0, 10 * self.step_s) if self.step_s else self._first_deadline_s

    @property
    def waited_s(self) -> float:
        """How long this worker has slept in calls, until another worker or the network had something."""
        return self._waited_s + (0.0 if self._collective is None else self._collective.statistics().wait_s)

    def time_step(self, seconds: float) -> None:
        """Note how long a step took."""
        self._step_times.append(seconds)
        if len(self._step_times) in (3, NUM_TIMED):
            self.step_s = statistics.median(self._step_times)
        if len(self._step_times) == NUM_TIMED:
            del self._step_times[: NUM_TIMED // 2]

    def note_activity(self, activity: str) -> None:
        """Note what this worker does now, for its heartbeat."""
        self._activity = activity, time.monotonic()

    def heartbeat(self) -> Heartbeat:
        """What this worker does; from any thread."""
        activity, since = self._activity
        return Heartbeat(
            activity=activity,
            activity_s=time.monotonic() - since,
            step=self.step,
            step_s=self.step_s,
            generation=self.generation,
        )

    # -- from other threads ---------------------------------------------------------------------------------------

    def abort(self, generation: int, reason: str) -> None:
        """Wake this worker out of whatever it waits for in a generation that is over; from any thread."""
        if generation < self.generation:
            return
        self._aborted = max(self._aborted, (generation, reason))
        collective = self._collective
        if collective is not None and collective.generation <= generation:
            collective.abort(reason)
        if self._listener is not None:
            self._listener.abort(generation, reason)
        self.mailbox.wake()

    # -- the calls of a task --------------------------------------------------------------------------------------

    def join(self, *, digest: str, fresh: bool) -> Any:
        """Wait for a place in the group; returns where this worker's state comes from, None for its own."""
        self.note_activity("waiting for a place in the group")
        self.regroup("join", digest=digest, fresh=fresh)
        instruments.fault_point("join", self.step)
        return None if self._place is None else self._place.initial_state

    def begin_sum(self, present: Sequence[bool], buckets: Buckets) -> SumCall:
        """Begin the all-reduce of a step, of which these microbatches have rows."""
        return SumCall(self, present, buckets)

    def broadcast(self, produce: Callable[[], bytes], max_bytes: int, wait_s: float) -> bytes:
        """What the chief produces, on every worker; a worker that becomes the chief meanwhile produces it itself."""
        made: bytes | None = None
        while self.call not in self._results:
            self.note_activity("the chief's callbacks" if self.is_chief else "waiting for the chief's callbacks")
            if self.is_chief and made is None:
                made = produce()
            collective = self.connections("call")
            if collective is None:
                continue
            payload, began_s = made if self.is_chief else None, time.perf_counter()
            try:
                received = collective.broadcast(
                    self.next_sequence(), payload, root=0, max_bytes=max_bytes, deadline_s=wait_s
                )
            except MENDABLE as error:
                self.mend(error, "call", "broadcast", began_s)
            else:
                instruments.note("broadcast", began_s)
                self.keep_result(received)
        self.call += 1
        return bytes(self._results[self.call - 1])

    def ask(self, event: Any, activity: str = "waiting for the driver") -> Any:
        """Ask the driver; it may take part in changes of the group meanwhile."""
        began_s = time.perf_counter()
        while True:
            self.note_activity(activity)
            try:
                answer = self.mailbox.ask(event, self._is_aborted)
                instruments.note(activity, began_s)
                return answer
            except Interrupted:
                self.poll()

    def poll(self) -> None:
        """Between calls: take part in a change of the group, if there is one."""
        if self._is_aborted():
            self.regroup("wait", reason=self._aborted[1])

    def end(self) -> Any:
        """Wait until all workers are at the end of the task; returns what this worker delivers, None for others.

        Raises:
            Dismissed: another worker has delivered.
        """
        while True:
            self.note_activity("waiting for the end")
            instruments.fault_point("end", self.step)
            self.regroup("end")

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
            self.regroup(waiting_at, held=held, reason=self._aborted[1])
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
        # Who is woken just after it has come was late; who has waited for long was cut off, as the others were.
        in_call = not isinstance(error, Aborted) or time.perf_counter() - began_s > self.deadline_s / 2
        self.regroup(
            waiting_at, held=held, blames=error.unresponsive, in_call=in_call, failed_call=self.call, reason=str(error)
        )

    def keep_result(self, result: Vector | bytes) -> None:
        """The present call has succeeded here; another worker may need its result."""
        self._results[self.call] = result

    def take_sum(self, buckets: Buckets) -> Vector | None:
        """End the present call if its sum is here; forgets earlier results, which nobody needs any more."""
        result = self._results.get(self.call)
        if result is None:
            return None
        vector = result if isinstance(result, tuple) else _vector_of(result, buckets.layout, self.buffer(buckets))
        self._results = {number: each for number, each in self._results.items() if number > self.call}
        self._results[self.call] = vector
        self.call += 1
        instruments.fault_point("summed", self.step)
        return vector

    def regroup(
        self,
        waiting_at: WaitingAt,
        *,
        held: tuple[Range, ...] = (),
        blames: tuple[int, ...] = (),
        in_call: bool = False,
        failed_call: int = -1,
        reason: str = "",
        digest: str = "",
        fresh: bool = True,
    ) -> None:
        """JoinRequest to the driver until this worker has a place in a generation that stands."""
        if waiting_at not in ("join", "end"):
            self.note_activity("regrouping")
            instruments.fault_point("regroup", self.step)
        self.leave()
        state, began_s = None, time.perf_counter()
        while True:
            lacking = self._first_lacking()
            handed = lacking > self.call  # in a generation that did not stand: the state is older than the results
            request = JoinRequest(
                generation=self.generation,
                next_call=lacking,
                waiting_at="call" if handed and waiting_at != "join" else waiting_at,
                held=() if handed else held,
                blames=tuple(self.members[rank] for rank in blames),
                in_call=in_call,
                failed_call=failed_call,
                clean=waiting_at in ("step", "wait") and not handed,
                step=self.step,
                digest=digest,
                fresh=fresh,
                state=state,
                reason=reason,
            )
            answer = self.mailbox.ask(request)
            if isinstance(answer, SendState):
                state = self.mailbox.park(self.take_state())
            elif isinstance(answer, Finish):
                raise Dismissed("this worker delivered", self.deliver(waiting_at == "end"))
            elif isinstance(answer, Leave):
                raise Dismissed(answer.reason)
            else:
                if waiting_at == "join":
                    self.call, self._results = -1, {}
                try:
                    self._enter(answer)
                    instruments.note("regrouping", began_s)
                    return
                except MENDABLE as error:
                    self.leave()
                    blames, in_call, failed_call, reason = error.unresponsive, True, -1, str(error)

    def _enter(self, place: Membership) -> None:
        """Take a place: connect with the other members, and hand over or receive results."""
        self._place = place
        self.generation, self.members = place.generation, place.members
        self.rank, self.num_workers = place.members.index(self.worker), len(place.members)
        self._sequence = 0
        if self.num_workers == 1 or self._listener is None:
            self._collective = Alone(generation=self.generation)
        else:
            peers = Peers(rank=self.rank, addresses=place.addresses, generation=self.generation, secret=place.secret)
            self._collective = connect(self._listener, peers, timeout_s=self.deadline_s, deadline_s=self.deadline_s)
        if self._is_aborted():
            raise Aborted(Call(self.rank, self.generation, None), self._aborted[1])
        if self.call < 0:
            self.call = place.call
        for number in range(place.first_call, place.call):
            own = _bytes_of(self._results[number]) if self.rank == place.donor else None
            handed = self._collective.broadcast(self.next_sequence(), own, root=place.donor, max_bytes=MAX_HANDED_BYTES)
            if number not in self._results:
                self._results[number] = handed

    @property
    def is_to_stop(self) -> bool:
        """Whether the group is to change at the next step, instead of making its call."""
        return self._place is not None and self._place.stop_at_step

    def ranges_of_all(self, num_microbatches: int) -> Sequence[tuple[Range, ...]]:
        """By rank, the microbatches of the present step that each worker brings."""
        place = self._place
        if place is not None and place.ranges and place.call == self.call:
            return place.ranges
        return [(own,) for own in assign(num_microbatches, self.num_workers)]

    def expected_nodes(self, ranges: tuple[tuple[Range, ...], ...], present: tuple[bool, ...]) -> list[list[Node]]:
        """By rank, the nodes of the tree that each worker brings; alike for most steps of a generation."""
        key = ranges, present
        if self._expected is None or self._expected[0] != key:
            nodes = [[node for lo, hi in own for node in present_nodes(lo, hi, present)] for own in ranges]
            self._expected = key, nodes
        return self._expected[1]

    def buffer(self, buckets: Buckets) -> Vector:
        """Memory for the next sum; that of the last one is kept where another worker may need it."""
        last = self._results.get(self.call - 1)
        for buffer in self._buffers:
            if buffer is not last or self.num_workers == 1:
                return buffer
        self._buffers.append(buckets.new())
        return self._buffers[-1]

    def _first_lacking(self) -> int:
        """The first call from here on whose result this worker does not have."""
        number = self.call
        while number >= 0 and number in self._results:
            number += 1
        return number

    def next_sequence(self) -> int:
        """The number of the next collective operation of this generation."""
        self._sequence += 1
        return self._sequence - 1

    def _is_aborted(self) -> bool:
        return self._aborted[0] >= self.generation >= 0


def _bytes_of(result: Any) -> bytes:
    return b"".join(bucket.tobytes() for bucket in result) if isinstance(result, tuple) else result


def _vector_of(payload: bytes, layout: Layout, out: Vector) -> Vector:
    at = 0
    for (dtype, length), bucket in zip(layout, out, strict=True):
        bucket[:] = np.frombuffer(payload, dtype=dtype, count=length, offset=at)
        at += length * dtype.itemsize
    return out
