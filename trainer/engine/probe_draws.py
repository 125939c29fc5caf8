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

from .replaced import replaced, replaced_here

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
def rows_alike(*, everywhere: bool = False) -> Iterator[None]:
    """Inside the block all rows draw alike, and `BatchNormalization` takes its moving averages.

    Args:
        everywhere: in all threads, replicas' among them, which trace what this one asks for; False leaves others alone.
    """
    replacing = replaced if everywhere else replaced_here
    normalised = keras.layers.BatchNormalization.call

    def by_moving_averages(
        layer: keras.Layer, inputs: tf.Tensor, training: object = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        return normalised(layer, inputs, training=False, mask=mask)

    by_shape = {name: _for_all_rows(getattr(tf.random, name)) for name in BY_SHAPE}
    with (
        replacing(tf.random, **by_shape, stateless_categorical=_categorical(tf.random.stateless_uniform)),
        replacing(tf.nn.experimental, stateless_dropout=_dropout(tf.nn.experimental.stateless_dropout)),
        replacing(keras.layers.BatchNormalization, call=by_moving_averages),
    ):
        yield


def _for_all_rows(draw: Draw) -> Draw:
    """A draw by shape, made for one row."""

    def drawn(shape: Sequence[int] | tf.Tensor, *args: object, **named: object) -> tf.Tensor:
        lengths = _lengths(shape)
        if not lengths or (isinstance(lengths[0], int) and lengths[0] < 2):
            return draw(shape, *args, **named)
        rows, one = lengths[0], [1, *lengths[1:]]
        by_row = {name: value for name, value in named.items() if name != "seed" and _has_rows(value, rows)}
        if not by_row:
            return tf.repeat(draw(one, *args, **named), rows, 0)

        def of_row(row: tf.Tensor | int) -> tf.Tensor:
            own = {name: value[row : row + 1] for name, value in by_row.items()}
            return draw(one, *args, **{**named, **own})

        if isinstance(rows, int):
            return tf.concat([of_row(row) for row in range(rows)], 0)
        dtype = of_row(0).dtype
        return tf.map_fn(lambda row: of_row(row)[0], tf.range(rows), fn_output_signature=dtype)

    return drawn


def _lengths(shape: Sequence[int | tf.Tensor] | tf.Tensor) -> list[int | tf.Tensor]:
    """The lengths of a shape, as numbers where they are known while a graph is traced."""
    each = tf.unstack(shape) if isinstance(shape, tf.Tensor) else list(shape)
    known = [tf.get_static_value(length) if isinstance(length, tf.Tensor) else length for length in each]
    return [length if number is None else int(number) for length, number in zip(each, known, strict=True)]


def _has_rows(value: object, rows: int | tf.Tensor) -> TypeGuard[tf.Tensor | np.ndarray]:
    """Whether a parameter of a distribution is another one for each row."""
    shape = getattr(value, "shape", None)
    if shape is None or len(shape) == 0:
        return False
    return shape[0] == rows if isinstance(rows, int) else shape[0] is None


def _dropout(dropout: Draw) -> Draw:
    def dropped(
        x: tf.Tensor,
        rate: float | tf.Tensor,
        seed: Sequence[int] | tf.Tensor,
        noise_shape: Sequence[int] | tf.Tensor | None = None,
        **named: object,
    ) -> tf.Tensor:
        ones = tf.ones_like(x[:1])
        one_row = tf.shape(ones) if noise_shape is None else [1, *_lengths(noise_shape)[1:]]
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
