"""Metrics as sums: what of a metric's state is added up, and how numbers come out of it.

A pass over data (a training epoch, a validation) keeps one running `MetricSums` on every worker, in float64 on the
host. Every microbatch starts its metrics at their initial state, so what it brings *is* its change; the changes are
summed in the tree with the gradients. So AUC comes from global confusion counts, not from a mean of AUCs. What merges
by minimum is negated and merged by maximum; integer state of layers goes the same way, beside its negative.

Numbers come out of the sums by the metric's own ``result()``, traced once on given state (`Results`). In training a
pass is counted step by step (`EpochMetrics`, by `step.py`); in a pass without training the driver adds up what workers
hand in (``driver/coordinator.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from .derived import Derived
from .metric_rules import MetricVariable
from .private_api import options_as_written

Components = Callable[[keras.Variable], Sequence[tf.Variable]]
Logs = dict[str, float | list[float]]
"""Numbers by name: a list for a metric with several values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricLayout:
    """Which numbers a step brings besides gradients, in the order in which they are summed.

    Attributes:
        variables: the metric variables that the step updates.
        logged: names of values that the step returned and no metric holds, with their shapes; each is a total, and a
            number of rows.
        num_int_state: number of elements of integer state that every microbatch must agree on.
        result_names: names of the logs, in the order the step returned them.
        derived: those that follow from metrics and state; None if there are none.
    """

    variables: tuple[MetricVariable, ...]
    logged: tuple[tuple[str, tuple[int, ...]], ...]
    num_int_state: int
    result_names: tuple[str, ...]
    derived: Derived | None = field(default=None, repr=False, compare=False)

    @property
    def num_sums(self) -> int:
        """Length of the float64 bucket that is summed."""
        return sum(m.size for m in self.variables if m.rule == "sum") + self.num_logged

    @property
    def num_logged(self) -> int:
        """How many of them are totals and rows of logged values."""
        return sum(math.prod(shape) + 1 for _, shape in self.logged)

    @property
    def num_maxima(self) -> int:
        """Length of the float64 bucket of which the maximum is taken (minima are negated)."""
        return sum(m.size for m in self.variables if m.rule != "sum") + 2 * self.num_int_state


@dataclass(slots=True)
class MetricSums:
    """Running global state of metrics over a pass; the same on every worker.

    Attributes:
        sums: float64 ``[num_sums]``.
        maxima: float64 ``[num_maxima]``.
        rows: rows counted so far.
    """

    sums: np.ndarray
    maxima: np.ndarray
    rows: int = field(default=0)

    @classmethod
    def start(cls, layout: MetricLayout) -> MetricSums:
        """The state before the first row."""
        return cls(np.zeros(layout.num_sums), np.full(layout.num_maxima, -np.inf))

    def add(self, sums: np.ndarray, maxima: np.ndarray, rows: int) -> None:
        """Count one global batch.

        Args:
            sums: float64 ``[num_sums]``, summed over its microbatches.
            maxima: float64 ``[num_maxima]``, the maximum over its microbatches.
            rows: of the batch.
        """
        self.sums += sums
        np.maximum(self.maxima, maxima, out=self.maxima)
        self.rows += rows


def metric_values(layout: MetricLayout, metric_sums: MetricSums) -> list[np.ndarray]:
    """The value of each metric variable of `layout` that the sums stand for, in the variable's dtype and shape."""
    values = []
    start = {"sum": 0, "max": 0}
    for metric in layout.variables:
        source = "sum" if metric.rule == "sum" else "max"
        numbers = metric_sums.sums if source == "sum" else metric_sums.maxima
        flat = numbers[start[source] : start[source] + metric.size]
        start[source] += metric.size
        if metric.rule == "min":
            flat = -flat
        if metric.rule != "sum" and metric_sums.rows == 0:
            flat = metric.initial.ravel()
        values.append(flat.reshape(metric.initial.shape).astype(metric.initial.dtype))
    return values


def logged_values(layout: MetricLayout, metric_sums: MetricSums) -> dict[str, np.ndarray]:
    """Row-weighted means of the logged values, divided in Keras's float type as `keras.metrics.Mean` does."""
    start, means = layout.num_sums - layout.num_logged, {}
    for name, shape in layout.logged:
        *totals, rows = metric_sums.sums[start : start + math.prod(shape) + 1].astype(keras.config.floatx())
        means[name] = (np.asarray(totals) / rows if rows else np.zeros(len(totals))).reshape(shape)
        start += len(totals) + 1
    return means


class Results:
    """Turns sums into numbers: the metrics' own ``result()``, traced once, on given state."""

    def __init__(self, model: keras.Model, layout: MetricLayout) -> None:
        self._layout = layout
        derived = layout.derived
        own = {name for name, _ in layout.logged} | set(() if derived is None else derived.names)
        wanted = set(layout.result_names) - own
        variables = [metric.variable for metric in layout.variables]
        specs = [tf.TensorSpec(v.shape, v.dtype) for v in variables]

        @tf.function(autograph=False, input_signature=specs)
        def results(*values: tf.Tensor) -> dict[str, tf.Tensor]:
            with keras.StatelessScope(list(zip(variables, values, strict=True))):
                results = model.get_metrics_result() if wanted else {}
                found = {name: value for name, value in results.items() if name in wanted}
                found |= {} if derived is None else derived(values)
                # A result may be a variable: it must be read here, where it has the given value.
                return keras.tree.map_structure(tf.convert_to_tensor, found)

        self._results = results
        self._traced: tf.types.experimental.ConcreteFunction | None = None

    def __call__(self, metric_sums: MetricSums) -> Logs:
        """The numbers that these sums stand for, in the order in which the step returned them."""
        values: dict[str, object] = dict(logged_values(self._layout, metric_sums))
        if len(values) < len(self._layout.result_names):
            if self._traced is None:  # calling the function itself, TensorFlow warns that each run traces it anew
                self._traced = self._results.get_concrete_function()
            given = metric_values(self._layout, metric_sums)
            values |= _as_written(self._traced, [tf.convert_to_tensor(value) for value in given])
        return plain_numbers({name: values[name] for name in self._layout.result_names})


def _as_written(traced: tf.types.experimental.ConcreteFunction, given: Sequence[tf.Tensor]) -> dict[str, object]:
    """What a traced function returns, to the bit alike on all workers: its graph is computed as it is written."""
    flat = tf.raw_ops.StatefulPartitionedCall(
        args=[*given, *traced.captured_inputs],
        Tout=[output.dtype for output in traced.outputs],
        f=traced,
        config_proto=options_as_written(),
    )
    found: dict[str, object] = tf.nest.pack_sequence_as(traced.structured_outputs, flat)
    return found


def plain_numbers(values: Mapping[str, object]) -> Logs:
    """Plain numbers by name; a result that is a dict gives its own names, as in Keras's logs."""
    plain: Logs = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            plain |= plain_numbers(value)
        else:
            array = np.asarray(value)
            plain[name] = float(array) if array.ndim == 0 else array.astype(float).tolist()
    return plain


def int_state_differs(layout: MetricLayout, maxima: np.ndarray) -> bool:
    """Whether integer state that all microbatches must agree on differs between two of them."""
    if not layout.num_int_state:
        return False
    pairs = maxima[maxima.size - 2 * layout.num_int_state :]
    high, negated_low = np.split(pairs, 2)
    return bool(np.any(high != -negated_low))


def assign_metrics(values: Sequence[np.ndarray], layout: MetricLayout, components: Components) -> None:
    """Write global metric state into the model's own metric objects, where callbacks look for it.

    A metric variable sums its replicas' parts on reading, so the first part gets the value and the others zero.

    Args:
        values: one per variable of the layout, in its shape and dtype.
        layout: the metrics.
        components: gives the parts of a variable, one per replica.
    """
    for metric, value in zip(layout.variables, values, strict=True):
        for replica, part in enumerate(components(metric.variable)):
            part.assign(value if replica == 0 or metric.rule != "sum" else np.zeros_like(value))


class EpochMetrics:
    """The global metrics of an epoch as it goes on, the same on every worker.

    Args:
        model: the model.
        layout: which numbers its steps bring.
        components: gives the parts of a variable, one per replica.
    """

    def __init__(self, model: keras.Model, layout: MetricLayout, components: Components) -> None:
        self.layout, self._components = layout, components
        self._results = Results(model, layout)
        self._logs: Logs | None = None
        self._shown = False
        self.sums = MetricSums.start(layout)

    def start(self) -> None:
        """Begin with no row."""
        self._take(MetricSums.start(self.layout))

    def resume(self, sums: np.ndarray, maxima: np.ndarray, rows: int) -> None:
        """Begin with the rows that others have counted; see `MetricSums`."""
        self._take(MetricSums(np.array(sums), np.array(maxima), rows))

    def add(self, sums: np.ndarray, maxima: np.ndarray, rows: int) -> None:
        """Count a global batch; see `MetricSums.add`."""
        self.sums.add(sums, maxima, rows)
        self._take(self.sums)

    def logs(self) -> Logs:
        """The numbers so far, by name."""
        if self._logs is None:
            self._logs = self._results(self.sums)
        return dict(self._logs)

    def logs_of(self, metric_sums: MetricSums) -> Logs:
        """The numbers over the rows that are in `metric_sums`, by name."""
        return self._results(metric_sums)

    def show(self) -> None:
        """Write them into the model's metric objects, where callbacks look for them."""
        if not self._shown:
            assign_metrics(metric_values(self.layout, self.sums), self.layout, self._components)
            self._shown = True

    def _take(self, metric_sums: MetricSums) -> None:
        """These sums are new, or were added to: what was made of the last ones is out of date."""
        self.sums, self._logs, self._shown = metric_sums, None, False
