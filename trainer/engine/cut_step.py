"""A step of several phases: the user's step is traced once, as a whole, and cut into one function for every phase.

A phase cannot be traced by itself, since a step is one Python function that holds tensors of every phase. So the whole
of it becomes one graph, in which what follows a border reads shadows (`capture.py`, `shadows.py`). A phase is that
graph asked for the outputs of this phase alone: TensorFlow removes everything that these do not need, and computes
nothing twice but what a later phase uses again (a batch of fakes for both players of a GAN), with the same seeds and
the same bits. With `jit_compile` the cut is made inside of the compiled function, which would compute all its outputs
otherwise.

Where the borders are is known only when the step has been traced; so it is traced a first time without shadows
(`gradients.py`). A step of one phase needs no second time, and none of this.

What was not done: tracing the step once for every phase and stopping it there, which runs the user's Python several
times and leaves it in the middle; the all-reduce as an operation of the graph, behind which no worker could take over
the microbatches of another, and which would hold a worker's microbatches in memory all at once; a step that yields at
its borders, which everybody would have to write anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ..errors import UnsupportedStepError
from .capture import refuse_impure_ops
from .contribution import Contribution, Places
from .counted import counted
from .logs import StepResults
from .metrics import MetricLayout
from .model import MEAN_REDUCTIONS, BuiltModel
from .origins import Origins
from .per_replica import PerReplica, replica_number, traced_on_replicas
from .recorded import RecordedPhase
from .scoped_step import ScopedStep
from .shadows import Shadows

NUM_WEIGHTS = 5


class CutStep:
    """Traces a step whose phases are known, and cuts it.

    Args:
        built: the model.
        step: the step in its scope.
        results: reads what it returns.
        recorded: its phases, as a first trace has found them.
        sample: a few rows of each column, for shapes and dtypes.
        reduction: how its loss reduces over rows.

    Attributes:
        built: the model.
        phases: what they do; values are tensors of the traced graph of one replica.
        shadows: where they write.
        places: where everything of a phase lies.
        metrics: what the step counts, all phases together.
        have_sum: which phases have an all-reduce.
    """

    def __init__(
        self,
        built: BuiltModel,
        step: ScopedStep,
        results: StepResults,
        recorded: Sequence[RecordedPhase],
        sample: Mapping[str, np.ndarray],
        reduction: str,
    ) -> None:
        self.built, self._step, self._results = built, step, results
        self._is_mean = reduction in MEAN_REDUCTIONS
        self._specs = step.specs(sample, NUM_WEIGHTS)
        self.shadows = Shadows(built, recorded)
        traced: list[_Traced] = []

        def trace(columns: list[tf.Tensor], weights: tf.Tensor, seeds: tf.Tensor) -> object:
            outputs, found = self._trace(columns, weights, seeds)
            traced.append(found)
            return outputs

        self._whole = traced_on_replicas(built.strategy, trace, self._specs)
        refuse_impure_ops(self._whole[0].graph)
        self.phases, self.places, self.metrics, self.have_sum = traced[0]

    def function_of(self, phase: int) -> PerReplica:
        """Computes the vector of a microbatch for one phase, on every replica."""

        def compute(*arguments: object) -> tuple[tf.Tensor, ...]:
            vectors, _ = self._whole[replica_number()](*arguments)
            return tuple(vectors[phase])

        built = self.built
        return PerReplica(built.strategy, built.runtime, compute, self._specs, jit_compile=built.jit_compile)

    def own_values(self, phase: int) -> tf.types.experimental.ConcreteFunction:
        """Computes what no row reaches in one phase, on the first replica."""

        def compute() -> list[tf.Tensor]:
            with tf.device(self.built.runtime.devices[0]):
                columns, weights, seeds = tf.nest.map_structure(_any_value, self._specs)
                _, own = self._whole[0](columns, weights, seeds)
                return [tf.identity(value) for value in own[phase]]

        return tf.function(compute, autograph=False).get_concrete_function()

    def _trace(self, columns: list[tf.Tensor], weights: tf.Tensor, seeds: tf.Tensor) -> tuple[object, _Traced]:
        """What one replica computes: by phase the vector of a microbatch and what no row reaches; and what it means."""
        numbers, scope = self._step(columns, seeds, self.shadows)
        if len(scope.phases) != self.shadows.num_phases:
            raise UnsupportedStepError(
                f"The training step has {len(scope.phases)} phases when it is traced again, and had "
                f"{self.shadows.num_phases}. It must do the same every time: keep no counters of Python in it."
            )
        rows = [*columns, weights, seeds]
        origins = Origins(rows, self.shadows.written_by())
        counts = counted(self.built, self._results, numbers, scope, rows)
        contributions = [
            Contribution(phase, origins, weights, self.built.float_dtype, is_mean=self._is_mean)
            for phase in scope.phases
        ]
        sums, maxima, have_sum = counts.over(origins, [not each.is_empty for each in contributions])
        places = [each.places(counts.layout) for each in contributions]
        vectors = [
            each.vector(place.layout, *counts_of)
            for each, place, *counts_of in zip(contributions, places, sums, maxima, strict=True)
        ]
        outputs = vectors, [each.own for each in contributions]
        return outputs, _Traced(scope.phases, places, counts.layout, have_sum)


class _Traced(NamedTuple):
    """What the trace of one replica told: it is alike on all."""

    phases: list[RecordedPhase]
    places: list[Places]
    metrics: MetricLayout
    have_sum: tuple[bool, ...]


def _any_value(spec: tf.TensorSpec) -> tf.Tensor:
    """Something of a shape and dtype, one row of it, for what does not depend on it."""
    return tf.zeros([1 if size is None else size for size in spec.shape], spec.dtype)
