"""What a step returns, as logs: what of it is merged by state, what is a mean over rows, and under which names.

A step may return what Keras takes: nothing, a loss, or numbers by name, some of them in dicts of their own
(`pythonify_logs` in keras/src/utils/python_utils.py). Each is one of three kinds:

    it follows from           and is
    metrics and state alone   computed from the merged state (`derived.py`)
    rows                      under the name of a metric that the step updates: that metric's result
                              else the mean over the rows of the pass

Plain Keras shows the last batch's value for the last kind, and for some names of metrics a zero; a mean over a pass is
what both are meant to tell.

A metric's state is added up over microbatches. A `Mean` that is given one number per batch, such as the loss, counts a
batch once, however many rows it has; so each microbatch gives its share of number and count. That is seen where its
count follows from no rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf

from ..errors import UnsupportedStepError
from . import private_api, private_models
from .capture import StepScope
from .derived import Cone, Derived, place_of
from .metric_rules import MetricVariable
from .model import BuiltModel

StepLogs: TypeAlias = "Mapping[str, object] | tf.Tensor | None"
"""Numbers by name, dicts of them among these; a loss; or nothing."""
MetricState = tuple[MetricVariable, tf.Tensor]
"""State that a step has changed, and its value in the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLogs:
    """What a step has returned.

    Attributes:
        logged: values of which the mean over rows is logged, by name.
        derived: those that follow from metrics and state; None if there are none.
        names: of all logs, in order.
    """

    logged: dict[str, tf.Tensor]
    derived: Derived | None
    names: tuple[str, ...]

    @property
    def shapes(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of the logged values."""
        return tuple((name, tuple(value.shape)) for name, value in self.logged.items())


class StepResults:
    """Reads what the step of a model has returned and what it has done to metrics.

    Args:
        built: the model. Its metrics give results here, so the caller holds `runtime.BUILD_LOCK`.
        only_returned: the step's result alone tells the logs, as in Keras; otherwise every metric it updates too.
    """

    def __init__(self, built: BuiltModel, *, only_returned: bool) -> None:
        self._model, self._only_returned = built.model, only_returned
        self._names = [_result_names(metric) for metric in built.model.metrics]
        self._counts = {id(part): mean.count for mean in private_models.means(built.model) for part in mean.variables}
        self._counted_once: set[int] = set()  # of the trace that was read last

    def read(
        self, numbers: Mapping[str, tf.Tensor], updated: Sequence[MetricState], rows: Sequence[tf.Tensor]
    ) -> ReadLogs:
        """What is logged after a step.

        Args:
            numbers: what the step returned, as `numbers_of` has read it.
            updated: the metric state that it has changed; a number in `derived` counts these from 0.
            rows: all that differs between microbatches: rows, weights and seeds.

        Raises:
            UnsupportedStepError: it returned a number for each row.
        """
        by_metrics = self._names_of_updated([variable for variable, _ in updated])
        derived = {name: value for name, value in numbers.items() if not _follows_from_rows(value, updated, rows)}
        logged = {name: numbers[name] for name in numbers if name not in derived and name not in by_metrics}
        for name, value in logged.items():
            if value.shape.rank is None or None in tuple(value.shape):
                raise UnsupportedStepError(
                    f"The step returned {name!r} with the shape {tuple(value.shape)}; it may return a scalar loss, or "
                    "a dict of scalars. Reduce it over the rows of the batch."
                )
        self._counted_once = {id(m.variable) for m, value in updated if not _follows_from_rows(value, (), rows)}
        # Keras's rule for an overridden train_step: the logs are what it returns.
        names = dict.fromkeys(numbers if self._only_returned and numbers else [*numbers, *by_metrics])
        states = [(number, value) for number, (_, value) in enumerate(updated)]
        return ReadLogs(logged=logged, derived=Derived(derived, states) if derived else None, names=tuple(names))

    def metric_sum(self, metric: MetricVariable, scope: StepScope, weights: tf.Tensor) -> tf.Tensor:
        """What a microbatch adds to a metric's state; `read` was called before, for the same trace.

        Args:
            metric: state that merges by addition.
            scope: knows its new value.
            weights: float64 ``[4]``, see `layout.microbatch_weights`.
        """
        counted_once = id(self._counts.get(id(metric.variable))) in self._counted_once
        return state_sum(self._model, metric, scope, weights, counted_once=counted_once)

    def _names_of_updated(self, updated: Sequence[MetricVariable]) -> list[str]:
        """Names of the results whose metrics the step has updated."""
        ids = {id(m.variable) for m in updated}
        return [
            name
            for metric, names in zip(self._model.metrics, self._names, strict=True)
            if any(id(v) in ids for v in metric.variables)
            for name in names
        ]


def state_sum(
    model: keras.Model,
    metric: MetricVariable,
    scope: keras.StatelessScope,
    weights: tf.Tensor | np.ndarray,
    *,
    counted_once: bool = False,
) -> tf.Tensor:
    """What rows add to the state of a metric that merges by addition.

    Args:
        model: the model.
        metric: the state.
        scope: knows its new value.
        weights: float64 ``[4]``, see `layout.microbatch_weights`.
        counted_once: whether it was given one number, however many rows there are.
    """
    for output in private_api.output_loss_trackers(model):
        # Keras counts the loss of one output once per batch where it does not know the batch's size: count rows.
        if metric.variable is output.total:
            mean = scope.get_current_value(output.total) / scope.get_current_value(output.count)
            return logged_sum(mean, weights)
        if metric.variable is output.count:
            return weights[3]
    value = tf.cast(scope.get_current_value(metric.variable), tf.float64)
    if counted_once:
        return value * weights[1]
    return value * weights[2] if metric.variable is private_api.loss_tracker(model).total else value


def logged_sum(value: tf.Tensor, weights: tf.Tensor | np.ndarray) -> tf.Tensor:
    """What a microbatch adds to a returned value's total; its rows are what goes to the count.

    Args:
        value: as the step returned it.
        weights: float64 ``[4]``, see `layout.microbatch_weights`.
    """
    # Rounded where keras.metrics.Mean rounds, so that a returned loss equals a tracked one to the bit.
    floatx = keras.config.floatx()
    return tf.cast(tf.cast(value, floatx) * tf.cast(weights[3], floatx), tf.float64) * weights[2]


def numbers_of(returned: StepLogs) -> dict[str, tf.Tensor]:
    """What a step has returned, by name; to be called in the step's scope, where variables have their new values.

    Raises:
        UnsupportedStepError: something in it is no number.
    """
    return dict(_flat(returned))


def _flat(returned: object, name: str = "loss") -> Iterator[tuple[str, tf.Tensor]]:
    """Numbers by name; dicts among them give their own names, as in Keras."""
    if isinstance(returned, Mapping):
        for key, value in returned.items():
            yield from _flat(value, str(key))
    elif returned is not None:
        try:
            value = tf.convert_to_tensor(returned)
        except (TypeError, ValueError) as error:
            raise UnsupportedStepError(
                f"The step returned {name!r} as {type(returned).__name__}, which is no number. It may return a loss, "
                "or numbers by name: losses, results of metrics, dicts of them."
            ) from error
        if not (value.dtype.is_floating or value.dtype.is_integer or value.dtype.is_bool):
            raise UnsupportedStepError(
                f"The step returned {name!r} as {value.dtype.name}; logs are numbers: leave it out."
            )
        yield name, value


def _follows_from_rows(value: tf.Tensor, updated: Sequence[MetricState], rows: Sequence[tf.Tensor]) -> bool:
    """Whether a returned value follows from rows, other than through metrics' new states."""
    operations = Cone(value, {place_of(state) for _, state in updated}).operations
    return any(row.op.name in operations for row in rows)


def _result_names(metric: keras.metrics.Metric) -> list[str]:
    result = metric.result()
    return list(result) if isinstance(result, Mapping) else [metric.name]
