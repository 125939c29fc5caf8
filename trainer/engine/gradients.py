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
    apply gradients      hands them over (`capture.captured_gradients`)
    assign anything else is refused (`capture.StepScope`, and `refuse_impure_ops` on the finished graph)

State is read and written in a `keras.StatelessScope`, as Keras's own JAX trainer does
(keras/src/backend/jax/trainer.py). What comes out is multiplied by the microbatch's weights and laid into the buckets
of one vector (`layout.py`), inside the graph.

One traced graph serves every worker and any number of replicas: a call computes one microbatch on each replica, and a
worker with several microbatches per replica calls several times. Other shapes and other graphs may get other kernels,
whose sums have other bits; so there must be one path with one knowledge of shapes, wherever a microbatch is computed.

Not done: several microbatches in one call (`tf.vectorized_map`, or larger batches whose gradients are kept apart):
other shapes, other kernels. A loop over microbatches inside the graph: it would have to add along the tree, whose nodes
depend on the range that a worker has, so that every change of the group would trace again. A `GradientTape` of our own
around the compiled loss: it would pass over what the user wrote in `train_step`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from heliostat.cluster.vectors import Vector

from ..columns import Columns
from ..errors import UnsupportedModelError, UnsupportedStepError
from . import private_api
from .capture import GradientAndVariable, StepScope, captured_gradients, dense_gradients, recording, refuse_impure_ops
from .layout import VectorLayout, vector_layout
from .logs import StepLogs, StepResults, logged_sum, numbers_of
from .metrics import MetricLayout
from .model import MEAN_REDUCTIONS, BuiltModel
from .per_replica import PerReplica
from .runtime import BUILD_LOCK
from .tensors import HostViews, copied_to_tensor

Kind = Literal["train", "evaluate"]
StepFunction = Callable[[object, object, object], StepLogs]
"""``step(x, y, sample_weight)``, structures of tensors; returns logs by name, a scalar loss, or None."""
ReplicaInput = tuple[Mapping[str, tf.Tensor], np.ndarray, np.ndarray]
"""A microbatch: its rows by column, its weights (float64 ``[4]``, see `microbatch_weights`) and its seeds (int64
``[generators, 2]``, see `microbatch_seeds`)."""


@dataclass(frozen=True, slots=True)
class StepOutputs:
    """What the trace of a step told: the parts of a microbatch's vector, and how they lie in it.

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


class GradientFunction:
    """The traced function of one step kind.

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
        layout: what lies where in the vector of a microbatch.
        views: knows the tensors behind the vectors of the last call.

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
        self._built, self._step, self._kind = built, step, kind
        self.columns, self._names, self.reduction = columns, columns.names, reduction
        self._traced: VectorLayout | None = None
        self.views = HostViews()
        with BUILD_LOCK:
            self._results = StepResults(built, only_returned=only_returned_logs)
            self._per_replica = self._trace({name: sample[name] for name in self._names})
        if self._traced is None:
            raise UnsupportedStepError("The training step was not traced.")
        self.layout: VectorLayout = self._traced

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

    def _trace(self, sample: Mapping[str, np.ndarray]) -> PerReplica:
        built = self._built
        column_specs = [tf.TensorSpec((None, *v.shape[1:]), v.dtype) for v in sample.values()]
        seeds_spec = tf.TensorSpec((len(built.generators), 2), tf.int64)
        specs = (column_specs, tf.TensorSpec((4,), tf.float64), seeds_spec)
        captured = captured_gradients(built.optimizer) if self._kind == "train" else contextlib.nullcontext()
        with private_api.unscaled_losses(), captured:
            per_replica = PerReplica(built.strategy, built.runtime, self._vector, specs, jit_compile=built.jit_compile)
        refuse_impure_ops(per_replica.graph)
        return per_replica

    def _vector(self, columns: Sequence[tf.Tensor], weights: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The vector of a microbatch, as tensors; this is what is traced."""
        outputs = self._run_step(columns, weights, seeds)
        self._traced = outputs.layout
        dtype = self._built.float_dtype
        values, float_buckets, start = [*outputs.gradients, *outputs.float_state], [], 0
        for count in outputs.layout.variables_per_bucket:
            weight = weights[0 if start < len(outputs.gradients) else 1]
            float_buckets.append(_flat(values[start : start + count], dtype) * tf.cast(weight, dtype))
            start += count
        int_state = [*outputs.int_state, *(-value for value in outputs.int_state)]
        return (
            *(float_buckets or [tf.zeros((0,), dtype)]),
            _flat(outputs.sums, tf.float64),
            _flat([*outputs.maxima, *int_state], tf.float64),
        )

    def _run_step(self, columns: Sequence[tf.Tensor], weights: tf.Tensor, seeds: tf.Tensor) -> StepOutputs:
        """Trace the step in a scope that starts where a microbatch starts."""
        built = self._built
        private_api.use_global_generator(built.generators[0])
        batch = {name: _to_floatx(value) for name, value in zip(self._names, columns, strict=True)}
        metric_start = [tf.constant(m.initial) for m in built.metrics]
        non_trainable_start = [tf.identity(private_api.tf_variable(v)) for v in built.non_trainable]
        start = [
            *((g.state, seeds[i]) for i, g in enumerate(built.generators)),
            *zip((m.variable for m in built.metrics), metric_start, strict=True),
            *zip(built.non_trainable, non_trainable_start, strict=True),
        ]
        with StepScope(start, collect_losses=True) as scope, recording() as pairs:
            began = dict(scope.state_mapping)
            returned = numbers_of(self._step(*self.columns.assemble(batch)))
            if self.reduction not in MEAN_REDUCTIONS and (scope.losses or built.model.losses):
                self._refuse_added_losses()

        def changed(variable: keras.Variable) -> bool:
            return scope.get_current_value(variable) is not began[id(variable)]

        return self._collect(returned, pairs, scope, changed, weights, [*columns, seeds])

    def _collect(
        self,
        returned: Mapping[str, tf.Tensor],
        pairs: Sequence[GradientAndVariable],
        scope: StepScope,
        changed: Callable[[keras.Variable], bool],
        weights: tf.Tensor,
        rows: Sequence[tf.Tensor],
    ) -> StepOutputs:
        """Take out of the scope what the step has left there.

        Args:
            returned: numbers by name, that the step returned.
            pairs: what its optimizer was given.
            scope: knows the new values.
            changed: whether the step has assigned a variable.
            weights: float64 ``[4]``, see `microbatch_weights`.
            rows: what else differs between microbatches.
        """
        built = self._built
        updated = tuple(m for m in built.metrics if changed(m.variable))
        states = [(m, scope.get_current_value(m.variable)) for m in updated]
        logs = self._results.read(returned, states, [*rows, weights])
        sums = [self._results.metric_sum(m, scope, weights) for m in updated if m.rule == "sum"]
        for value in logs.logged.values():
            sums += [logged_sum(value, weights), weights[3]]
        maxima = [
            scope.get_current_value(m.variable) * (1 if m.rule == "max" else -1) for m in updated if m.rule != "sum"
        ]
        gradients = dense_gradients(pairs, built.trainable) if self._kind == "train" else []
        assigned = [i for i, v in enumerate(built.non_trainable) if changed(v)] if self._kind == "train" else []
        floating = tuple(i for i in assigned if keras.backend.is_float_dtype(built.non_trainable[i].dtype))
        int_state = tuple(i for i in assigned if i not in floating)
        values = {i: scope.get_current_value(built.non_trainable[i]) for i in assigned}
        present = tuple(i for i, g in enumerate(gradients) if g is not None)
        num_int_state = sum(int(np.prod(built.non_trainable[i].shape)) for i in int_state)
        metrics = MetricLayout(
            variables=updated,
            logged=logs.shapes,
            num_int_state=num_int_state,
            result_names=logs.names,
            derived=logs.derived,
        )
        return StepOutputs(
            gradients=[gradients[i] for i in present],
            float_state=[values[i] for i in floating],
            int_state=[tf.cast(values[i], tf.float64) for i in int_state],
            sums=sums,
            maxima=maxima,
            layout=vector_layout(built, present, floating, int_state, metrics),
        )

    def _refuse_added_losses(self) -> None:
        raise UnsupportedModelError(
            f"The model adds losses of its own (add_loss or a regularizer) to a loss that reduces by "
            f"{self.reduction!r}; they would be counted once per microbatch. Use reduction='sum_over_batch_size'."
        )


def _flat(parts: Sequence[tf.Tensor], dtype: np.dtype | tf.DType) -> tf.Tensor:
    """The elements of all parts, one after another, in one dtype."""
    pieces = [tf.reshape(tf.cast(part, dtype), (-1,)) for part in parts]
    if not pieces:
        return tf.zeros((0,), dtype)
    return pieces[0] if len(pieces) == 1 else tf.concat(pieces, 0)


def _to_floatx(value: tf.Tensor) -> tf.Tensor:
    """Floating-point columns take Keras's float type, as arrays do in plain Keras; others stay as they are."""
    return tf.cast(value, keras.config.floatx()) if value.dtype.is_floating else value
