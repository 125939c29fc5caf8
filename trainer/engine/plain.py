"""The user's model as plain Keras trains it: on one device, without a strategy, the whole batch at once.

It is what a run is held against (``heliostat verify-run``). Nothing of the engine computes here: the step is the
user's, or Keras's own, inside of a `tf.function`, as `keras.Model.fit` calls it; it applies its gradients and counts
its metrics itself. The engine's code for building a model is used, under TensorFlow's default strategy, which is none;
so both models have their variables in the same order.

Three things are as in the run. All rows draw the same random numbers, and `BatchNormalization` takes its moving
averages (`probe_draws`), in both. An optimizer gets dense gradients: Keras 3 squares each row of an embedding's sparse
gradient by itself in Adam's family, and not their sum, so there plain Keras is not what one device should compute.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from ..columns import Columns
from . import private_api, private_hooks
from .layout import microbatch_seeds
from .logs import numbers_of
from .metrics import Logs, plain_numbers
from .model import BuiltModel
from .private_optimizers import replaced_apply
from .probe_draws import rows_alike
from .python_draws import drawn_from
from .runtime import BUILD_LOCK, Runtime
from .scoped_step import StepFunction, to_floatx


@dataclass(frozen=True, slots=True, kw_only=True)
class OneDevice(Runtime):
    """What plain Keras computes on: one device, and no `MirroredStrategy`."""

    def strategy(self) -> tf.distribute.Strategy:
        """TensorFlow's default, which distributes nothing."""
        return tf.distribute.get_strategy()

    @staticmethod
    def of(runtime: Runtime) -> OneDevice:
        """The first device of a worker."""
        return OneDevice(devices=runtime.devices[:1], threads=runtime.threads, device_type=runtime.device_type)


class PlainKeras:
    """Trains a model step by step, each from a state that it is given.

    Args:
        built: the model, built on `OneDevice`.
        step: the user's or Keras's, which trains it.
        columns: which columns are inputs, targets and weights.
        adds_metrics: whether the metrics that a step updates are logged besides what it returns.

    Attributes:
        beside: the variables that the step reads beside the model's state, once it is traced.
    """

    def __init__(self, built: BuiltModel, step: StepFunction, columns: Columns, *, adds_metrics: bool) -> None:
        self.built, self._step, self._columns, self._adds_metrics = built, step, columns, adds_metrics
        self.beside: list[tf.Variable] = []
        self._function: Callable[..., dict[str, tf.Tensor]] = tf.function(self._traced, autograph=False)

    def begin_epoch(self) -> None:
        """Metrics begin anew."""
        self.built.model.reset_metrics()

    def assign(self, state: Sequence[np.ndarray]) -> None:
        """Put the model into a state, an array for each of `BuiltModel.state`."""
        for variable, value in zip(self.built.state, state, strict=True):
            private_api.tf_variable(variable).assign(value)

    def state(self) -> list[np.ndarray]:
        """The state that it is in: copies."""
        return [np.array(value) for value in self.built.read_state()]

    def step(self, rows: Mapping[str, np.ndarray], seed: int, seed_step: int) -> Logs:
        """Train one step, and return what it has logged: metrics of the epoch so far, other numbers of this batch.

        Args:
            rows: of the whole batch, in their order, by column.
            seed: of the run.
            seed_step: the step of the run, from which random seeds come.
        """
        generators = self.built.generators
        for generator, state in zip(generators, microbatch_seeds(seed, seed_step, 0, len(generators)), strict=True):
            private_api.tf_variable(generator.state).assign(state)
        with BUILD_LOCK, private_hooks.variables_read() as read:
            found = self._function([tf.constant(rows[name]) for name in self._columns.names])
        self.beside = self.beside or list(read)
        return plain_numbers(found)

    def _traced(self, given: Sequence[tf.Tensor]) -> dict[str, object]:
        private_api.use_global_generator(self.built.generators[0])
        batch = {name: to_floatx(value) for name, value in zip(self._columns.names, given, strict=True)}
        with contextlib.ExitStack() as stack:
            stack.enter_context(rows_alike(everywhere=True))
            stack.enter_context(drawn_from(self.built.seed))
            stack.enter_context(replaced_apply(_with_dense_gradients))
            numbers = dict(numbers_of(self._step(*self._columns.assemble(batch))))
            results = self.built.model.get_metrics_result() if self._adds_metrics else {}
        return {**results, **numbers}


def _with_dense_gradients(
    apply: Callable[..., None],
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[object],
    variables: Sequence[keras.Variable] | None = None,
) -> None:
    apply(optimizer, [None if each is None else tf.convert_to_tensor(each) for each in gradients], variables)
