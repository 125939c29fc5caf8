"""One all-reduce through TensorFlow's collectives: what goes into the calls and comes out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from heliostat.cluster import instruments
from heliostat.cluster.tree import Node, Vector, fold, num_covered, reduce_nodes, schedule
from ml_dtypes import bfloat16

from ..engine.tensors import HOST, host_view
from .bundles import Bundle
from .tensorflow_cluster import TensorFlowCluster


class Carrier:
    """The calls of one generation of workers, which all make them in the same order.

    TensorFlow gives every worker a place that it does not tell; a first all-gather of their ranks finds it out. A first
    all-to-all finds out whether that brings what it should: TensorFlow's over NCCL counts the devices of a process
    instead of all in the group. If not, nodes are carried by an all-gather, which brings everybody all of them.

    Args:
        cluster: which this process has joined, as all others have.
        rank: of this worker.
        num_workers: of the group.
        group_key: the same on all workers, and another than that of the last group.

    Raises:
        tf.errors.OpError: as every call does, if a worker is lost, or the cluster's collectives are aborted. There is
            no deadline: who calls must abort them.
    """

    def __init__(self, cluster: TensorFlowCluster, rank: int, num_workers: int, group_key: int) -> None:
        self._cluster, self._rank = cluster, rank
        self._group = {"group_size": num_workers, "group_key": group_key}
        self._keys: dict[Any, int] = {}
        self._add = tf.function(tf.add, autograph=False, jit_compile=True)
        with tf.device(cluster.device):
            ranks = self._gather(tf.constant([float(rank)]))
        self._ranks = [int(each) for each in ranks.numpy()]
        self._places = [self._ranks.index(each) for each in range(num_workers)]
        self._delivers = self._try_all_to_all()

    def all_reduce(
        self,
        bundle: Bundle,
        nodes: Mapping[Node, Vector],
        expected: Sequence[Sequence[Node]],
        out: Vector,
    ) -> int:
        """Sum the segments of a bundle into `out`; returns how many bytes this worker has sent."""
        with tf.device(self._cluster.device):
            own = [self._packed(bundle, nodes[node]) for node in expected[self._rank]]
            nothing = np.zeros((len(self._ranks), bundle.slice_length), _carried(bundle))
            own += [tf.constant(nothing)] * (max(map(len, expected)) - len(own))
            sent = tf.stack(own, axis=1)
            del own
            received = self._exchanged(sent)
            instruments.fault_point("carrying")
            total = self._summed(bundle, received, expected)
            gathered = self._gather(total[tf.newaxis])
            self._unpack(bundle, tf.gather(gathered, self._places), out)
        one_share = _num_bytes(sent) // (len(self._ranks) if self._delivers else 1)
        return (len(self._ranks) - 1) * (one_share + _num_bytes(total))

    def _try_all_to_all(self) -> bool:
        """Whether an all-to-all brings all workers what was sent to them."""
        num_workers = len(self._ranks)
        with tf.device(self._cluster.device):
            received = self._all_to_all(tf.constant([[[float(self._rank * num_workers + to)]] for to in self._ranks]))
            wanted = [self._rank + each * num_workers for each in self._ranks]
            right = [int(each) for each in received.numpy().reshape(-1)] == wanted
            return bool(self._gather(tf.constant([float(right)])).numpy().all())

    def _exchanged(self, sent: Any) -> Any:
        """What all workers ``[place, ...]`` have sent to this one."""
        if self._delivers:
            return self._all_to_all(sent)
        return self._gather(sent[tf.newaxis])[:, self._places[self._rank]]

    def _packed(self, bundle: Bundle, vector: Vector) -> Any:
        """A node's segments as ``[place, slice]``, each worker's slice at its place."""
        segments = [_as_carried(bundle, vector[number]) for number in bundle.numbers]
        segments.append(np.zeros(bundle.padding, _carried(bundle)))
        return tf.gather(tf.reshape(tf.concat(segments, 0), (len(self._ranks), bundle.slice_length)), self._ranks)

    def _summed(self, bundle: Bundle, received: Any, expected: Sequence[Sequence[Node]]) -> Any:
        """The nodes ``[place, number of the node, slice]`` added in tree order.

        On GPUs by XLA, which keeps denormal numbers there; on the host by numpy, because TensorFlow's kernels do not.
        """
        where = {
            node: (self._places[rank], at) for rank, brought in enumerate(expected) for at, node in enumerate(brought)
        }
        if self._cluster.adds and not bundle.in_bfloat16:
            return fold(schedule(tuple(where)), [received[at] for at in where.values()], self._add)
        array = _on_host(received)
        found = {node: (_as_summed(bundle, array[at]),) for node, at in where.items()}
        (total,) = reduce_nodes(found, (bundle.op,), num_covered(found))
        return tf.constant(_as_carried(bundle, total))

    def _unpack(self, bundle: Bundle, slices: Any, out: Vector) -> None:
        array, at = _on_host(slices).reshape(-1), 0
        for number, length in zip(bundle.numbers, bundle.lengths, strict=True):
            np.copyto(out[number], _as_summed(bundle, array[at : at + length]))
            at += length

    def _all_to_all(self, tensor: Any) -> Any:
        return tf.raw_ops.CollectiveAllToAllV2(input=tensor, ordering_token=[], **self._call("all-to-all", tensor))

    def _gather(self, tensor: Any) -> Any:
        return tf.raw_ops.CollectiveGatherV2(input=tensor, ordering_token=[], **self._call("gather", tensor))

    def _call(self, kind: str, tensor: Any) -> dict[str, Any]:
        """The arguments of a call; TensorFlow wants a key of its own for every kind and shape."""
        key = self._keys.setdefault((kind, tuple(tensor.shape), tensor.dtype), len(self._keys) + 1)
        hint = "NCCL" if self._cluster.uses_nccl else "RING"
        return {
            "instance_key": key,
            "communication_hint": hint,
            # A timeout of TensorFlow's keeps what belongs to the call, 18 KB, until its time is over, so we set none.
            "timeout_seconds": 0.0,
            **self._group,
        }


def _carried(bundle: Bundle) -> np.dtype:
    """The dtype that travels; of bfloat16 the bits do, as float16, which all of TensorFlow's collectives take."""
    return np.dtype(np.float16) if bundle.in_bfloat16 else bundle.dtype


def _as_carried(bundle: Bundle, array: np.ndarray) -> np.ndarray:
    """Numbers as they travel; those that are rounded to bfloat16 in its bits."""
    return array.astype(bfloat16).view(np.float16) if bundle.in_bfloat16 else array


def _as_summed(bundle: Bundle, array: np.ndarray) -> np.ndarray:
    """The opposite of `_as_carried`."""
    return array.view(bfloat16).astype(np.float32) if bundle.in_bfloat16 else array


def _on_host(tensor: Any) -> np.ndarray:
    with tf.device(HOST):
        return host_view(tf.identity(tensor)).reshape(tensor.shape)


def _num_bytes(tensor: Any) -> int:
    return int(tensor.shape.num_elements() * tensor.dtype.size)
