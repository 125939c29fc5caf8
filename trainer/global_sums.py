"""Sums and means over the whole batch in the middle of a training step: `global_sum` and `global_mean`.

A step sees the rows of one microbatch. What it computes of them is added up where the step ends: gradients, metrics,
moving averages. Some steps need such a sum before that: a codebook counts the rows of every code and divides by it, SAM
climbs along the gradient of the batch. They ask for it here. A call costs an all-reduce, so a step with two of them has
three phases (`engine/phase.py`); what belongs together goes into one call.

While a step is traced the engine says how sums are made (`reduced_by`). Everywhere else there is one device that has
all rows, so a sum over the whole batch *is* the argument. A sum over workers is a number like any other for a
`GradientTape`, which would take it for a constant, and plain Keras would not; so a gradient through it is refused, here
as there.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, NoReturn, TypeAlias, TypeVar

from .errors import UnsupportedStepError

if TYPE_CHECKING:
    import tensorflow as tf

Reduction: TypeAlias = Literal["sum", "mean"]
Reduce: TypeAlias = "Callable[[Reduction, list[tf.Tensor]], list[tf.Tensor]]"

Structure = TypeVar("Structure")  # of tensors, given back as it came

_tracing = threading.local()  # replicas are traced in threads of their own


def global_sum(values: Structure) -> Structure:
    """The sum over all rows of the batch, wherever they are computed, of what a step has summed over its own rows.

    Args:
        values: a tensor whose shape is known, or a structure of them (lists, tuples, dicts); None stays None. Each must
            be a sum over rows: what two halves of a batch give must add up to what the whole gives.

    Returns:
        the same structure, shapes and dtypes. Outside of a run on Heliostat it is the argument.

    Raises:
        UnsupportedStepError: a gradient is taken through the sum; a shape is unknown; it is called in a loop or branch
            of the graph.

    Example:
        >>> class Count(keras.layers.Layer):  # how often each of two codes was taken
        ...     def build(self, _):
        ...         self.counts = self.add_weight(shape=(2,), trainable=False)
        ...     def call(self, rows, training=False):
        ...         taken = keras.ops.one_hot(keras.ops.cast(rows[:, 0] > 0, "int32"), 2)
        ...         if training:
        ...             self.counts.assign(global_sum(keras.ops.sum(taken, 0)))
        ...         return rows
        >>> def counting():
        ...     model = keras.Sequential([keras.Input((3,)), Count(), keras.layers.Dense(1)])
        ...     model.compile("sgd", "mse")
        ...     return model
        >>> with Trainer(counting, workers=0, num_microbatches=4) as counter:
        ...     result = counter.fit(x, y, batch_size=8, verbose=0)
        >>> int(counter.model.layers[0].counts.numpy().sum())  # of all 8 rows, not of a quarter
        8
    """
    return _reduced("sum", values)


def global_mean(values: Structure) -> Structure:
    """The mean over all rows of the batch, wherever they are computed, of what a step has averaged over its own rows.

    Args:
        values: as for `global_sum`, but each a mean over rows, such as gradients of a loss that is one.

    Returns:
        the same structure, shapes and dtypes. Outside of a run on Heliostat it is the argument.

    Raises:
        UnsupportedStepError: as for `global_sum`; or the model's loss is no mean over rows.

    Example:
        >>> def clipped(model, optimizer, x, y):
        ...     with tf.GradientTape() as tape:
        ...         loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
        ...     gradients = global_mean(tape.gradient(loss, model.trainable_variables))
        ...     gradients, norm = tf.clip_by_global_norm(gradients, 0.5)
        ...     optimizer.apply(gradients, model.trainable_variables)
        ...     return {"loss": loss, "norm": norm}
        >>> with Trainer(build_model, workers=0, num_microbatches=4) as clipping:
        ...     result = clipping.fit(x, y, batch_size=8, loop="custom", train_step=clipped, verbose=0)
        >>> result.history["norm"][0] > 0
        True
    """
    return _reduced("mean", values)


@contextlib.contextmanager
def reduced_by(reduce: Reduce) -> Iterator[None]:
    """Inside the block, and in this thread, let `reduce` stand for the sums and means over the whole batch.

    Args:
        reduce: gets tensors and gives as many.
    """
    before = getattr(_tracing, "reduce", None)
    _tracing.reduce = reduce
    try:
        yield
    finally:
        _tracing.reduce = before


def refuse_gradient(*_upstream: object) -> NoReturn:
    """The gradient of a sum over the whole batch."""
    raise UnsupportedStepError(
        "A gradient is taken through global_sum() or global_mean(). What they give is known only after all "
        "microbatches were added up, so it is a constant for each of them. Take the gradient of what is given to them, "
        "or keep it away from the tape with keras.ops.stop_gradient(...) before the call, if it is meant as a constant."
    )


def _reduced(reduction: Reduction, values: Structure) -> Structure:
    import keras
    import tensorflow as tf

    flat = keras.tree.flatten(values)
    given = [tf.convert_to_tensor(value) for value in flat if value is not None]
    reduce: Reduce | None = getattr(_tracing, "reduce", None)
    found = iter([_without_gradient(each) for each in given] if reduce is None else reduce(reduction, given))
    return keras.tree.pack_sequence_as(values, [None if value is None else next(found) for value in flat])


def _without_gradient(value: tf.Tensor) -> tf.Tensor:
    """The same value, through which no gradient can be taken."""
    import tensorflow as tf

    if not value.dtype.is_floating:
        return value
    return tf.custom_gradient(lambda each: (tf.identity(each), refuse_gradient))(value)
