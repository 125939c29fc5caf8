"""A step, called where a microbatch starts: seeds and metrics set, weights as they are, and nothing of it sticks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf

from ..columns import Columns
from ..errors import UnsupportedModelError
from . import private_api
from .capture import StepScope
from .capturing import recorded_in
from .logs import StepLogs, numbers_of
from .model import MEAN_REDUCTIONS, BuiltModel
from .python_draws import drawn_from
from .shadows import Shadows

StepFunction = Callable[[object, object, object], StepLogs]
"""``step(x, y, sample_weight)``, structures of tensors; returns logs by name, a scalar loss, or None."""
Specs: TypeAlias = "tuple[list[tf.TensorSpec], tf.TensorSpec, tf.TensorSpec]"


class ScopedStep:
    """Calls the step of a model in a scope of its own.

    Args:
        built: the model.
        step: the user's or Keras's train or test step.
        columns: which columns are inputs, targets and weights.
        reduction: how the step's loss reduces over rows.
        trains: whether optimizers may be applied.
        scope_class: of the scope.
    """

    def __init__(
        self,
        built: BuiltModel,
        step: StepFunction,
        columns: Columns,
        reduction: str,
        *,
        trains: bool,
        scope_class: type[StepScope] = StepScope,
    ) -> None:
        self._built, self._step, self._columns, self._reduction = built, step, columns, reduction
        self._optimizers, self._scope_class = built.optimizers if trains else (), scope_class

    def specs(self, sample: Mapping[str, np.ndarray], num_weights: int = 4) -> Specs:
        """What one replica is given: columns, weights, and seeds of a microbatch.

        Args:
            sample: a few rows of each column, for shapes and dtypes.
            num_weights: 5 where the last tells whether it is the first microbatch of its step.
        """
        columns = [tf.TensorSpec((None, *v.shape[1:]), v.dtype) for v in (sample[name] for name in self._columns.names)]
        seeds = tf.TensorSpec((len(self._built.generators), 2), tf.int64)
        return columns, tf.TensorSpec((num_weights,), tf.float64), seeds

    def __call__(
        self, columns: Sequence[tf.Tensor], seeds: tf.Tensor, shadows: Shadows | None = None
    ) -> tuple[dict[str, tf.Tensor], StepScope]:
        """Call the step while a graph is traced.

        Args:
            columns: the rows of a microbatch, by column.
            seeds: int64 ``[generators, 2]``, see `layout.microbatch_seeds`.
            shadows: where phases of the step write, once they are known.

        Returns:
            the numbers that the step returned, by name, and the scope with what it has done.
        """
        built = self._built
        private_api.use_global_generator(built.generators[0])
        batch = {name: to_floatx(value) for name, value in zip(self._columns.names, columns, strict=True)}
        metric_start = [tf.constant(m.initial) for m in built.metrics]
        non_trainable_start = [tf.identity(private_api.tf_variable(v)) for v in built.non_trainable]
        start = [
            *((g.state, seeds[i]) for i, g in enumerate(built.generators)),
            *zip((m.variable for m in built.metrics), metric_start, strict=True),
            *zip(built.non_trainable, non_trainable_start, strict=True),
        ]
        begun = self._scope_class(start, built.non_trainable, self._optimizers, shadows)
        with drawn_from(built.seed), begun as scope, recorded_in(scope):
            numbers = numbers_of(self._step(*self._columns.assemble(batch)))
            if self._reduction not in MEAN_REDUCTIONS:
                self._refuse_added_losses([*scope.losses, *built.model.losses])
        scope.close()
        return numbers, scope

    def _refuse_added_losses(self, losses: Sequence[object]) -> None:
        if losses:
            raise UnsupportedModelError(
                f"The model adds losses of its own (add_loss or a regularizer) to a loss that reduces by "
                f"{self._reduction!r}; they would be counted once per microbatch. Use reduction='sum_over_batch_size'."
            )


def to_floatx(value: tf.Tensor) -> tf.Tensor:
    """Floating-point columns take Keras's float type, as arrays do in plain Keras; others stay as they are."""
    return tf.cast(value, keras.config.floatx()) if value.dtype.is_floating else value
