"""The all-reduce through TensorFlow's collectives: NCCL between GPUs, gRPC between processors, and the same bits.

TensorFlow's own all-reduce adds in an order of its own. So it only carries here: an all-to-all brings every worker the
others' nodes for its slice, they are added in tree order, and an all-gather brings everybody the sums: the bytes of a
ring, 2 (P - 1) / P of the vector, as long as every worker has one node.

The connections of the group stay. Short segments are summed over them first, which waits for everybody and says who is
missing; broadcasts are made over them. A collective that hangs meanwhile is aborted when the driver says so.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf
from heliostat.cluster.collective import (
    MAX_CONTROL_BYTES,
    Collective,
    CollectiveStatistics,
    check_own,
    check_sequence,
)
from heliostat.cluster.errors import Aborted
from heliostat.cluster.tree import Layout, Node, SegmentOp, Vector, empty_vector

from .bundles import Bundle, bundles_of
from .carrying import Carrier
from .errors import RuntimeSetupError
from .tensorflow_cluster import TensorFlowCluster

# A cluster of the same members that fails so often, without one call between that succeeds, will not get better.
_MAX_FAILURES = 3
DEADLINE_S = 300.0
# The first call: all workers are there, but NCCL has to find its ways.
FORM_S = 60.0


class TensorFlowCollective(Collective):
    """All-reduces through TensorFlow beside the connections of a generation.

    Args:
        connections: the group's own collective.
        cluster: this process's place among TensorFlow's tasks.
        host: address at which the other workers reach this one.
        min_bytes: segments that are shorter take the connections.
    """

    def __init__(
        self, connections: Collective, cluster: TensorFlowCluster, host: str, *, min_bytes: int = 1 << 16
    ) -> None:
        self.rank, self.num_workers = connections.rank, connections.num_workers
        self.generation = connections.generation
        self._connections, self._cluster, self._host = connections, cluster, host
        self._min_bytes = min_bytes
        self._last_sequence: int | None = None
        self._num_calls = 0
        self._abort_reason: str | None = None
        self._carrier: Carrier | None = None
        self._plan: tuple[Any, Sequence[int], Sequence[Bundle]] | None = None
        self._bytes_carried = 0

    def all_reduce(
        self,
        sequence: int,
        nodes: Mapping[Node, Vector],
        expected: Sequence[Sequence[Node]],
        like: Layout,
        *,
        ops: Sequence[SegmentOp],
        out: Vector | None = None,
        deadline_s: float | None = None,
    ) -> Vector:
        """Sum all workers' nodes, long segments through TensorFlow (`Collective.all_reduce`).

        Raises:
            CollectiveError: a worker or TensorFlow failed; the next generation may do better.
            RuntimeSetupError: TensorFlow has failed several times in a row between the same workers.
        """
        check_sequence(sequence, self._last_sequence)
        self._last_sequence = sequence
        check_own(self.rank, nodes, expected[self.rank], like, ops, out)
        short, bundles = self._planned(tuple(like), tuple(ops))
        result = empty_vector(like) if out is None else out

        def some(vector: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(vector[number] for number in short)

        if short:
            self._connections.all_reduce(
                self._next_call(),
                {node: some(vector) for node, vector in nodes.items()},
                expected,
                some(like),
                ops=some(ops),
                out=some(result),
                deadline_s=deadline_s,
            )
        if bundles:
            self._carry(sequence, bundles, nodes, expected, result, deadline_s)
        return result

    def broadcast(
        self,
        sequence: int,
        payload: bytes | None,
        root: int = 0,
        max_bytes: int = MAX_CONTROL_BYTES,
        *,
        deadline_s: float | None = None,
    ) -> bytes:
        """Over the connections (`Collective.broadcast`)."""
        check_sequence(sequence, self._last_sequence)
        self._last_sequence = sequence
        return self._connections.broadcast(self._next_call(), payload, root, max_bytes, deadline_s=deadline_s)

    def abort(self, reason: str) -> None:
        """Make a blocked call raise Aborted now, over the connections or in TensorFlow."""
        self._abort_reason = reason
        self._connections.abort(reason)
        self._cluster.abort(self.generation, reason)

    def close(self) -> None:
        """Give up the connections; the other workers notice at once."""
        self._connections.close()

    def statistics(self) -> CollectiveStatistics:
        """Return the connections' counters, and the bytes that TensorFlow carried; its waiting is not told apart."""
        counted = self._connections.statistics()
        return replace(
            counted,
            bytes_sent=counted.bytes_sent + self._bytes_carried,
            bytes_received=counted.bytes_received + self._bytes_carried,
        )

    def _carry(
        self,
        sequence: int,
        bundles: Sequence[Bundle],
        nodes: Mapping[Node, Vector],
        expected: Sequence[Sequence[Node]],
        out: Vector,
        deadline_s: float | None,
    ) -> None:
        try:
            if self._carrier is None:
                self._join(deadline_s)
                with self._limited(FORM_S):
                    self._carrier = Carrier(self._cluster, self.rank, self.num_workers, self.generation)
            with self._limited(deadline_s or DEADLINE_S):
                for bundle in bundles:
                    self._raise_if_aborted(sequence)
                    self._bytes_carried += self._carrier.all_reduce(bundle, nodes, expected, out)
            self._cluster.num_failures = 0
        except tf.errors.OpError as error:
            self.close()
            self._raise_if_aborted(sequence)
            raise self._failure(sequence, _reason(error)) from error

    @contextlib.contextmanager
    def _limited(self, limit_s: float) -> Iterator[None]:
        """Abort what TensorFlow does in the block when it takes longer."""
        reason = f"not done within {limit_s:g} s"
        timer = threading.Timer(limit_s, self._cluster.abort, (self.generation, reason))
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _join(self, deadline_s: float | None) -> None:
        """Form TensorFlow's cluster of this generation, all workers at the same call.

        Everybody has left the last cluster when all addresses are known, and has joined this one when all have said so.
        """
        self._cluster.leave()
        own = f"{self._host}:{self._cluster.port} {self._cluster.task}"
        found = [said.split() for said in self._say(own, deadline_s)]
        members = {int(task): address for address, task in found}
        if len(members) < self.num_workers:
            raise RuntimeSetupError(f"Two workers have drawn the same number for TensorFlow's cluster: {found}.")
        self._cluster.join(self.generation, members, leader=int(found[0][1]))
        self._say("joined", deadline_s)

    def _say(self, what: str, deadline_s: float | None) -> list[str]:
        """Tell all workers, and hear what each of them says."""
        return [
            self._connections.broadcast(
                self._next_call(), what.encode() if root == self.rank else None, root, deadline_s=deadline_s
            ).decode()
            for root in range(self.num_workers)
        ]

    def _planned(self, like: Layout, ops: tuple[SegmentOp, ...]) -> tuple[Sequence[int], Sequence[Bundle]]:
        if self._plan is None or self._plan[0] != (like, ops):
            bundles = bundles_of(like, ops, self.num_workers, self._min_bytes)
            carried = {number for bundle in bundles for number in bundle.numbers}
            self._plan = (like, ops), [n for n in range(len(like)) if n not in carried], bundles
        return self._plan[1:]

    def _next_call(self) -> int:
        """Calls over the connections have numbers of their own: there are more of them."""
        self._num_calls += 1
        return self._num_calls

    def _raise_if_aborted(self, sequence: int) -> None:
        if self._abort_reason is not None:
            raise Aborted(rank=self.rank, generation=self.generation, sequence=sequence, reason=self._abort_reason)

    def _failure(self, sequence: int, reason: str) -> Exception:
        """What a failure of TensorFlow's means: usually that a worker is gone, which the driver will know."""
        self._cluster.num_failures += 1
        if self._cluster.num_failures >= _MAX_FAILURES:
            return RuntimeSetupError(
                f"TensorFlow's collectives failed {_MAX_FAILURES} times in a row between the same workers, at "
                f"last with: {reason}. Look whether the workers reach each other's ports (this one listens at "
                f"{self._host}:{self._cluster.port}), and with GPUs at what NCCL says with NCCL_DEBUG=INFO; or leave "
                "out all_reduce='tensorflow'."
            )
        return Aborted(
            rank=self.rank, generation=self.generation, sequence=sequence, reason=f"TensorFlow's collectives: {reason}"
        )


def _reason(error: tf.errors.OpError) -> str:
    """What TensorFlow says, without the node and the advice around it."""
    text = " ".join(error.message.split())
    text = re.sub(r"^{{.*?}} |Collective ops is aborted by: | \[Op:.*", "", text)
    return text.split(" The error could be from a previous operation")[0].rstrip(". ")
