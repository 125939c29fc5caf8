"""Adding up what the GPUs of a worker computed at the same time, on the GPUs.

The replicas' gradients are added pair by pair along the tree, each addition on the device of its left operand, so a
gradient crosses between GPUs and not through the host, and a sum is copied to the host instead of one vector per GPU.
XLA compiles the additions, because it keeps denormal numbers on GPUs, as numpy does; TensorFlow's own kernels turn them
into zero. On CPU devices both do, so there the host adds; the tests let logical CPU devices take this way all the same.

The copy to the host is made inside the graph, because TensorFlow then brings it to page-locked memory; a sum on its way
back lies in such memory too (`tensors.memory_towards`), so neither takes a detour. Metric sums, a few numbers in
float64, are added on the host. During an addition its device holds three vectors of the gradient's size. With more than
one replica the gradient function is traced without automatic control dependencies: they put an identity on the first
device behind every result, over which those of the others would travel.

What was not done: NCCL's own all-reduce, which adds in an order of its own. The tree needs log2(R) transfers of the
vector one after the other, which NVLink does in milliseconds. **None of this has been run on a GPU.**
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from heliostat.cluster.tree import Additions, Node, additions_of, fold, node_range, nodes_of
from heliostat.cluster.vectors import BucketOp, Vector, reduce_nodes

from .private_api import NO_CONTROL_DEPENDENCIES
from .tensors import CPU, HostViews

FLOAT, SHORT = slice(None, -2), slice(-2, None)


class ReplicaSum:
    """Sums of microbatches that were computed at the same time, one on each device.

    Args:
        devices: device names, one per replica.
        num_microbatches: of a step.
        ops: of each bucket of a vector; the float ones are summed on the devices, the last two, which are short, on the
            host.
        views: gives what is copied to the host as arrays.
    """

    def __init__(
        self, devices: Sequence[str], num_microbatches: int, ops: Sequence[BucketOp], views: HostViews
    ) -> None:
        self._devices, self._num_microbatches = tuple(devices), num_microbatches
        self._short_ops, self._views = tuple(ops[SHORT]), views
        self._functions: dict[tuple[tuple[int, Additions], ...], tf.types.experimental.PolymorphicFunction] = {}
        self._add = tf.function(tf.add, autograph=False, jit_compile=True)

    def __call__(self, indices: Sequence[int], outputs: Sequence[Sequence[tf.Tensor]]) -> list[tuple[Node, Vector]]:
        """Partial sums of the microbatches `indices`, ascending: one per maximal node of the tree among them.

        Args:
            indices: replica i computed microbatch indices[i]; replicas beyond them are left out.
            outputs: of every replica its vector, as tensors on its device.
        """
        found = nodes_among(indices, self._num_microbatches)
        key = tuple((len(each), additions_of(tuple((0, index) for index in each))) for _, each in found)
        if key not in self._functions:
            self._functions[key] = self._make(key)
        here = outputs[: len(indices)]
        sums, copies, rest = self._functions[key](
            [list(each[FLOAT]) for each in here], [list(each[SHORT]) for each in here]
        )
        short = {(0, index): tuple(map(self._views.of, others)) for index, others in zip(indices, rest, strict=True)}
        partials = []
        for (node, each), totals, copied in zip(found, sums, copies, strict=True):
            added = reduce_nodes(
                {(0, index): short[0, index] for index in each}, self._short_ops, self._num_microbatches
            )
            for bucket in added:
                bucket.flags.writeable = False  # as the copies are: a vector is one or the other
            floats = [self._views.of(copy, stands_for=total) for copy, total in zip(copied, totals, strict=True)]
            partials.append((node, (*floats, *added)))
        return partials

    def _make(self, groups: tuple[tuple[int, Additions], ...]) -> tf.types.experimental.PolymorphicFunction:
        """The function that adds float buckets: gives their sums, copies of these on the host, and the others' too."""

        @tf.function(autograph=False, experimental_attributes=NO_CONTROL_DEPENDENCIES)
        def add_up(vectors: list[list[tf.Tensor]], rest: list[list[tf.Tensor]]) -> tuple[list[list[tf.Tensor]], ...]:
            sums, at = [], 0
            for count, additions in groups:
                by_bucket = zip(*vectors[at : at + count], strict=True)
                devices = self._devices[at : at + count]
                sums.append([self._added(buckets, devices, additions) for buckets in by_bucket])
                at += count
            with tf.device(CPU):
                return sums, *tf.nest.map_structure(tf.identity, (sums, rest))

        return add_up

    def _added(self, vectors: Sequence[tf.Tensor], devices: Sequence[str], additions: Additions) -> tf.Tensor:
        def add(left: tuple[tf.Tensor, str], right: tuple[tf.Tensor, str]) -> tuple[tf.Tensor, str]:
            value, device = left
            with tf.device(device):
                return self._add(value, right[0]), device

        return fold(additions, list(zip(vectors, devices, strict=True)), add)[0]


def nodes_among(indices: Sequence[int], num_microbatches: int) -> list[tuple[Node, tuple[int, ...]]]:
    """The maximal nodes of the tree between the first and the last of these microbatches, each with those in it.

    `indices` are ascending, and all that are present between them.
    """
    found = []
    for node in nodes_of(indices[0], indices[-1] + 1, num_microbatches):
        lo, hi = node_range(node, num_microbatches)
        each = tuple(index for index in indices if lo <= index < hi)
        if each:
            found.append((node, each))
    return found
