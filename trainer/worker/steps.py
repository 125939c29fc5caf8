"""The step functions that are traced: Keras's own, or the user's of the custom loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..engine.gradients import StepFunction
from ..engine.model import MEAN_REDUCTIONS, REDUCTIONS, BuiltModel
from ..engine.private_api import with_autograph
from ..errors import UnsupportedModelError, UnsupportedStepError
from .custom import default_train_step, default_valid_step


def keras_steps(built: BuiltModel) -> tuple[StepFunction, StepFunction]:
    """The model's own (perhaps overridden) `train_step` and `test_step`, as functions of (x, y, sample_weight)."""
    model = built.model
    return (
        lambda x, y, sample_weight: _undecorated(model.train_step)((x, y, sample_weight)),
        lambda x, y, sample_weight: _undecorated(model.test_step)((x, y, sample_weight)),
    )


def custom_steps(
    built: BuiltModel, train_step: Callable[..., Any] | None, valid_step: Callable[..., Any] | None, *, weighted: bool
) -> tuple[StepFunction, StepFunction]:
    """The user's steps, or the defaults, as functions of (x, y, sample_weight)."""
    model, optimizer = built.model, built.optimizer
    train = _with_autograph(train_step or default_train_step)
    valid = _with_autograph(valid_step or default_valid_step)

    def weights(sample_weight: Any) -> tuple[Any, ...]:
        return (sample_weight,) if weighted else ()

    return (
        lambda x, y, sample_weight: train(model, optimizer, x, y, *weights(sample_weight)),
        lambda x, y, sample_weight: valid(model, x, y, *weights(sample_weight)),
    )


def step_reduction(built: BuiltModel, step: Callable[..., Any] | None, name: str) -> str:
    """How the loss of a step reduces over rows: as the compiled loss does, unless a custom step declares another.

    A custom step says so with an attribute: ``train_step.reduction = "sum"``. It must, where the compiled loss is no
    mean over rows: whether the step uses that loss cannot be seen.

    Raises:
        UnsupportedStepError: the step does not say it.
        UnsupportedModelError: what it says is unknown.
    """
    declared = getattr(step, "reduction", None)
    if declared is None:
        if step is not None and built.reduction not in MEAN_REDUCTIONS:
            raise UnsupportedStepError(
                f"The compiled loss reduces by {built.reduction!r}, and {name} does not say how the loss that it "
                f'computes does. Say it after the function: {name}.reduction = "{built.reduction}" if it uses the '
                'compiled loss, "mean" if its loss is a mean over rows.'
            )
        return built.reduction
    if declared not in REDUCTIONS:
        raise UnsupportedModelError(
            f"{name}.reduction is {declared!r}; it must be one of {', '.join(REDUCTIONS)}: how the loss that the step "
            "computes reduces over the rows of its batch."
        )
    return "sum_over_batch_size" if declared == "mean" else str(declared)


def _undecorated(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step decorated with `tf.function` is traced with ours: what it assigns must be seen there."""
    return getattr(step, "python_function", step)  # type: ignore[no-any-return]


def _with_autograph(step: Callable[..., Any]) -> Callable[..., Any]:
    """A user's step with `if` and `for` on tensors made into graph operations, as `tf.function` would."""
    if step in (default_train_step, default_valid_step):
        return step
    return with_autograph(_undecorated(step))
