"""The seam between the step and whatever connects the workers: `Collective`, and `Alone` for a single worker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import Aborted, Call
from ..tree import BucketOp, Layout, Node, Vector, check_vectors, reduce_nodes

MAX_CONTROL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveStatistics:
    """What a collective has done since it was made; times in seconds, of the calling thread.

    `bytes_shared` of `bytes_sent` went through memory shared with workers of the same host.
    """

    calls: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    bytes_shared: int = 0
    wait_s: float = 0.0
    reduce_s: float = 0.0


class Collective(ABC):
    """The calls that all workers of one generation make together, in the same order and with the same numbers.

    Calls come from one thread; `abort` may come from any. A call that raises has ended the collective: it closes its
    connections, so that the others notice at once, and every later call raises again. A worker that stops for a reason
    of its own must call `close`.
    """

    rank: int
    num_workers: int
    generation: int

    @abstractmethod
    def all_reduce(
        self,
        sequence: int,
        nodes: Mapping[Node, Vector],
        expected: Sequence[Sequence[Node]],
        like: Layout,
        *,
        ops: Sequence[BucketOp],
        out: Vector | None = None,
        deadline_s: float | None = None,
    ) -> Vector:
        """Sum the partial sums of all workers in tree order; the same bits on every worker.

        `sequence` grows with every call. `nodes` are this worker's partial sums, which are only read; `expected[rank]`
        names those of every worker, `like` the dtype and length of each bucket, `ops` its operation; all three are
        the same on all workers. The result is written to `out` if given, which must not overlap `nodes` and is
        undefined if the call raises; it may be one of `nodes` without `out`, or if that is the only one and read-only.
        `deadline_s` replaces the usual one. Raises CollectiveError; ValueError if the arguments contradict each other.
        """

    @abstractmethod
    def broadcast(
        self,
        sequence: int,
        payload: bytes | None,
        root: int = 0,
        max_bytes: int = MAX_CONTROL_BYTES,
        *,
        deadline_s: float | None = None,
    ) -> bytes:
        """Return the payload of worker `root` on every worker; the others pass None.

        More than `max_bytes` are refused, by the root with ValueError and by the others with ProtocolError.
        """

    @abstractmethod
    def abort(self, reason: str) -> None:
        """Make a blocked call raise Aborted now, and every later call too. May be called from any thread."""

    @abstractmethod
    def close(self) -> None:
        """Give up all connections; may be called again."""

    @abstractmethod
    def statistics(self) -> CollectiveStatistics:
        """Return counters since the collective was made."""


def check_own(
    rank: int,
    nodes: Mapping[Node, Vector],
    expected: Sequence[Node],
    like: Layout,
    ops: Sequence[BucketOp],
    out: Vector | None,
) -> None:
    """Raise ValueError unless a worker brings the nodes expected of it, and vectors of the right layout."""
    if set(nodes) != set(expected):
        raise ValueError(f"worker {rank} should bring nodes {tuple(expected)}, it has {tuple(nodes)}")
    check_vectors([*nodes.values(), *([] if out is None else [out])], like, ops)
    if out is not None and not all(bucket.flags.writeable for bucket in out):
        raise ValueError("out must be writable")


class Alone(Collective):
    """The collective of a group of one: everything is local."""

    def __init__(self, *, generation: int = 0) -> None:
        self.rank, self.num_workers, self.generation = 0, 1, generation
        self._calls = 0
        self._last_sequence: int | None = None
        self._abort_reason: str | None = None

    def all_reduce(
        self,
        sequence: int,
        nodes: Mapping[Node, Vector],
        expected: Sequence[Sequence[Node]],
        like: Layout,
        *,
        ops: Sequence[BucketOp],
        out: Vector | None = None,
        deadline_s: float | None = None,
    ) -> Vector:
        """Sum this worker's nodes (`Collective.all_reduce`); a single one that nobody may write to is the result."""
        self._begin(sequence)
        if len(expected) != 1:
            raise ValueError(f"expected names {len(expected)} workers, this group has one")
        check_own(0, nodes, expected[0], like, ops, out)
        if len(nodes) == 1:
            (vector,) = nodes.values()
            if not any(bucket.flags.writeable and bucket.size for bucket in vector):
                return vector
        num_covered = max(((index + 1) << level for level, index in nodes), default=1)  # whose tree has these in full
        return reduce_nodes(nodes, ops, num_covered, out)

    def broadcast(
        self,
        sequence: int,
        payload: bytes | None,
        root: int = 0,
        max_bytes: int = MAX_CONTROL_BYTES,
        *,
        deadline_s: float | None = None,
    ) -> bytes:
        """Return the payload (`Collective.broadcast`)."""
        self._begin(sequence)
        check_payload(self, payload, root, max_bytes)
        return bytes(payload or b"")

    def abort(self, reason: str) -> None:
        """Make every later call raise Aborted."""
        self._abort_reason = reason

    def close(self) -> None:
        """Make every later call raise Aborted."""
        self._abort_reason = self._abort_reason or "the collective is closed"

    def statistics(self) -> CollectiveStatistics:
        """Return the number of calls; nothing was sent."""
        return CollectiveStatistics(calls=self._calls)

    def _begin(self, sequence: int) -> None:
        if self._abort_reason is not None:
            raise Aborted(Call(0, self.generation, sequence), self._abort_reason)
        check_sequence(sequence, self._last_sequence)
        self._last_sequence = sequence
        self._calls += 1


def check_sequence(sequence: int, last: int | None) -> None:
    """Raise ValueError unless the number of a call is larger than that of the one before."""
    if sequence < 0 or (last is not None and sequence <= last):
        raise ValueError(f"sequence must grow with every call: got {sequence} after {last}")


def check_payload(collective: Collective, payload: bytes | None, root: int, max_bytes: int) -> None:
    """Raise ValueError unless exactly the root brings a payload, and one of allowed size."""
    if not 0 <= root < collective.num_workers:
        raise ValueError(f"root must be a rank below {collective.num_workers}, got {root}")
    if (payload is not None) != (collective.rank == root):
        raise ValueError(f"worker {root} is the root: it alone brings a payload (this is worker {collective.rank})")
    if payload is not None and len(payload) > max_bytes:
        raise ValueError(f"the payload has {len(payload)} bytes, max_bytes is {max_bytes}")
