"""The steps of the custom loop where the user gives none: what Keras's own do."""

from __future__ import annotations

import keras
import tensorflow as tf


def default_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    x: tf.Tensor,
    y: tf.Tensor,
    sample_weight: tf.Tensor | None = None,
) -> tf.Tensor:
    """One training step on one batch, as for one device.

    Args:
        model: the compiled model; `optimizer` is its optimizer.
        optimizer: see `model`.
        x: the batch's inputs, ``[rows, ...]``, or a list or dict of them; likewise its targets, `y`.
        y: see `x`.
        sample_weight: a number per row, or None.

    Returns:
        the batch's loss, a scalar.
    """
    with tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        loss = model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
        scaled = optimizer.scale_loss(loss)
    gradients = tape.gradient(scaled, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
    return loss


def default_valid_step(
    model: keras.Model, x: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None = None
) -> tf.Tensor:
    """One validation step on one batch; arguments and result are those of `default_train_step`."""
    y_pred = model(x, training=False)
    loss = model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=False)
    model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
    return loss
