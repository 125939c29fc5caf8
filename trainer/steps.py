"""The step functions that are traced: Keras's own, or the user's of the custom loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .compute import StepFunction
from .errors import UnsupportedModelError
from .loops.custom import default_train_step, default_valid_step
from .trainee import REDUCTIONS, Trainee


def keras_steps(trainee: Trainee) -> tuple[StepFunction, StepFunction]:
    """The model's own (perhaps overridden) `train_step` and `test_step`, as functions of (x, y, sample_weight)."""
    model = trainee.model
    return (
        lambda x, y, sample_weight: _undecorated(model.train_step)((x, y, sample_weight)),
        lambda x, y, sample_weight: _undecorated(model.test_step)((x, y, sample_weight)),
    )


def custom_steps(
    trainee: Trainee, train_step: Callable[..., Any] | None, valid_step: Callable[..., Any] | None, *, weighted: bool
) -> tuple[StepFunction, StepFunction]:
    """The user's steps, or the defaults, as functions of (x, y, sample_weight)."""
    model, optimizer = trainee.model, trainee.optimizer
    train = _with_autograph(train_step or default_train_step)
    valid = _with_autograph(valid_step or default_valid_step)

    def weights(sample_weight: Any) -> tuple[Any, ...]:
        return (sample_weight,) if weighted else ()

    return (
        lambda x, y, sample_weight: train(model, optimizer, x, y, *weights(sample_weight)),
        lambda x, y, sample_weight: valid(model, x, y, *weights(sample_weight)),
    )


def steps_reduction(trainee: Trainee, train_step: Callable[..., Any] | None) -> str:
    """How the loss of the steps reduces over rows: of the compiled loss, unless a custom step declares another.

    A custom step says so with an attribute: ``train_step.reduction = "sum"``.
    """
    declared = getattr(train_step, "reduction", None)
    if train_step is None or declared is None:
        return trainee.reduction if train_step is None else "sum_over_batch_size"
    if declared not in REDUCTIONS:
        raise UnsupportedModelError(
            f"train_step.reduction is {declared!r}; it must be one of {', '.join(REDUCTIONS)}: how the loss that the "
            "step differentiates reduces over the rows of its batch."
        )
    return "sum_over_batch_size" if declared == "mean" else str(declared)


def _undecorated(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step decorated with `tf.function` is traced with ours: what it assigns must be seen there."""
    function = getattr(step, "python_function", step)
    return function  # type: ignore[no-any-return]


def _with_autograph(step: Callable[..., Any]) -> Callable[..., Any]:
    converted = tf.autograph.experimental.do_not_convert if step in (default_train_step, default_valid_step) else None
    if converted is not None:
        return converted(step)  # type: ignore[no-any-return]
    control = tf.__internal__.autograph.control_status_ctx
    context = control()
    return lambda *args: tf.__internal__.autograph.tf_convert(_undecorated(step), context)(*args)
