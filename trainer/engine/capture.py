"""Run a user's training step without letting it change anything.

The step is traced in a `keras.StatelessScope`: it reads the step's values of moving averages, seeds set for this
microbatch and metric states that start at zero, and what it assigns goes into the scope. The optimizer is in capture
mode: `apply_gradients` records the gradients. So the traced graph holds no assignment at all, which `refuse_impure_ops`
proves on the finished graph.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import keras
import tensorflow as tf

from ..errors import UnsupportedStepError
from . import private_api

_RANDOM_OPS = frozenset(
    [
        "RandomUniform",
        "RandomUniformInt",
        "RandomStandardNormal",
        "TruncatedNormal",
        "ParameterizedTruncatedNormal",
        "Multinomial",
        "RandomGamma",
        "RandomPoisson",
        "RandomPoissonV2",
        "RandomShuffle",
        "RandomCrop",
        "StatefulStandardNormal",
        "StatefulStandardNormalV2",
        "StatefulTruncatedNormal",
        "StatefulUniform",
        "StatefulUniformFullInt",
        "StatefulUniformInt",
        "StatefulRandomBinomial",
        "RngReadAndSkip",
        "RngSkip",
        "NonDeterministicInts",
    ]
)
_ASSIGNING_OPS = ("Assign", "ResourceScatter", "ResourceApply", "ResourceSparseApply", "ResourceStridedSliceAssign")

Gradient: TypeAlias = "tf.Tensor | tf.IndexedSlices | None"
GradientAndVariable = tuple[Gradient, keras.Variable]

_recorded = threading.local()  # replicas are traced in threads of their own


class StepScope(keras.StatelessScope):
    """A stateless scope that accepts assignments to the variables it was given, and names any other."""

    def add_update(self, update: tuple[keras.Variable, tf.Tensor]) -> None:
        """Take one assignment; raises `UnsupportedStepError` for a variable from outside the model."""
        variable, _ = update
        if id(variable) not in self.state_mapping:
            raise UnsupportedStepError(
                f"The training step changes the variable {variable.path!r}, which does not belong to the compiled "
                "model: a metric or a seed generator from a closure or a global, or a trainable weight assigned by "
                "hand. Its value would differ between workers. Make it part of the model (metrics: pass them to "
                "compile(), or create them in the model's __init__), or leave it out of the step."
            )
        super().add_update(update)

    def get_current_value(self, variable: keras.Variable) -> tf.Tensor | tf.Variable:
        """The value in this scope, else the variable itself: Keras asks here for weights to regularise."""
        value = super().get_current_value(variable)
        return private_api.tf_variable(variable) if value is None else value


@contextlib.contextmanager
def captured_gradients(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """While a step is traced, make `optimizer` record gradients, and any other optimizer refuse.

    The class is given back at the end: plain Keras could not load a model saved with the subclass.
    """
    original_class = type(optimizer)

    class Capturing(original_class):  # type: ignore[misc, valid-type]
        def apply(self, grads: Sequence[Gradient], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
            _record(self, list(grads), trainable_variables)

    Capturing.__name__ = original_class.__name__
    with private_api.replaced_apply(_refuse_second_optimizer):
        optimizer.__class__ = Capturing
        try:
            yield
        finally:
            optimizer.__class__ = original_class


def _refuse_second_optimizer(self: keras.optimizers.Optimizer, *_args: object, **_kwargs: object) -> None:
    raise UnsupportedStepError(
        f"The training step applies gradients with {self.name!r} ({type(self).__name__}), which is not the model's "
        "compiled optimizer. A second optimizer is not supported yet: use the optimizer that is passed to the step."
    )


def _record(
    optimizer: keras.optimizers.Optimizer, grads: list[Gradient], variables: Sequence[keras.Variable] | None
) -> None:
    if getattr(_recorded, "gradients", None) is not None:
        raise UnsupportedStepError(
            "The training step applies gradients more than once. A step is one update of the weights here; models "
            "that take several (a GAN, for example) are not supported yet."
        )
    known = private_api.trainable_variables(optimizer) if variables is None else list(variables)
    _recorded.gradients = (grads, known)


@contextlib.contextmanager
def recording() -> Iterator[list[GradientAndVariable]]:
    """Collect the (gradient, variable) pairs that the captured optimizer is given inside the block."""
    _recorded.gradients = None
    pairs: list[GradientAndVariable] = []
    try:
        yield pairs
        if _recorded.gradients is not None:
            pairs.extend(zip(*_recorded.gradients, strict=True))
    finally:
        _recorded.gradients = None


def dense_gradients(
    pairs: Sequence[GradientAndVariable], trainable: Sequence[keras.Variable]
) -> list[tf.Tensor | None]:
    """One dense gradient (or None) for every variable of `trainable`, in its order.

    An `Embedding` hands out `tf.IndexedSlices`; they are made dense so that a row used twice counts as the sum.

    Raises:
        UnsupportedStepError: no gradients were applied, or one for a variable the optimizer does not know.
    """
    if not pairs:
        raise UnsupportedStepError(
            "The training step applied no gradients. It must call optimizer.apply_gradients(zip(gradients, "
            "model.trainable_variables)) once; a model without trainable weights can only be evaluated."
        )
    index = {id(variable): i for i, variable in enumerate(trainable)}
    dense: list[tf.Tensor | None] = [None] * len(trainable)
    for gradient, variable in pairs:
        if id(variable) not in index:
            raise UnsupportedStepError(
                f"The training step applies a gradient to {getattr(variable, 'path', variable)!r}, which the compiled "
                "optimizer was not built for. Only the model's trainable variables can be trained."
            )
        if gradient is not None:
            dense[index[id(variable)]] = tf.convert_to_tensor(gradient)
    return dense


def refuse_impure_ops(graph: tf.Graph) -> None:
    """Raise `UnsupportedStepError` when a traced step draws from `tf.random` or assigns a variable itself."""
    random_ops, assigning_ops = set(), set()
    for name, op_type in _all_ops(graph):
        if op_type in _RANDOM_OPS:
            random_ops.add(f"{op_type} ({name})")
        elif op_type.startswith(_ASSIGNING_OPS):
            assigning_ops.add(f"{op_type} ({name})")
    if random_ops:
        raise UnsupportedStepError(
            f"The step draws random numbers from TensorFlow's own generators: {', '.join(sorted(random_ops))}. They "
            "cannot be made independent of the worker. Use keras.random with a keras.random.SeedGenerator of the layer "
            "or model."
        )
    if assigning_ops:
        raise UnsupportedStepError(
            f"The step assigns a tf.Variable itself: {', '.join(sorted(assigning_ops))}. Only Keras variables that "
            "belong to the model can change inside a step: create it with self.add_weight(..., trainable=False)."
        )


def _all_ops(graph: tf.Graph) -> Iterator[tuple[str, str]]:
    definition = graph.as_graph_def()
    for node in definition.node:
        yield node.name, node.op
    for function in definition.library.function:
        for node in function.node_def:
            yield f"{function.signature.name}/{node.name}", node.op
