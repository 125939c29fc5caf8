"""The traced function of one phase: rows, weights and seeds of a microbatch on every replica in, vectors out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from heliostat.cluster.vectors import Vector

from .layout import VectorLayout
from .per_replica import PerReplica
from .tensors import HostViews, copied_to_tensor

ReplicaInput = tuple[Mapping[str, tf.Tensor], np.ndarray, np.ndarray]
"""A microbatch: its rows by column, its weights (float64 ``[4]``, see `microbatch_weights`; ``[5]`` for a phase of
several) and its seeds (int64 ``[generators, 2]``, see `microbatch_seeds`)."""


class PhaseFunction:
    """The traced function of one phase.

    Args:
        per_replica: computes it.
        names: of the columns that it takes, in order.
        layout: of the vector that it gives.
        num_weights: that it takes.

    Attributes:
        layout: see above; likewise `num_weights`.
        views: knows the tensors behind the vectors of the last call.
    """

    def __init__(
        self, per_replica: PerReplica, names: Sequence[str], layout: VectorLayout, *, num_weights: int
    ) -> None:
        self._per_replica, self._names = per_replica, tuple(names)
        self.layout, self.num_weights, self.views = layout, num_weights, HostViews()

    @property
    def graph(self) -> tf.Graph:
        """What was traced."""
        return self._per_replica.graph

    def __call__(self, replica_inputs: Sequence[ReplicaInput]) -> list[Vector]:
        """Compute one microbatch on every replica.

        Args:
            replica_inputs: one microbatch per replica.

        Returns:
            per replica the vector of its microbatch; buckets may be read-only views of TensorFlow's memory, which lives
            as long as they do.
        """
        outputs = self.on_devices(replica_inputs)
        return [tuple(map(self.views.of, vector)) for vector in outputs]

    def on_devices(self, replica_inputs: Sequence[ReplicaInput]) -> list[list[tf.Tensor]]:
        """As a call, but what it returns are tensors, on the replicas' devices."""
        arguments = [
            ([batch[name] for name in self._names], copied_to_tensor(weights), copied_to_tensor(seeds))
            for batch, weights, seeds in replica_inputs
        ]
        self.views.forget()
        return self._per_replica(arguments)
