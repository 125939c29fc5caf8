"""What one microbatch brings to its step, as one traced function without effects: `GradientFunction`.

A Keras `train_step` is full of effects: it draws random numbers and moves their seeds on, it updates moving averages
and metrics, and its optimizer changes the weights. Here the same step, the user's own code, is a pure function of rows,
weights and seeds, given the model's state; so a microbatch can be computed on any worker, a second time after a death,
or in vain, and nobody sees the difference. Each effect is taken away where the step is traced:

    it would             here it
    move seeds on        starts from the seeds of this microbatch (`layout.microbatch_seeds`), and forgets the new ones
    update a metric      starts from the metric's initial state, so that its new value is this microbatch's change
    move an average      starts from the step's value, and gives its new value away: the mean over microbatches is kept
    count in integers    the same, and all microbatches must agree
    apply gradients      hands them over (`capturing.captured`)
    assign a weight      does so between two phases (`contribution.py`), if it depends on no rows
    assign anything else is refused (`capture.StepScope`, and `refuse_impure_ops` on the finished graph)

State is read and written in a `keras.StatelessScope`, as Keras's own JAX trainer does
(keras/src/backend/jax/trainer.py). What comes out is multiplied by the microbatch's weights and laid into the buckets
of one vector (`layout.py`), inside the graph. A step that reads what it has changed is cut into phases, each with such
a vector of its own (`cut_step.py`); most steps have one phase, and what is traced first is it.

One traced graph serves every worker and any number of replicas: a call computes one microbatch on each replica, and a
worker with several microbatches per replica calls several times. Other shapes and other graphs may get other kernels,
whose sums have other bits; so there must be one path with one knowledge of shapes, wherever a microbatch is computed.

Not done: several microbatches in one call (`tf.vectorized_map`, or larger batches whose gradients are kept apart):
other shapes, other kernels. A loop over microbatches inside the graph: it would have to add along the tree, whose nodes
depend on the range that a worker has, so that every change of the group would trace again. A `GradientTape` of our own
around the compiled loss: it would pass over what the user wrote in `train_step`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from ..columns import Columns
from ..errors import UnsupportedStepError
from . import private_api
from .capture import StepScope, refuse_impure_ops
from .capturing import captured
from .counted import Counted, counted
from .cut_step import NUM_WEIGHTS, CutStep
from .layout import VectorLayout, vector_layout
from .logs import StepResults
from .model import BuiltModel
from .origins import Origins
from .per_replica import PerReplica
from .phase_function import PhaseFunction
from .recorded import Apply, Assign, GradientAndVariable, RecordedPhase
from .runtime import BUILD_LOCK
from .scoped_step import ScopedStep, StepFunction
from .tensors import flat_values

Kind = Literal["train", "evaluate"]


class GradientFunction:
    """The traced function of one step kind: one for each of its phases.

    Args:
        built: the model.
        step: ``step(x, y, sample_weight)``: the user's or Keras's train or test step.
        kind: ``"train"`` captures gradients, ``"evaluate"`` does not.
        columns: which columns are inputs, targets and weights.
        sample: a few rows of each column, for shapes and dtypes.
        reduction: how the step's loss reduces over rows.
        only_returned_logs: the step's result alone tells the logs, as in Keras; otherwise every metric it updates too.

    Attributes:
        columns: which columns are read.
        reduction: how the step's loss reduces over rows.
        phases: the functions, in order.
        cut: the step that they are cut from; None where one plain phase is all of it.

    Raises:
        UnsupportedStepError, UnsupportedModelError: the step does something that cannot be exact.
    """

    def __init__(
        self,
        built: BuiltModel,
        step: StepFunction,
        *,
        kind: Kind,
        columns: Columns,
        sample: Mapping[str, np.ndarray],
        reduction: str,
        only_returned_logs: bool = True,
    ) -> None:
        self._built, self._kind = built, kind
        self.columns, self.reduction = columns, reduction
        self.cut: CutStep | None = None
        self._traced: VectorLayout | None = None
        with BUILD_LOCK, private_api.unscaled_losses(), captured():
            self._step = ScopedStep(built, step, columns, reduction, trains=kind == "train")
            self._results = StepResults(built, only_returned=only_returned_logs)
            try:
                self.phases = [self._one_phase(sample)]
            except _SeveralPhases as found:
                self.cut = CutStep(built, self._step, self._results, found.phases, sample, reduction)
                self.phases = self._cut_phases(self.cut)

    @property
    def layout(self) -> VectorLayout:
        """What lies where in the vector of a microbatch, in the first phase."""
        return self.phases[0].layout

    def _one_phase(self, sample: Mapping[str, np.ndarray]) -> PhaseFunction:
        built, specs = self._built, self._step.specs(sample)
        per_replica = PerReplica(built.strategy, built.runtime, self._vector, specs, jit_compile=built.jit_compile)
        refuse_impure_ops(per_replica.graph)
        if self._traced is None:
            raise UnsupportedStepError("The training step was not traced.")
        return PhaseFunction(per_replica, self.columns.names, self._traced, num_weights=4)

    def _cut_phases(self, cut: CutStep) -> list[PhaseFunction]:
        names = self.columns.names
        return [
            PhaseFunction(cut.function_of(number), names, places.layout, num_weights=NUM_WEIGHTS)
            for number, places in enumerate(cut.places)
        ]

    def _vector(self, columns: Sequence[tf.Tensor], weights: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The vector of a microbatch, as tensors; this is what is traced."""
        numbers, scope = self._step(columns, seeds)
        rows = [*columns, weights, seeds]
        if not self._is_plain(scope.phases, Origins(rows, {})):
            raise _SeveralPhases(scope.phases)
        outputs = self._collect(counted(self._built, self._results, numbers, scope, rows), scope)
        self._refuse_local_totals(scope, outputs)
        self._traced = outputs.layout
        dtype = self._built.float_dtype
        values, float_buckets, start = [*outputs.gradients, *outputs.float_state], [], 0
        for count in outputs.layout.variables_per_bucket:
            weight = weights[0 if start < len(outputs.gradients) else 1]
            float_buckets.append(flat_values(values[start : start + count], dtype) * tf.cast(weight, dtype))
            start += count
        int_state = [*outputs.int_state, *(-value for value in outputs.int_state)]
        return (
            *(float_buckets or [tf.zeros((0,), dtype)]),
            flat_values(outputs.sums, tf.float64),
            flat_values([*outputs.maxima, *int_state], tf.float64),
        )

    def _is_plain(self, phases: Sequence[RecordedPhase], origins: Origins) -> bool:
        """Whether a step is one optimizer that takes gradients, with nothing that only `cut_step.py` does exactly."""
        if self._kind == "evaluate":
            return True
        events = [event for phase in phases for event in phase.events]
        if not any(isinstance(event, Apply) for event in events):
            raise UnsupportedStepError(
                "The training step applied no gradients. It must call optimizer.apply_gradients(zip(gradients, "
                "model.trainable_variables)); a model without trainable weights can only be evaluated."
            )
        if len(phases) > 1 or len(events) > 1 or self._built.optimizers != (self._built.optimizer,):
            return False
        return all(
            change.variable.aggregation not in ("sum", "only_first_replica")
            and (origins.of(change.value).rows or not change.value.dtype.is_floating)
            for change in phases[0].state
        )

    def _collect(self, counts: Counted, scope: StepScope) -> StepOutputs:
        """Take out of the scope what a step of one phase has left there.

        Args:
            counts: what it has counted.
            scope: knows the new values.
        """
        built = self._built
        gradients, values = [], dict[int, tf.Tensor]()
        if self._kind == "train":
            (phase,) = scope.phases
            gradients = dense_gradients([pair for event in phase.events for pair in _pairs(event)], built.trainable)
            index = {id(variable): i for i, variable in enumerate(built.non_trainable)}
            values = {index[id(change.variable)]: change.value for change in phase.state}
        floating = tuple(i for i in values if keras.backend.is_float_dtype(built.non_trainable[i].dtype))
        int_state = tuple(i for i in values if i not in floating)
        present = tuple(i for i, g in enumerate(gradients) if g is not None)
        num_int_state = sum(int(np.prod(built.non_trainable[i].shape)) for i in int_state)
        metrics = replace(counts.layout, num_int_state=num_int_state)
        return StepOutputs(
            gradients=[gradient for gradient in gradients if gradient is not None],
            float_state=[values[i] for i in floating],
            int_state=[tf.cast(values[i], tf.float64) for i in int_state],
            sums=[value for group in counts.sums for value in group],
            maxima=counts.maxima,
            layout=vector_layout(built, present, floating, int_state, metrics),
        )

    def _refuse_local_totals(self, scope: StepScope, outputs: StepOutputs) -> None:
        """Raise where what is counted without training depends on a sum over the whole batch, which is not made."""
        if not scope.local_totals:
            return
        origins = Origins(scope.local_totals, {})
        if any(origins.of(tf.convert_to_tensor(value)).rows for value in (*outputs.sums, *outputs.maxima)):
            raise UnsupportedStepError(
                "The step of a pass without training counts what depends on global_sum() or global_mean(). Rows of "
                "such a pass are computed one microbatch after another, and no sum is made over a batch. Call it "
                "where the model trains alone: if training: ..."
            )


@dataclass(frozen=True, slots=True)
class StepOutputs:
    """What the trace of a step of one phase told: the parts of a microbatch's vector, and how they lie in it.

    Attributes:
        gradients: one per variable of `layout.gradients`, not yet weighted; `float_state` likewise.
        int_state: float64, one per variable of `layout.int_state`.
        sums: changes of metrics that add up, then a total and a number of rows for every logged scalar.
        maxima: changes of metrics that merge by maximum, negated those that merge by minimum.
        layout: how all this lies in the vector.
    """

    gradients: list[tf.Tensor]
    float_state: list[tf.Tensor]
    int_state: list[tf.Tensor]
    sums: list[tf.Tensor]
    maxima: list[tf.Tensor]
    layout: VectorLayout


class _SeveralPhases(Exception):
    """The step that is being traced is not one plain phase; knows what it has done."""

    def __init__(self, phases: Sequence[RecordedPhase]) -> None:
        super().__init__(f"{len(phases)} phases")
        self.phases = list(phases)


def _pairs(event: Apply | Assign) -> tuple[GradientAndVariable, ...]:
    return event.pairs if isinstance(event, Apply) else ()


def dense_gradients(
    pairs: Sequence[GradientAndVariable], trainable: Sequence[keras.Variable]
) -> list[tf.Tensor | None]:
    """One dense gradient (or None) for every variable of `trainable`, in its order.

    An `Embedding` hands out `tf.IndexedSlices`; they are made dense so that a row used twice counts as the sum.
    """
    index = {id(variable): i for i, variable in enumerate(trainable)}
    dense: list[tf.Tensor | None] = [None] * len(trainable)
    for gradient, variable in pairs:
        if gradient is not None:
            dense[index[id(variable)]] = tf.convert_to_tensor(gradient)
    return dense
