"""From a step (Keras's own, or the user's of the custom loop) to the microbatches that it is traced for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from heliostat.data import Dataset
from heliostat.data.order.plan import BatchPlan
from heliostat.data.order.window import Shuffle

from ..columns import Columns, sample_rows
from ..config import FitConfig, PassConfig
from ..engine.feed import Feed
from ..engine.gradients import GradientFunction, Kind
from ..engine.labels import labels_to_check
from ..engine.microbatches import Microbatches
from ..engine.model import MEAN_REDUCTIONS, REDUCTIONS, BuiltModel
from ..engine.private_api import with_autograph
from ..engine.scoped_step import StepFunction
from ..engine.times import StartTimes
from ..errors import ModelError, UnsupportedModelError, UnsupportedStepError
from ..jobs import FitJob
from ..shipping import UserCode
from ..trainer_config import TrainerConfig
from .default_steps import default_train_step, default_valid_step


@dataclass(frozen=True, slots=True, kw_only=True)
class StepToTrace:
    """A step, and what must be known to trace it.

    Attributes:
        function: takes (x, y, sample_weight).
        kind: whether it trains.
        reduction: how its loss reduces over rows.
        only_returned_logs: what it returns alone tells the logs, as in Keras; otherwise every metric it updates too.
    """

    function: StepFunction
    kind: Kind
    reduction: str
    only_returned_logs: bool = True

    def trace(self, built: BuiltModel, columns: Columns, sample: Mapping[str, np.ndarray]) -> GradientFunction:
        """Trace it.

        Args:
            built: the model.
            columns: which columns are inputs, targets and weights.
            sample: a few rows of each, for shapes and dtypes.

        Raises:
            UnsupportedStepError, UnsupportedModelError: the step does something that cannot be exact.
        """
        return GradientFunction(
            built,
            self.function,
            kind=self.kind,
            columns=columns,
            sample=sample,
            reduction=self.reduction,
            only_returned_logs=self.only_returned_logs,
        )


def steps_of(built: BuiltModel, wanted: FitConfig, code: UserCode) -> tuple[StepToTrace, StepToTrace]:
    """The steps by which a run trains and validates.

    Args:
        built: the model.
        wanted: what the run wants.
        code: the user's steps, if there are any.

    Raises:
        UnsupportedStepError, UnsupportedModelError: it cannot be told how a step's loss reduces over rows.
    """
    if wanted.loop != "custom":
        return _train_step(built, wanted.columns), test_step(built, wanted.validation_columns)
    train, valid = _custom_steps(built, code, wanted)
    train_reduction = _reduction(built, code.train_step, "train_step")
    valid_reduction = _reduction(built, code.valid_step, "valid_step")
    return (
        StepToTrace(function=train, kind="train", reduction=train_reduction, only_returned_logs=False),
        StepToTrace(function=valid, kind="evaluate", reduction=valid_reduction, only_returned_logs=False),
    )


def _train_step(built: BuiltModel, columns: Columns) -> StepToTrace:
    """The model's own (perhaps overridden) `train_step`; raises ModelError where its loss would have no targets."""
    kind = type(built.model)
    is_own = kind.train_step is not keras.Model.train_step or kind.compute_loss is not keras.Model.compute_loss
    if columns.targets is None and built.model.loss is not None and not is_own:
        raise ModelError(
            f"The model {built.model.name!r} is compiled with a loss, and the rows have no targets: x alone was given. "
            "Give fit(x, y), fit(x, x) for an autoencoder, or targets='...', a column; or compile without a loss where "
            "the model calls add_loss()."
        )
    return StepToTrace(function=_on_data(built.model.train_step, columns), kind="train", reduction=built.reduction)


def test_step(built: BuiltModel, columns: Columns) -> StepToTrace:
    """The model's own (perhaps overridden) `test_step`."""
    return StepToTrace(function=_on_data(built.model.test_step, columns), kind="evaluate", reduction=built.reduction)


def _on_data(step: Callable[..., Any], columns: Columns) -> StepFunction:
    """A step that takes what Keras calls ``data``, as a function of (x, y, sample_weight)."""
    undecorated = _undecorated(step)
    return lambda x, y, sample_weight: undecorated(columns.packed(x, y, sample_weight))


def _custom_steps(built: BuiltModel, code: UserCode, wanted: FitConfig) -> tuple[StepFunction, StepFunction]:
    """The user's steps, or the defaults, as functions of (x, y, sample_weight)."""
    model, optimizer = built.model, built.optimizer
    if built.named_optimizers is not None and code.train_step is not None:
        optimizer = built.named_optimizers
    train = _with_autograph(code.train_step or default_train_step)
    valid = _with_autograph(code.valid_step or default_valid_step)

    def weights(sample_weight: object, columns: Columns) -> tuple[object, ...]:
        return (sample_weight,) if columns.is_weighted else ()

    return (
        lambda x, y, sample_weight: train(model, optimizer, x, y, *weights(sample_weight, wanted.columns)),
        lambda x, y, sample_weight: valid(model, x, y, *weights(sample_weight, wanted.validation_columns)),
    )


def _reduction(built: BuiltModel, step: Callable[..., Any] | None, name: str) -> str:
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


def open_step(built: BuiltModel, step: StepToTrace, dataset: Dataset, job: FitJob, times: StartTimes) -> Microbatches:
    """Trace a step of a run, and open the rows that it is computed on.

    Args:
        built: the model.
        step: trains or validates.
        dataset: the rows.
        job: the run.
        times: where the time for both is noted.
    """
    wanted, trains = job.wanted, step.kind == "train"
    columns = wanted.columns if trains else wanted.validation_columns
    with times.part("trace"):
        gradients = step.trace(built, columns, sample_rows(dataset, columns))
    with times.part("open"):
        if not trains:
            return open_pass(built, gradients, dataset, wanted.validation_pass, job.settings)
        plan = BatchPlan(
            num_rows=len(dataset),
            global_batch_size=wanted.global_batch_size,
            num_microbatches=job.settings.total_microbatches,
            steps_per_epoch=wanted.steps_per_epoch,
        )
        return _opened(built, gradients, dataset, plan, job.settings.seed, wanted.shuffle)


def open_pass(
    built: BuiltModel, gradients: GradientFunction, dataset: Dataset, wanted: PassConfig, settings: TrainerConfig
) -> Microbatches:
    """The rows of a pass without training, in their order, for a traced step.

    Args:
        built: the model.
        gradients: the traced step.
        dataset: the rows.
        wanted: how many of them, and how they are cut into steps.
        settings: the trainer's.
    """
    plan = BatchPlan(
        num_rows=len(dataset),
        global_batch_size=wanted.global_batch_size,
        num_microbatches=settings.total_microbatches,
        steps_per_epoch=wanted.num_steps(len(dataset)),
    )
    return _opened(built, gradients, dataset, plan, settings.seed, shuffle=False)


def _opened(
    built: BuiltModel, gradients: GradientFunction, dataset: Dataset, plan: BatchPlan, seed: int, shuffle: Shuffle
) -> Microbatches:
    """Rows for a traced step.

    Args:
        built: the model.
        gradients: the traced step.
        dataset: the rows.
        plan: how they are cut.
        seed: of the run.
        shuffle: their order.
    """
    labels = labels_to_check(built.model, dataset, gradients.columns)
    reduction = gradients.reduction
    feed = Feed(dataset, gradients.columns, plan, seed=seed, shuffle=shuffle, reduction=reduction, labels=labels)
    return Microbatches(built, gradients, feed, seed)
