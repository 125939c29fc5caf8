"""The all-reduce through TensorFlow's collectives: NCCL between GPUs, gRPC between processors, and the same bits.

TensorFlow's own all-reduce adds in an order of its own. So it only carries here: an all-to-all brings every worker the
others' nodes for its slice, they are added in tree order, and an all-gather brings everybody the sums: the bytes of a
ring, 2 (P - 1) / P of the vector, as long as every worker has one node.

The connections of the group stay. Short segments are summed over them first, which waits for everybody and says who is
missing; broadcasts are made over them. A collective that hangs is aborted when the driver says so, or at a deadline.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf
from heliostat.cluster.allreduce.collective import (
    MAX_CONTROL_BYTES,
    Collective,
    CollectiveStatistics,
    check_own,
    check_sequence,
)
from heliostat.cluster.errors import Aborted
from heliostat.cluster.tree import Layout, Node, SegmentOp, Vector, empty_vector

from ..errors import RuntimeSetupError
from .bundles import Bundle, bundles_of
from .carrying import Carrier
from .tensorflow_cluster import TensorFlowCluster

# A cluster of the same members that fails so often, without one call between that succeeds, will not get better.
_MAX_FAILURES = 3
DEADLINE_S = 300.0
# What a deadline grows by, because TensorFlow does not tell whether bytes move.
_SLOWEST_BYTES_PER_S = 1e6
# The first calls: all workers are there, but NCCL has to find its ways.
FORM_S = 60.0
# Failures that another generation does not mend.
_LASTING = (tf.errors.ResourceExhaustedError, tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)


class TensorFlowCollective(Collective):
    """All-reduces through TensorFlow beside the connections of a generation.

    Args:
        connections: the group's own collective.
        cluster: this process's place among TensorFlow's tasks.
        host: address at which the other workers reach this one.
        settle: returns when no other thread of ours is inside TensorFlow, nor will be before this worker's next step.
        min_bytes: segments that are shorter take the connections.
    """

    def __init__(
        self,
        connections: Collective,
        cluster: TensorFlowCluster,
        host: str,
        *,
        settle: Callable[[], None] = lambda: None,
        min_bytes: int = 1 << 16,
    ) -> None:
        self.rank, self.num_workers = connections.rank, connections.num_workers
        self.generation = connections.generation
        self._connections, self._cluster, self._host = connections, cluster, host
        self._settle, self._min_bytes = settle, min_bytes
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
            RuntimeSetupError: TensorFlow has failed several times in a row between the same workers, or for good.
        """
        self._begin(sequence)
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
        self._begin(sequence)
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
                group_key = self._join(deadline_s)
                with self._cluster.limited(FORM_S):
                    self._carrier = Carrier(self._cluster, self.rank, self.num_workers, group_key)
            num_bytes = sum(bundle.num_bytes for bundle in bundles)
            with self._cluster.limited((deadline_s or DEADLINE_S) + num_bytes / _SLOWEST_BYTES_PER_S):
                for bundle in bundles:
                    self._raise_if_aborted(sequence)
                    self._bytes_carried += self._carrier.all_reduce(bundle, nodes, expected, out)
            self._cluster.num_failures = 0
        except tf.errors.OpError as error:
            self.close()
            self._cluster.intact = False
            self._raise_if_aborted(sequence)
            raise self._failure(sequence, error) from error

    def _join(self, deadline_s: float | None) -> int:
        """Form TensorFlow's cluster of this generation, all workers at the same call; returns the group's key.

        One between the same members that nothing has happened to is kept. Otherwise everybody leaves the last one, then
        joins, then calls: each time all wait for all.
        """
        cluster = self._cluster
        cluster.serve(self.generation)
        own = f"{self._host}:{cluster.port} {cluster.task} {secrets.randbelow(1 << 30)}"
        found = [said.split() for said in self._say(own, deadline_s)]
        members = {int(each[1]): each[0] for each in found}
        if len(members) < self.num_workers:
            raise RuntimeSetupError(f"Two workers have drawn the same number for TensorFlow's cluster: {found}.")
        leader, group_key = int(found[0][1]), int(found[0][2])
        kept = self._say("keep" if cluster.members == members and cluster.intact else "change", deadline_s)
        if set(kept) != {"keep"}:
            cluster.leave()
            self._say("left", deadline_s)
            self._settle()
            cluster.join(members, leader)
            self._say("joined", deadline_s)
        return group_key

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

    def _begin(self, sequence: int) -> None:
        check_sequence(sequence, self._last_sequence)
        self._last_sequence = sequence

    def _next_call(self) -> int:
        """Calls over the connections have numbers of their own: there are more of them."""
        self._num_calls += 1
        return self._num_calls

    def _raise_if_aborted(self, sequence: int) -> None:
        if self._abort_reason is not None:
            raise Aborted(rank=self.rank, generation=self.generation, sequence=sequence, reason=self._abort_reason)

    def _failure(self, sequence: int, error: tf.errors.OpError) -> Exception:
        """What a failure of TensorFlow's means: usually that a worker is gone, which the driver will know."""
        reason = _reason(error)
        if isinstance(error, _LASTING):
            return RuntimeSetupError(
                f"TensorFlow's collectives cannot carry the gradients of this model: {reason}. Leave out "
                "all_reduce='tensorflow'."
            )
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
