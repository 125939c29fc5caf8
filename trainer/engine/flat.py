"""The update of elementwise optimizers on one long vector instead of one variable after another.

A compiled function over hundreds of small variables spends its time on their handles. An optimizer that treats every
element by itself gives the same bits on all weights joined into one vector, so its state lives in such vectors while
steps run. Weights are handed out to the model's variables after every step; the optimizer's own variables are brought
up to date by `Update.sync_optimizer`, whenever somebody may look at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from heliostat.data.format.memory import ALIGNMENT_BYTES

from . import private_api
from .layout import small_on_average
from .model import BuiltModel

# Optimizers whose update of an element looks at that element's weight, gradient and state alone.
_ELEMENTWISE = ("SGD", "Adam", "AdamW", "Nadam", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Ftrl", "Lion")


@dataclass(frozen=True, slots=True)
class FlatState:
    """The vectors of a flat update.

    Attributes:
        flat_optimizer: an optimizer of the same configuration, built for one long variable.
        weights: the vector of all weights.
        slots: per slot of it (a vector such as a momentum) the variables it stands for, in the order of the weights.
        scalars: per scalar of it (iterations, learning rate) the optimizer's own variable, which stays in use.
    """

    built: BuiltModel
    flat_optimizer: keras.optimizers.Optimizer
    weights: keras.Variable
    slots: list[tuple[keras.Variable, list[keras.Variable]]]
    scalars: list[tuple[keras.Variable, keras.Variable]]

    def make_load(self) -> tf.types.experimental.ConcreteFunction:
        """A traced function that takes weights and optimizer state out of the model's variables."""

        def load() -> None:
            for vector, variables in [(self.weights, self.built.trainable), *self.slots]:
                parts = [tf.reshape(self.built.components(v)[0].read_value(), (-1,)) for v in variables]
                private_api.tf_variable(vector).assign(tf.concat(parts, 0))

        return tf.function(load, autograph=False).get_concrete_function()

    def make_store(self) -> tf.types.experimental.ConcreteFunction:
        """A traced function that writes the optimizer's state into its variables, on every replica."""

        def store() -> None:
            for vector, variables in self.slots:
                scatter(self.built, private_api.tf_variable(vector).read_value(), variables)

        return tf.function(store, autograph=False).get_concrete_function()


def scatter(built: BuiltModel, vector: tf.Tensor, variables: Sequence[keras.Variable]) -> None:
    """Assign the parts of a vector to variables, on every replica.

    Args:
        built: knows the replicas.
        vector: ``[elements of all variables]``.
        variables: in the order in which they lie in the vector.
    """
    for piece, variable in zip(pieces_of(vector, [_size(v) for v in variables]), variables, strict=True):
        value = tf.reshape(piece, variable.shape)
        for part in built.components(variable):
            part.assign(value)


def pieces_of(vector: tf.Tensor, sizes: Sequence[int]) -> list[tf.Tensor]:
    """Pieces of a vector, `sizes` elements each.

    TensorFlow cuts a matrix whose rows are whole multiples of 64 bytes without a copy, a vector never. So the pieces up
    to the first of an uneven size are cut as rows; in most models only the last few are left.
    """
    row = ALIGNMENT_BYTES // vector.dtype.size
    num_even = next((i for i, size in enumerate(sizes) if size % row), len(sizes))
    end = sum(sizes[:num_even])
    pieces = []
    if num_even:
        pieces += tf.split(tf.reshape(vector[:end], (-1, row)), [size // row for size in sizes[:num_even]])
    if num_even < len(sizes):
        pieces += tf.split(vector[end:], sizes[num_even:])
    return pieces


def flat_state(built: BuiltModel, gradients: Sequence[int]) -> FlatState | None:
    """The vectors for a flat update, or None where this optimizer or model needs its variables one by one."""
    optimizer = built.optimizer
    if not _is_elementwise(optimizer) or len(gradients) != len(built.trainable):
        return None
    if not small_on_average([_size(v) for v in built.trainable]):
        return None
    if len({str(v.dtype) for v in built.trainable}) != 1 or any(v.constraint for v in built.trainable):
        return None
    device = built.components(built.trainable[0])[0].device
    with tf.device(device):
        flat_optimizer = type(optimizer).from_config(optimizer.get_config())
        size = sum(_size(v) for v in built.trainable)
        weights = keras.Variable(np.zeros(size), dtype=built.trainable[0].dtype, name="weights")
        flat_optimizer.build([weights])
    vectors = [v for v in flat_optimizer.variables if v.shape == (size,)]
    slots = [(vector, _counterpart(vector, flat_optimizer, optimizer)) for vector in vectors]
    flat_scalars = [v for v in flat_optimizer.variables if v.shape != (size,)]
    joined = {id(v) for _, variables in slots for v in variables or ()}
    own_scalars = [v for v in optimizer.variables if id(v) not in joined]
    if any(not variables for _, variables in slots) or len(own_scalars) != len(flat_scalars):
        return None
    return FlatState(
        built=built,
        flat_optimizer=flat_optimizer,
        weights=weights,
        slots=[(vector, list(variables)) for vector, variables in slots if variables],
        scalars=list(zip(flat_scalars, own_scalars, strict=True)),
    )


def _is_elementwise(optimizer: keras.optimizers.Optimizer) -> bool:
    kind = type(optimizer)
    return (
        kind.__module__.startswith("keras.")
        and kind.__name__ in _ELEMENTWISE
        and not optimizer.clipnorm
        and not optimizer.global_clipnorm
        and not private_api.leaves_out_weight_decay(optimizer)
        and _can_be_copied(private_api.learning_rate(optimizer))
    )


def _can_be_copied(learning_rate: object) -> bool:
    """Whether a second optimizer can be made from the configuration: a number, or a schedule of Keras's own."""
    return isinstance(learning_rate, keras.Variable) or type(learning_rate).__module__.startswith("keras.")


def _counterpart(
    vector: keras.Variable, flat_optimizer: keras.optimizers.Optimizer, optimizer: keras.optimizers.Optimizer
) -> list[keras.Variable] | None:
    """The variables of `optimizer` that a vector of the flat one stands for: those in the list of the same name."""
    for name, value in vars(flat_optimizer).items():
        if isinstance(value, (list, tuple)) and len(value) == 1 and value[0] is vector:
            found = getattr(optimizer, name)
            return list(found) if all(each is not None for each in found) else None
    return None


def _size(variable: keras.Variable) -> int:
    return int(np.prod(variable.shape))
