"""Weights of classes: each row weighs what its label's class does, as `class_weight` of Keras's `fit` says.

The rule is Keras's (`class_weight_to_sample_weights` in keras/src/trainers/data_adapters/data_adapter_utils.py): labels
are numbers, or one-hot along the last axis; they are rounded; a class that is not named weighs 1. There it makes a
fourth array beside x and y. Here a row's weight is computed in the step from the label, which is read anyway, so that a
dataset stays what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .errors import ConfigurationError

if TYPE_CHECKING:
    import tensorflow as tf

ClassWeights = tuple[tuple[int, float], ...]
"""Classes, in ascending order, with their weights."""


def checked_class_weight(class_weight: object) -> ClassWeights:
    """The weights by class as values that travel; raises ConfigurationError for what Keras does not take."""
    if class_weight is None:
        return ()
    if not isinstance(class_weight, Mapping):
        raise ConfigurationError(
            f"class_weight={class_weight!r}; it takes a dict from class numbers to weights, such as {{0: 1.0, 1: 3.0}}"
            ". Of an array in the order of the classes make one: dict(enumerate(weights))."
        )
    try:
        found = sorted((_class_number(key), float(weight)) for key, weight in class_weight.items())
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"class_weight={dict(class_weight)!r}; its keys are class numbers and its values weights, such as "
            f"{{0: 1.0, 1: 3.0}}: {error}. It is for models with one output; weigh several with "
            "sample_weight={output: array of weights}."
        ) from error
    return tuple(found)


def row_weights(labels: tf.Tensor | np.ndarray, class_weight: ClassWeights) -> tf.Tensor:
    """The weight of every row.

    Args:
        labels: class numbers ``[rows]`` or ``[rows, 1]``, or one-hot ``[rows, classes]``.
        class_weight: weights by class.

    Returns:
        weights ``[rows]``, a tensor of Keras's float type.
    """
    from keras import config, ops  # the driver, which only carries the numbers, does without

    if len(labels.shape) > 1:
        labels = ops.squeeze(labels, -1) if labels.shape[-1] == 1 else ops.argmax(labels, axis=-1)
    numbers = ops.cast(ops.round(labels) if "float" in str(labels.dtype) else labels, "int64")
    classes = np.array([number for number, _ in class_weight], np.int64)
    weights = np.array([*(weight for _, weight in class_weight), 1.0], config.floatx())
    matches = ops.equal(ops.expand_dims(numbers, -1), classes)  # [rows, classes named]
    named = ops.any(matches, axis=-1)
    place = ops.where(named, ops.argmax(ops.cast(matches, "int32"), axis=-1), len(classes))
    return ops.take(weights, place)


def _class_number(key: object) -> int:
    if isinstance(key, str) or int(key) != key:  # type: ignore[call-overload]  # the user's: what is no number raises
        raise ValueError(f"{key!r} is no class number")
    return int(key)  # type: ignore[call-overload, no-any-return]
