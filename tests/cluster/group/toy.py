"""A small hosted object that does what a trainer does.

The state is one float64 vector. Every microbatch contributes numbers of very different sizes that depend on the step,
the microbatch and the state, so that a lost, doubled or differently bracketed sum shows in the bits. A step may have
several phases: what one has brought is kept apart, the next one computes from it, and at the end it is the state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from heliostat.cluster import instruments
from heliostat.cluster.assignment import Range
from heliostat.cluster.group.calls import SumCall, broadcast
from heliostat.cluster.group.liveness import Activity
from heliostat.cluster.group.member import Member
from heliostat.cluster.group.results import Buckets
from heliostat.cluster.tree import Node
from heliostat.cluster.vectors import TreeSum, Vector, empty_vector

from .script import GUARD_S, Script

OPS = ("sum", "sum", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What must have the same bits everywhere: `step` is the next one, `applied` are those that are in `values`."""

    step: int
    values: np.ndarray
    applied: tuple[int, ...] = ()
    payloads: tuple[bytes, ...] = ()
    answers: tuple[int, ...] = ()

    def digest(self) -> str:
        parts = (self.step, self.values.tobytes(), self.applied, self.payloads, self.answers)
        return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Every `talk_every` steps the chief tells all something, and all ask the driver something.

    Attributes:
        state: where to begin; None for the beginning.
        signed: whether the chief's payloads name the worker that made them.
        keep: whether to begin with the state of the task before, if there was one.
        copy_s: how long workers say that a copy of their state takes.
        num_phases: all-reduces of a step.
    """

    num_steps: int = 9
    num_microbatches: int = 6
    length: int = 37
    talk_every: int = 3
    state: State | None = None
    signed: bool = False
    keep: bool = False
    copy_s: float = 0.0
    num_phases: int = 1

    def present(self, step: int) -> list[bool]:
        """Every fourth batch is short: it lacks its last microbatch."""
        return [step % 4 != 3 or number < self.num_microbatches - 1 for number in range(self.num_microbatches)]

    def buckets(self, phase: int) -> Buckets:
        """Every phase has a layout of its own."""
        wide, narrow = np.dtype(np.float64), np.dtype(np.float32)
        layout = (narrow, (phase + 1) * self.length), (wide, self.length), (wide, 2)
        return Buckets(layout, OPS, lambda: empty_vector(layout))


def beginning(job: Job) -> State:
    return State(step=0, values=np.linspace(-1.0, 1.0, job.length))


def contribution(state: State, microbatch: int, phase: int = 0) -> Vector:
    rng = np.random.default_rng([state.step, microbatch, *[phase] * (phase > 0)])
    noise = rng.standard_normal(len(state.values)) * 10.0 ** rng.integers(-6, 7, len(state.values))
    seen = state.values * (microbatch + 1) + noise
    narrow = np.tile(seen.astype(np.float32), phase + 1)
    return narrow, seen / 3.0, np.array([seen.max(), -seen.min()])


def moved(state: State, total: Vector) -> State:
    """After a phase, inside of the step."""
    narrow, wide, extrema = total
    last = narrow[-len(state.values) :].astype(np.float64)
    values = 0.7 * state.values + 1e-3 * np.tanh(last) + 1e-7 * wide + 1e-9 * extrema[0]
    return replace(state, values=values)


def applied(state: State) -> State:
    """After the last phase."""
    return replace(state, step=state.step + 1, applied=(*state.applied, state.step))


def told(state: State, payload: bytes) -> State:
    values = state.values + len(payload) * 1e-3 + payload[-1] * 1e-5
    return replace(state, values=values, payloads=(*state.payloads, payload))


def answered(state: State, answer: int) -> State:
    return replace(state, values=state.values * (1.0 + answer * 1e-6), answers=(*state.answers, answer))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """All workers ask this together; the answer depends on what they agree on."""

    number: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A worker has applied a step."""

    worker: int
    state: State


class ToyWork:
    """The microbatches of a phase, one tree sum per range that is held."""

    def __init__(self, job: Job, state: State, phase: int) -> None:
        self._job, self._state, self._phase = job, state, phase
        self._trees: dict[Range, TreeSum] = {}

    @property
    def held(self) -> tuple[Range, ...]:
        return tuple(self._trees)

    def compute(self, ranges: Sequence[Range]) -> None:
        present = self._job.present(self._state.step)
        for lo, hi in ranges:
            if (lo, hi) not in self._trees:
                tree = TreeSum(self._job.num_microbatches, OPS, lo, hi)
                for number in range(lo, hi):
                    if present[number]:
                        tree.add(number, contribution(self._state, number, self._phase))
                self._trees[lo, hi] = tree

    def nodes(self) -> dict[Node, Vector]:
        return {node: vector for tree in self._trees.values() for node, vector in tree.nodes().items()}


class Toy:
    """The hosted object. Besides the group's points it reaches "setup", "produce", "ask", "donate" and "deliver"."""

    def __init__(self, slot: int, script: Script) -> None:
        self.script = script
        self.state: State | None = None
        self.buckets: list[Buckets] = []
        script.reached("make")

    def train(self, job: Job, member: Member) -> Any:
        kept = self.state if job.keep else None
        self.state = kept or job.state or beginning(job)
        self.buckets = [job.buckets(phase) for phase in range(job.num_phases)]
        member.take_state, member.deliver = self._take_state, self._deliver
        member.step, member.copy_s = self.state.step, job.copy_s
        self.script.reached("setup", member.step)
        initial_state = member.join(digest=self.state.digest(), fresh=kept is None and job.state is None)
        if initial_state is not None:
            self.state = initial_state
        self._talk(job, member)
        while self.state.step < job.num_steps:
            self._step(job, member)
            self._talk(job, member)
        return member.end()

    def _step(self, job: Job, member: Member) -> None:
        member.step = self.state.step
        inside = self.state
        for phase in range(job.num_phases):
            inside = moved(inside, self._summed(job, member, inside, phase))
        self.state = applied(inside)
        instruments.fault_point("applied", member.step)
        member.send(Applied(worker=member.worker, state=self.state))
        member.step = self.state.step

    def _summed(self, job: Job, member: Member, inside: State, phase: int) -> Vector:
        work = ToyWork(job, inside, phase)
        call = SumCall(member, job.present(inside.step), self.buckets[phase], first=phase == 0)
        while (total := call.result()) is None:
            ranges = call.ranges()
            member.note_activity(Activity.READ)
            self.script.reached("read", member.step)
            member.note_activity(Activity.COMPUTE)
            work.compute(ranges)
            call.all_reduce(work.nodes(), work.held)
        return total

    def _talk(self, job: Job, member: Member) -> None:
        due = self.state.step // job.talk_every
        while len(self.state.payloads) < due:
            payload, _ = broadcast(member, lambda: memoryview(self._produce(job, member)), 1 << 20, GUARD_S)
            self.state = told(self.state, bytes(payload))
        while len(self.state.answers) < due:
            self.script.reached("ask", member.step)
            question = Ask(number=len(self.state.answers), digest=self.state.digest())
            self.state = answered(self.state, member.request(question))

    def _produce(self, job: Job, member: Member) -> bytes:
        self.script.reached("produce", member.step)
        sign = f"{member.worker}:" if job.signed else ""
        return f"{sign}{self.state.digest()}".encode()

    def _take_state(self) -> State:
        self.script.reached("donate")
        return self.state

    def _deliver(self, at_end: bool) -> tuple[bool, State]:
        self.script.reached("deliver")
        return at_end, self.state
