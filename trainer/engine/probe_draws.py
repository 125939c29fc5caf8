"""Random draws and batch statistics of which a step on some rows gives the same as one on others.

The probe compares a step on all rows with the same step on copies and on halves of them, so what is drawn for a row
must not depend on where it stands. Drawing for all rows and tiling is ambiguous: a step that joins fakes and real rows
draws for twice the rows, in blocks; a `TimeDistributed` layer for rows times steps, in runs; halves would need other
slices of each. One row's draw for all rows is alike in every arrangement. A shuffle of rows keeps their order.

`BatchNormalization` takes its moving averages: that its statistics are those of a microbatch is documented, and is what
every kind of data parallelism does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeGuard

import keras
import numpy as np
import tensorflow as tf

from .replaced import replaced_here

Draw = Callable[..., tf.Tensor]
# Those of `tf.random` whose first argument is the shape of what they draw.
BY_SHAPE = (
    "stateless_normal",
    "stateless_uniform",
    "stateless_truncated_normal",
    "stateless_gamma",
    "stateless_binomial",
    "stateless_poisson",
)


@contextlib.contextmanager
def rows_alike() -> Iterator[None]:
    """Inside the block all rows draw alike, and `BatchNormalization` takes its moving averages."""
    normalised = keras.layers.BatchNormalization.call

    def by_moving_averages(
        layer: keras.Layer, inputs: tf.Tensor, training: object = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        return normalised(layer, inputs, training=False, mask=mask)

    by_shape = {name: _for_all_rows(getattr(tf.random, name)) for name in BY_SHAPE}
    with (
        replaced_here(tf.random, **by_shape, stateless_categorical=_categorical(tf.random.stateless_uniform)),
        replaced_here(tf.nn.experimental, stateless_dropout=_dropout(tf.nn.experimental.stateless_dropout)),
        replaced_here(keras.layers.BatchNormalization, call=by_moving_averages),
    ):
        yield


def _for_all_rows(draw: Draw) -> Draw:
    """A draw by shape, made for one row."""

    def drawn(shape: Sequence[int] | tf.Tensor, *args: object, **named: object) -> tf.Tensor:
        lengths = [int(length) for length in shape]
        if not lengths or lengths[0] < 2:
            return draw(shape, *args, **named)
        rows, one = lengths[0], [1, *lengths[1:]]
        by_row = {name: value for name, value in named.items() if name != "seed" and _has_rows(value, rows)}
        if not by_row:
            return tf.repeat(draw(one, *args, **named), rows, 0)
        each = ({name: value[i : i + 1] for name, value in by_row.items()} for i in range(rows))
        return tf.concat([draw(one, *args, **{**named, **of_row}) for of_row in each], 0)

    return drawn


def _has_rows(value: object, rows: int) -> TypeGuard[tf.Tensor | np.ndarray]:
    """Whether a parameter of a distribution is another one for each row."""
    shape = getattr(value, "shape", None)
    return shape is not None and len(shape) > 0 and shape[0] == rows


def _dropout(dropout: Draw) -> Draw:
    def dropped(
        x: tf.Tensor,
        rate: float | tf.Tensor,
        seed: Sequence[int] | tf.Tensor,
        noise_shape: Sequence[int] | tf.Tensor | None = None,
        **named: object,
    ) -> tf.Tensor:
        ones = tf.ones_like(x[:1])
        one_row = tf.shape(ones) if noise_shape is None else [1, *list(noise_shape)[1:]]
        return x * dropout(ones, rate=rate, seed=seed, noise_shape=one_row, **named)

    return dropped


def _categorical(uniform: Draw) -> Draw:
    """Draws by the inverse of the cumulated probabilities, from the same uniform numbers in every row."""

    def drawn(
        logits: tf.Tensor,
        num_samples: int | tf.Tensor,
        seed: Sequence[int] | tf.Tensor,
        dtype: tf.DType = tf.int64,
        **_: object,
    ) -> tf.Tensor:
        below = tf.cumsum(tf.nn.softmax(tf.cast(logits, tf.float64)), axis=-1)[..., None, :]
        chosen = uniform((1, num_samples, 1), seed=seed, dtype=tf.float64)
        number = tf.reduce_sum(tf.cast(below < chosen, tf.int64), -1)
        return tf.cast(tf.minimum(number, tf.shape(logits, tf.int64)[-1] - 1), dtype)

    return drawn
