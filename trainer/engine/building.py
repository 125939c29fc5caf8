"""Weights, optimizer and metric state of a model, created before anything is traced: `build_state`.

Plain Keras builds a model while it traces the first step, in whatever way that step calls it. Here all state must be
there before. Most models are built by calling them on symbolic rows, and their loss and metrics on what they return.
Published models often have a step of their own which does something else: it calls a generator and a discriminator and
there is no `call()`, or `call()` takes other things than the step, or losses get targets that the step makes. So a step
of the model's own is run on symbolic rows first, without effects; what it leaves unbuilt is built by a call.

The optimizer comes last, when the weights have the values that the run begins with: it may copy them when it is built,
as averages, lookahead and schedule-free optimizers do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from heliostat.cluster.group.user_frames import one_reason

from ..columns import Columns
from ..errors import DataError, ModelError
from . import private_models


def build_state(
    model: keras.Model,
    sample: dict[str, np.ndarray],
    columns: Columns,
    weights: Sequence[np.ndarray] | None = None,
) -> None:
    """Create weights, optimizer and metric state of a compiled model.

    Args:
        model: changed in place.
        sample: a few rows of every column, for shapes and dtypes.
        columns: which of them are inputs and targets.
        weights: for ``model.set_weights``; None leaves those that the model has.

    Raises:
        DataError: the model does not take such rows.
        ModelError: it does not take the weights; or it has no `call()`, and its step does not build all of its layers.
    """
    symbolic = {name: keras.KerasTensor((None, *v.shape[1:]), _dtype(v)) for name, v in sample.items()}
    batch = columns.assemble(symbolic)
    came_to_end = _build_by_step(model, columns.packed(*batch))
    if not came_to_end or private_models.unbuilt(model):
        failure = _build_by_call(model, batch) if private_models.has_call(model) else None
        if failure is not None and not came_to_end:
            _refuse_untraceable(model, columns.assemble(_rows(sample))[0])
            shapes = ", ".join(f"{name}: {v.dtype} {v.shape[1:]} per row" for name, v in sample.items())
            raise DataError(
                f"The model cannot take this data ({shapes}): {one_reason(failure).rstrip('.')}. "
                "Check inputs=, targets= and the model's input shapes."
            ) from failure
    _check_layers(model)
    private_models.take_as_built(model)
    if weights is not None:
        _set_weights(model, weights)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _dtype(rows: np.ndarray) -> str:
    """The dtype in which a model gets these rows."""
    if rows.dtype.kind == "O":
        return "string"
    return str(keras.config.floatx() if rows.dtype.kind == "f" else rows.dtype)


def _rows(sample: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(rows, _dtype(rows)) for name, rows in sample.items()}


def _refuse_untraceable(model: keras.Model, x: object) -> None:
    """Raise `ModelError` where a model takes rows when it is called on them, and Keras cannot trace it by itself.

    Args:
        model: could not be built.
        x: its inputs, a few rows.
    """
    try:
        model(x, training=False)
    except Exception:  # whatever the user's layers raise: the rows may not fit
        return
    try:
        tf.function(lambda: model(x, training=True), autograph=False).get_concrete_function()
    except Exception as error:
        raise ModelError(
            f"Keras cannot trace this model: {one_reason(error).rstrip('.')}. The rows are not at fault: called on "
            "them directly, the model takes them; traced by a tf.function, as keras.Model.fit does it, it fails "
            "without Heliostat as well. Look for what the model does that works eagerly only (keras.RematScope under "
            "TensorFlow, .numpy() in a layer)."
        ) from error


def _build_by_call(model: keras.Model, batch: tuple[object, object, object]) -> Exception | None:
    """Build what a call builds; returns what it raised."""
    try:
        with _left_unbuilt(model.optimizer):
            private_models.build_by_example(model, batch)
    except Exception as error:  # whatever the user's layers raise
        return error
    return None


@contextlib.contextmanager
def _left_unbuilt(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """In the block Keras builds all of a model but its optimizer."""
    was_built, optimizer.built = optimizer.built, True
    try:
        yield
    finally:
        optimizer.built = was_built


def _set_weights(model: keras.Model, weights: Sequence[np.ndarray]) -> None:
    try:
        model.set_weights(list(weights))
    except ValueError as error:
        raise ModelError(
            f"initial_weights do not fit the model that build_model returns: {error} Give the arrays of "
            "get_weights() of a model with the same layers."
        ) from error


def _build_by_step(model: keras.Model, data: object) -> bool:
    """Build what the model's own steps build; returns whether there is one, and the first came to its end.

    What they raise shows again when they are traced.
    """
    return [private_models.run_symbolically(step, data) for step in own_steps(model)][:1] == [True]


def own_steps(model: keras.Model) -> list[Callable[[object], object]]:
    """The steps that a model's class overrides, the one that trains first."""
    kind = type(model)
    steps = [model.train_step] if kind.train_step is not keras.Model.train_step else []
    return [*steps, *([model.test_step] if kind.test_step is not keras.Model.test_step else [])]


def _check_layers(model: keras.Model) -> None:
    left = [layer.name for layer in private_models.unbuilt_layers(model)]
    if left and not private_models.has_call(model):
        raise ModelError(
            f"The model {model.name!r} has no call(), and nothing says which shapes its layers {', '.join(left)} get. "
            "Begin them with a keras.Input(shape), call build(shape) on them in build_model, or give it a call()."
        )
    model.built = True
