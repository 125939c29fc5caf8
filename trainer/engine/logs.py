"""What a step returns, as logs: which of it are metrics that merge by state, and what its scalars add to the sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import keras
import tensorflow as tf

from ..errors import UnsupportedStepError
from . import private_api
from .capture import StepScope
from .metrics import MetricVariable
from .model import BuiltModel

StepLogs: TypeAlias = "Mapping[str, tf.Tensor] | tf.Tensor | None"


class StepResults:
    """Reads what the step of a model has returned and what it has done to metrics.

    Args:
        built: the model. Its metrics give results here, so the caller holds `runtime.BUILD_LOCK`.
        only_returned: the step's result alone tells the logs, as in Keras; otherwise every metric it updates too.
    """

    def __init__(self, built: BuiltModel, *, only_returned: bool) -> None:
        self._model, self._only_returned = built.model, only_returned
        self._names = [_result_names(metric) for metric in built.model.metrics]

    def logs(
        self, returned: StepLogs, updated: Sequence[MetricVariable]
    ) -> tuple[dict[str, tf.Tensor], tuple[str, ...]]:
        """What is logged after a step.

        Args:
            returned: what the step returned.
            updated: the metric state that it has changed.

        Returns:
            scalars to be logged by themselves, and the names of all logs in order.

        Raises:
            UnsupportedStepError: it returned something that is no scalar.
        """
        by_metrics = self._names_of_updated(updated)
        if not isinstance(returned, Mapping):
            returned = {} if returned is None else {"loss": returned}
        logged = {}
        for name, value in returned.items():
            if name in by_metrics:
                continue
            if keras.ops.ndim(value) != 0:
                raise UnsupportedStepError(
                    f"The step returned {name!r} with the shape {tuple(value.shape)}; it may return a scalar loss, or "
                    "a dict of scalars. Reduce it over the rows of the batch."
                )
            logged[name] = value
        # Keras's rule for an overridden train_step: the logs are what it returns.
        wanted = dict.fromkeys(returned if self._only_returned and returned else [*returned, *by_metrics])
        return logged, tuple(wanted)

    def metric_sum(self, metric: MetricVariable, scope: StepScope, weights: tf.Tensor) -> tf.Tensor:
        """What a microbatch adds to a metric's state.

        Args:
            metric: state that merges by addition.
            scope: knows its new value.
            weights: float64 ``[4]``, see `layout.microbatch_weights`.
        """
        for output in private_api.output_loss_trackers(self._model):
            # Keras counts the loss of one output once per batch where it does not know the batch's size: count rows.
            if metric.variable is output.total:
                mean = scope.get_current_value(output.total) / scope.get_current_value(output.count)
                return logged_sum(mean, weights)
            if metric.variable is output.count:
                return weights[3]
        value = tf.cast(scope.get_current_value(metric.variable), tf.float64)
        tracker = private_api.loss_tracker(self._model)
        return value * weights[2] if metric.variable is tracker.total else value

    def _names_of_updated(self, updated: Sequence[MetricVariable]) -> list[str]:
        """Names of the results whose metrics the step has updated."""
        ids = {id(m.variable) for m in updated}
        return [
            name
            for metric, names in zip(self._model.metrics, self._names, strict=True)
            if any(id(v) in ids for v in metric.variables)
            for name in names
        ]


def logged_sum(value: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """What a microbatch adds to a returned scalar's total; its rows are what goes to the count.

    Args:
        value: the scalar, as the step returned it.
        weights: float64 ``[4]``, see `layout.microbatch_weights`.
    """
    # Rounded where keras.metrics.Mean rounds, so that a returned loss equals a tracked one to the bit.
    floatx = keras.config.floatx()
    return tf.cast(tf.cast(value, floatx) * tf.cast(weights[3], floatx), tf.float64) * weights[2]


def _result_names(metric: keras.metrics.Metric) -> list[str]:
    result = metric.result()
    return list(result) if isinstance(result, Mapping) else [metric.name]
