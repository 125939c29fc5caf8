"""The calls that all workers of a generation make together: `Collective`, and `Alone` for a group of one."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..errors import Aborted, Call
from ..tree import Node
from ..vectors import Vector, check_vectors, reduce_nodes
from .slices import SumSpec

MAX_CONTROL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveStatistics:
    """What a collective has done since it was made.

    Attributes:
        calls: how many have succeeded.
        bytes_sent: payloads and headers; likewise `bytes_received`.
        bytes_shared: how many of those sent went through memory shared with workers of the same host.
        wait_s: seconds of the calling thread asleep, until every other worker had begun the same call.
        reduce_s: seconds of the calling thread copying and adding.
        sharing: ranks of the workers with which memory is shared.
    """

    calls: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    bytes_shared: int = 0
    wait_s: float = 0.0
    reduce_s: float = 0.0
    sharing: tuple[int, ...] = ()


class Collective(ABC):
    """All workers of one generation make the same calls, in the same order and with the same numbers.

    Calls come from one thread; `abort` may come from any. A call that raises has ended the collective: it closes its
    connections, so that the others notice at once, and every later call raises again. A worker that stops for a reason
    of its own must call `close`.

    Args:
        rank: of this worker.
        num_workers: of the generation.
        generation: its number.
    """

    def __init__(self, *, rank: int, num_workers: int, generation: int) -> None:
        self.rank, self.num_workers, self.generation = rank, num_workers, generation
        self._last_sequence: int | None = None
        self._num_calls = 0
        self._ended: str | None = None

    def all_reduce(
        self,
        sequence: int,
        nodes: Mapping[Node, Vector],
        spec: SumSpec,
        *,
        out: Vector | None = None,
        deadline_s: float | None = None,
    ) -> Vector:
        """Sum the partial sums of all workers in tree order; the same bits on every worker.

        Args:
            sequence: number of the call; grows with every one.
            nodes: this worker's partial sums, which are only read.
            spec: what is summed, the same on all workers.
            out: memory of the result, which must not overlap `nodes`; undefined if the call raises. None takes new one.
            deadline_s: replaces the usual one, in seconds.

        Returns:
            the sum: `out` if given. It may be one of `nodes` without `out`, or if that is the only one and read-only.

        Raises:
            CollectiveError: the call failed, on this worker at least.
            ValueError: the arguments contradict each other.
        """
        with self._calling(sequence) as call:
            if len(spec.expected) != self.num_workers:
                raise ValueError(f"expected names {len(spec.expected)} workers, this group has {self.num_workers}")
            own = spec.expected[self.rank]
            if set(nodes) != set(own):
                raise ValueError(f"worker {self.rank} should bring nodes {own}, it has {tuple(nodes)}")
            check_vectors([*nodes.values(), *([] if out is None else [out])], spec.layout, spec.ops)
            if out is not None and not all(bucket.flags.writeable for bucket in out):
                raise ValueError("out must be writable")
            return self._all_reduce(call, nodes, spec, out, deadline_s)

    def broadcast(
        self,
        sequence: int,
        payload: bytes | memoryview | None,
        root: int = 0,
        max_bytes: int = MAX_CONTROL_BYTES,
        *,
        deadline_s: float | None = None,
    ) -> memoryview:
        """Give the payload of one worker to all.

        Args:
            sequence: number of the call; grows with every one.
            payload: on the root; None on the others.
            root: the rank of who has it.
            max_bytes: more are refused.
            deadline_s: replaces the usual one, in seconds.

        Returns:
            the payload, on every worker: on the root the very memory that it gave, which must not change.

        Raises:
            CollectiveError: the call failed, on this worker at least; ProtocolError if the payload is too large.
            ValueError: the arguments contradict each other, or this worker's payload is too large.
        """
        with self._calling(sequence) as call:
            if not 0 <= root < self.num_workers:
                raise ValueError(f"root must be a rank below {self.num_workers}, got {root}")
            if (payload is not None) != (self.rank == root):
                raise ValueError(f"worker {root} is the root: it alone brings a payload (this is worker {self.rank})")
            if payload is not None and len(payload) > max_bytes:
                raise ValueError(f"the payload has {len(payload)} bytes, max_bytes is {max_bytes}")
            return self._broadcast(call, payload, root, max_bytes, deadline_s)

    def abort(self, reason: str) -> None:
        """Make a blocked call raise Aborted now, and every later call too. May be called from any thread."""
        self._ended = self._ended or reason

    def close(self) -> None:
        """Give up all connections; not while another thread is in a call (abort that one first)."""
        self._end(Call(self.rank, self.generation, self._last_sequence), "the worker closed its connections")

    def statistics(self) -> CollectiveStatistics:
        """Return counters since the collective was made."""
        return CollectiveStatistics(calls=self._num_calls)

    @contextlib.contextmanager
    def _calling(self, sequence: int) -> Iterator[Call]:
        """Make a call in the block, if the collective is still alive; whatever the block raises ends it."""
        call = Call(self.rank, self.generation, sequence)
        try:
            if self._ended is not None:
                raise Aborted(call, self._ended)
            if sequence < 0 or (self._last_sequence is not None and sequence <= self._last_sequence):
                raise ValueError(f"sequence must grow with every call: got {sequence} after {self._last_sequence}")
            self._last_sequence = sequence
            yield call
        except BaseException as error:
            self._end(call, f"{type(error).__name__}: {error}")
            raise
        self._num_calls += 1

    @abstractmethod
    def _all_reduce(
        self,
        call: Call,
        nodes: Mapping[Node, Vector],
        spec: SumSpec,
        out: Vector | None,
        deadline_s: float | None,
    ) -> Vector:
        """See `all_reduce`; the arguments fit each other."""

    @abstractmethod
    def _broadcast(
        self, call: Call, payload: bytes | memoryview | None, root: int, max_bytes: int, deadline_s: float | None
    ) -> memoryview:
        """See `broadcast`; the arguments fit each other."""

    def _end(self, call: Call, reason: str) -> None:
        """Give up the connections, if that has not happened yet: in a call, or after one."""
        self._ended = self._ended or f"it has ended before: {reason}"


class Alone(Collective):
    """The collective of a group of one: everything is local."""

    def __init__(self, *, generation: int = 0) -> None:
        super().__init__(rank=0, num_workers=1, generation=generation)

    def _all_reduce(
        self,
        call: Call,
        nodes: Mapping[Node, Vector],
        spec: SumSpec,
        out: Vector | None,
        deadline_s: float | None,
    ) -> Vector:
        if len(nodes) == 1:
            (vector,) = nodes.values()
            if not any(bucket.flags.writeable and bucket.size for bucket in vector):
                return vector
        num_covered = max(((index + 1) << level for level, index in nodes), default=1)  # whose tree has these in full
        return reduce_nodes(nodes, spec.ops, num_covered, out)

    def _broadcast(
        self, call: Call, payload: bytes | memoryview | None, root: int, max_bytes: int, deadline_s: float | None
    ) -> memoryview:
        return memoryview(payload or b"")
