"""Which optimizers a step applies, and what each of them trains.

A model has one compiled optimizer, and a GAN has others as attributes: its `compile` takes them, and calls
``super().compile()``, which makes an `rmsprop` for all weights that nobody applies. So what counts is the step. Where a
model holds more than its compiled optimizer the step is called once, symbolically, to see which it applies. One that is
not built yet is built for the variables of its first `apply`, as in Keras; never inside of the trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from ..columns import Columns
from . import private_api
from .capture import StepScope
from .capturing import captured
from .model import BuiltModel, with_optimizers
from .per_replica import traced_on_replicas
from .private_hooks import layers_in
from .recorded import Gradient
from .runtime import BUILD_LOCK
from .scoped_step import ScopedStep, StepFunction


class _Watching(StepScope):
    """Sees which optimizers are applied to what; weights and state stay as they are, and nothing ends a phase."""

    applied: dict[int, tuple[keras.optimizers.Optimizer, list[keras.Variable]]]

    def __init__(
        self,
        start: Sequence[tuple[keras.Variable, tf.Tensor]],
        state: Sequence[keras.Variable],
        optimizers: Sequence[keras.optimizers.Optimizer],
        _shadows: object = None,
    ) -> None:
        kept = {id(variable) for variable in state}
        super().__init__([(variable, value) for variable, value in start if id(variable) not in kept], (), optimizers)
        self.applied = {}

    def add_update(self, update: tuple[keras.Variable, tf.Tensor]) -> None:
        variable, value = update
        if id(variable) in self.state_mapping:
            self.state_mapping[id(variable)] = value

    def apply(
        self,
        optimizer: keras.optimizers.Optimizer,
        gradients: Sequence[Gradient],
        variables: Sequence[keras.Variable] | None,
    ) -> None:
        if gradients:
            self.applied.setdefault(id(optimizer), (optimizer, list(variables or ())))

    def reduce(self, _reduction: object, values: list[tf.Tensor]) -> list[tf.Tensor]:
        return values


def holds_others(built: BuiltModel) -> bool:
    """Whether a model holds optimizers besides its compiled one, or instead of it."""
    return any(each is not built.model.optimizer for each in _held(built))


def with_applied_optimizers(
    built: BuiltModel, step: StepFunction, columns: Columns, sample: Mapping[str, np.ndarray], reduction: str
) -> BuiltModel:
    """A model that knows the optimizers that its step applies; all of them are built.

    Args:
        built: the model.
        step: the step that trains it.
        columns: which columns are inputs, targets and weights.
        sample: a few rows of each column, for shapes and dtypes.
        reduction: how the step's loss reduces over rows.
    """
    scopes: list[_Watching] = []
    scoped = ScopedStep(built, step, columns, reduction, trains=True, scope_class=_Watching)

    def watch(given: list[tf.Tensor], weights: tf.Tensor, seeds: tf.Tensor) -> None:
        _, scope = scoped(given, seeds)
        scopes.append(scope)  # type: ignore[arg-type]

    with BUILD_LOCK:
        with private_api.unscaled_losses(), captured():
            traced_on_replicas(built.strategy, watch, scoped.specs(sample))
        applied = list(scopes[0].applied.values())
        if not applied:
            return built  # what it does instead is said when it is traced
        with built.strategy.scope():
            for optimizer, variables in applied:
                if not optimizer.built:
                    optimizer.build(variables)
        return with_optimizers(built, tuple(optimizer for optimizer, _ in applied))


def _held(built: BuiltModel) -> Iterator[keras.optimizers.Optimizer]:
    """The optimizers that build_model has returned, or that are attributes of the model and of layers in it."""
    values: list[object] = [built.named_optimizers or {}]
    for layer in layers_in(built.model):
        values += vars(layer).values()
    for value in values:
        inside = list(value.values()) if isinstance(value, dict) else value
        for each in inside if isinstance(inside, (list, tuple)) else [inside]:
            if isinstance(each, keras.optimizers.Optimizer):
                yield each
