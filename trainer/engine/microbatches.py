"""Microbatches of a pass: their rows, their seeds, and what the traced function makes of them.

What training and evaluation share. A microbatch is the same computation wherever it runs: the same rows, the same
shapes, the same random seeds, one traced graph. As many as there are replicas are computed at a time, one on each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from heliostat.cluster import instruments
from heliostat.cluster.assignment import Range
from heliostat.cluster.tree import Node
from heliostat.cluster.vectors import Vector

from ..errors import UnsupportedModelError
from .feed import Feed, Microbatch
from .gradients import GradientFunction
from .layout import microbatch_seeds, split_by_variable
from .model import BuiltModel
from .phase_function import ReplicaInput
from .replica_sum import ReplicaSum
from .tensors import all_finite
from .times import TimeSplit


class Microbatches:
    """Computes microbatches of a pass.

    Args:
        built: the model.
        gradients: the traced functions of the step.
        feed: where rows come from.
        seed: seed of the run.
        phase: number of the phase that is computed.

    Attributes:
        function: the traced function of the phase.
        times: where the time goes; those of other phases may share it.
        draws_alike: whether all microbatches draw the random numbers of the first (to be held against plain Keras).
    """

    def __init__(self, built: BuiltModel, gradients: GradientFunction, feed: Feed, seed: int, phase: int = 0) -> None:
        self.built, self.gradients, self.feed, self.seed = built, gradients, feed, seed
        self.function = gradients.phases[phase]
        self.num_replicas = built.strategy.num_replicas_in_sync
        self.times = TimeSplit()
        self.draws_alike = False

    def of_phase(self, phase: int) -> Microbatches:
        """The same microbatches, as another phase of the step computes them."""
        return self if phase == 0 else Microbatches(self.built, self.gradients, self.feed, self.seed, phase)

    def read(self, step: int, indices: Sequence[int]) -> list[Microbatch]:
        """The rows of the microbatches `indices` of a step of the pass; those without rows are left out."""
        with self.times.part("input"):
            return self.feed.read(step, indices)

    def computed(
        self, microbatches: Sequence[Microbatch], seed_step: int, replica_sum: ReplicaSum | None = None
    ) -> Iterator[tuple[Node, Vector]]:
        """Microbatches, in order, as nodes of the tree, each as soon as it is computed.

        Args:
            microbatches: what was read last.
            seed_step: the step of the run, from which random seeds come.
            replica_sum: adds up, on the devices, what was computed at the same time; without it each comes by itself.

        Yields:
            node, and its vector: valid until the next one is asked for.
        """
        for at in range(0, len(microbatches), self.num_replicas):
            wave = microbatches[at : at + self.num_replicas]
            computed = [m.index for m in wave]
            with self.times.part("compute", computed[0]):
                self.times.computed += 1
                instruments.fault_point("microbatch")
                if replica_sum is None:
                    # A replica without a microbatch of its own has computed the last one again: its result is dropped.
                    vectors = self.function(self._inputs(wave, seed_step))
                    nodes = list(zip(((0, index) for index in computed), vectors, strict=False))
                else:
                    nodes = replica_sum(computed, self.function.on_devices(self._inputs(wave, seed_step)))
            yield from nodes

    def warm_up(self) -> None:
        """Compute one microbatch of every size that occurs, so that nothing is compiled in the middle of a pass.

        Raises:
            UnsupportedModelError: XLA cannot compile the step.
        """
        try:
            for step, index in self.feed.plan.one_of_each_size().values():
                deque(self.computed(self.read(step, [index]), step), maxlen=0)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if not self.built.jit_compile:
                raise
            reason = " ".join(error.message.split())
            raise UnsupportedModelError(
                f"The model is compiled with jit_compile=True, and XLA cannot compile its step: {reason[:600]} Use "
                "model.compile(..., jit_compile=False)."
            ) from error

    def close(self) -> None:
        """Close what the rows are read from."""
        self.feed.close()

    def _inputs(self, wave: Sequence[Microbatch], seed_step: int) -> list[ReplicaInput]:
        filled = [*wave, *[wave[-1]] * (self.num_replicas - len(wave))]
        num_generators, knows_first = len(self.built.generators), self.function.num_weights > len(wave[0].weights)
        return [
            (
                m.batch,
                np.append(m.weights, float(m.is_first)) if knows_first else m.weights,
                microbatch_seeds(self.seed, seed_step, 0 if self.draws_alike else m.index, num_generators),
            )
            for m in filled
        ]


def nonfinite_microbatch(
    microbatches: Microbatches, seed_step: int, step: int, ranges: Sequence[Range]
) -> tuple[int, tuple[str, ...]] | None:
    """Compute microbatches of a step again, one by one, until one is not finite.

    Args:
        microbatches: computes them.
        seed_step: the step of the run, from which random seeds come.
        step: the step of the epoch.
        ranges: those to look at.

    Returns:
        the index of the first that is not finite, and the paths of the variables concerned; None if all are finite.
    """
    layout = microbatches.function.layout
    for lo, hi in sorted(ranges):
        rows = microbatches.read(step, range(lo, hi))
        for (_, index), (*float_buckets, _, _) in microbatches.computed(rows, seed_step):
            if not all(map(all_finite, float_buckets)):
                parts = split_by_variable(float_buckets, layout.variables_per_bucket, layout.parts)
                return index, tuple(part.name for part, values in parts if not all_finite(values))
    return None
