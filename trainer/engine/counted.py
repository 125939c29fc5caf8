"""What a step counts: the changes of its metrics, and the scalars that it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

from .capture import StepScope
from .logs import StepResults, logged_sum
from .metrics import MetricLayout
from .model import BuiltModel
from .origins import Origins


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """What one microbatch counts.

    Attributes:
        layout: of metrics and scalars; it knows no integer state.
        sums: changes of metrics that add up, then a total and a number of rows for every logged scalar.
        maxima: changes of metrics that merge by maximum, negated those that merge by minimum.
    """

    layout: MetricLayout
    sums: list[list[tf.Tensor]]
    maxima: list[tf.Tensor]

    def over(
        self, origins: Origins, has_sum: Sequence[bool]
    ) -> tuple[list[list[tf.Tensor]], list[list[tf.Tensor]], tuple[bool, ...]]:
        """The same for each phase of a step: everything is counted in one of them.

        It goes with the first phase that knows the number and has a sum anyway. Otherwise a mean of the first phase
        that is returned at the end would have all of that phase computed again in the last one.

        Args:
            origins: of the numbers of the graph.
            has_sum: which phases have one.

        Returns:
            by phase its sums, its maxima, and whether it has a sum now.
        """
        sums: list[list[tf.Tensor]] = [[] for _ in has_sum]
        maxima: list[list[tf.Tensor]] = [[] for _ in has_sum]
        summed = list(has_sum)

        def chosen(values: Sequence[tf.Tensor]) -> int:
            known = max(origins.of(value).phase for value in values)
            phase = next((number for number in range(known, len(summed)) if summed[number]), known)
            summed[phase] = True
            return phase

        for group in self.sums:
            values = [tf.cast(value, tf.float64) for value in group]
            phase = chosen(values)
            for number, each in enumerate(sums):
                each += values if number == phase else [tf.zeros(value.shape, tf.float64) for value in values]
        for value in self.maxima:
            value = tf.cast(value, tf.float64)
            phase = chosen([value])
            for number, each in enumerate(maxima):
                each.append(value if number == phase else tf.fill(value.shape, tf.constant(-float("inf"), tf.float64)))
        return sums, maxima, tuple(summed)


def counted(
    built: BuiltModel,
    results: StepResults,
    numbers: Mapping[str, tf.Tensor],
    scope: StepScope,
    rows: Sequence[tf.Tensor],
) -> Counted:
    """What a step has counted.

    Args:
        built: the model.
        results: reads what it has returned.
        numbers: what it has returned, by name.
        scope: what it has done.
        rows: all that differs between microbatches: columns, then weights (float64, see `layout.microbatch_weights`),
            then seeds.
    """
    weights = rows[-2]
    updated = tuple(m for m in built.metrics if scope.is_changed(m.variable))
    states = [(m, scope.get_current_value(m.variable)) for m in updated]
    logs = results.read(numbers, states, rows)
    sums = [[results.metric_sum(m, scope, weights)] for m in updated if m.rule == "sum"]
    sums += [[logged_sum(value, weights), weights[3]] for value in logs.logged.values()]
    maxima = [scope.get_current_value(m.variable) * (1 if m.rule == "max" else -1) for m in updated if m.rule != "sum"]
    layout = MetricLayout(
        variables=updated, logged=logs.shapes, num_int_state=0, result_names=logs.names, derived=logs.derived
    )
    return Counted(layout, sums, maxima)
