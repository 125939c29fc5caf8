"""What a microbatch brings to one phase of its step, and what may leave a phase at all.

Every number that leaves a phase is followed back to where it comes from (`origins.py`), and two rules say the rest.

**What no row reaches** is the same on all microbatches. It is not summed: every worker computes it for itself, from a
function without rows that is cut from the same graph. It may be assigned to anything, so a teacher that follows the
weights, clipped weights, or a codebook made of a `global_sum` are exact.

**What rows reach** may be a gradient (the mean by the loss's weights), other state of the model (the mean by rows, or
as the variable's `aggregation` says), what a metric has counted, a scalar that the step returns, or what is given to
`global_sum` and `global_mean`. A weight or the state of an optimizer is none of these: half of the rows cannot know it.

    quantity                                   lies in               factor
    gradient                                   gradient buckets      weight 0 of the microbatch
    mean of state, `global_mean`               the bucket of state   weight 1: its rows / rows of the batch
    `global_sum`, change of a sum, the first   the bucket of state   1
    the same, where floats are too narrow      after the sums        1, in float64
    integers on which all must agree           after the maxima      the value and its negative
    what no row reaches                        nowhere

Floats are too narrow for integers, and for what is wider than the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from ..errors import UnsupportedStepError
from .layout import Part, VectorLayout, float_buckets_of
from .metrics import MetricLayout
from .origins import Origins
from .recorded import Assign, RecordedPhase, StateChange, Total
from .tensors import flat_values

Key: TypeAlias = tuple[str, int, int]
"""What a quantity is: ("gradient", event, place among its pairs), ("assign", event, 0), ("state", place, 0) or
("total", place, 0)."""
Where: TypeAlias = Literal["gradient", "state", "exact", "agreed", "own"]
FIRST = 4  # the weight that is 1 for the first microbatch of a step, else 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a quantity lies: the number of a part, or of an element for "exact" and "agreed"."""

    where: Where
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where everything of a phase lies, and how.

    Attributes:
        of: by quantity.
        layout: of the vector of a microbatch.
    """

    of: dict[Key, Place]
    layout: VectorLayout


@dataclass(slots=True)
class _Gathered:
    """Numbers of one kind: their parts, and the tensors to be laid one after another."""

    parts: list[Part] = field(default_factory=list)
    values: list[tf.Tensor] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    def put(self, name: str, value: tf.Tensor) -> None:
        self.parts.append(Part(name, tuple(value.shape)))
        self.values.append(value)


class Contribution:
    """Lays out what a microbatch brings to one phase.

    Args:
        phase: what was recorded.
        origins: of the numbers of the graph.
        weights: float64 ``[5]``, see `layout.microbatch_weights`, and whether it is the first of its step.
        dtype: of float buckets.
        is_mean: whether the loss of the step is a mean over rows.

    Attributes:
        own: what no row reaches.
    """

    def __init__(
        self, phase: RecordedPhase, origins: Origins, weights: tf.Tensor, dtype: np.dtype, *, is_mean: bool
    ) -> None:
        self._origins, self._weights, self._dtype, self._is_mean = origins, weights, dtype, is_mean
        self._gradients, self._state, self._exact, self._agreed = (_Gathered() for _ in range(4))
        self._places: dict[Key, Place] = {}
        self.own: list[tf.Tensor] = []
        for at, event in enumerate(phase.events):
            if isinstance(event, Assign):
                self._assigned(("assign", at, 0), event)
                continue
            for number, (gradient, variable) in enumerate(event.pairs):
                if gradient is not None:
                    self._gradient(("gradient", at, number), tf.convert_to_tensor(gradient), variable)
        for at, change in enumerate(phase.state):
            self._changed(("state", at, 0), change)
        for at, total in enumerate(phase.totals):
            self._total(("total", at, 0), total)

    @property
    def is_empty(self) -> bool:
        """Whether no row reaches anything of it."""
        return not any(each.parts for each in (self._gradients, self._state, self._exact, self._agreed))

    def places(self, metrics: MetricLayout) -> Places:
        """Where everything lies, together with the metrics of the step."""
        own_metrics = replace(metrics, num_int_state=self._agreed.size)
        counts, buckets = float_buckets_of(self._gradients.parts, self._state.parts, self._dtype)
        float64 = np.dtype(np.float64)
        layout = VectorLayout(
            parts=(*self._gradients.parts, *self._state.parts),
            num_gradient_buckets=len(buckets) - (1 if self._state.parts else 0),
            variables_per_bucket=counts,
            agreed_names=tuple(part.name for part in self._agreed.parts),
            metrics=own_metrics,
            buckets=(
                *buckets,
                (float64, metrics.num_sums + self._exact.size),
                (float64, own_metrics.num_maxima),
            ),
        )
        return Places(of=self._places, layout=layout)

    def vector(self, layout: VectorLayout, sums: Sequence[tf.Tensor], maxima: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The vector of the microbatch.

        Args:
            layout: how it lies.
            sums: what it adds to metrics and logged scalars.
            maxima: what it brings to metrics that merge by maximum.
        """
        values, buckets, start = [*self._gradients.values, *self._state.values], [], 0
        for count in layout.variables_per_bucket:
            buckets.append(flat_values(values[start : start + count], self._dtype))
            start += count
        agreed = [tf.cast(value, tf.float64) for value in self._agreed.values]
        return [
            *(buckets or [tf.zeros((0,), self._dtype)]),
            flat_values([*sums, *self._exact.values], tf.float64),
            flat_values([*maxima, *agreed, *(-value for value in agreed)], tf.float64),
        ]

    def _gradient(self, key: Key, value: tf.Tensor, variable: keras.Variable) -> None:
        if not self._is_own(key, value):
            self._places[key] = Place("gradient", len(self._gradients.parts))
            self._gradients.put(variable.path, tf.cast(value, self._dtype) * tf.cast(self._weights[0], self._dtype))

    def _assigned(self, key: Key, event: Assign) -> None:
        if not self._is_own(key, event.value):
            raise UnsupportedStepError(
                f"The training step assigns {event.variable.path!r}, which an optimizer trains or holds, a value that "
                "depends on the rows of the batch. A worker sees only some of them. Pass what is computed from rows "
                "(gradients, say) through heliostat.trainer.global_mean(...) or global_sum(...) first, and the value "
                "made of that may be assigned to anything; to compute with changed weights without keeping them, call "
                "model.stateless_call(...) with these."
            )

    def _changed(self, key: Key, change: StateChange) -> None:
        variable, value = change.variable, change.value
        if self._is_own(key, value):
            return
        floating = value.dtype.is_floating
        if variable.aggregation == "sum":
            self._put(key, variable.path, value - tf.cast(change.before, value.dtype), None)
        elif variable.aggregation == "only_first_replica":
            first = self._weights[FIRST] > 0
            self._put(key, variable.path, tf.where(first, tf.cast(value, self._wide(value)), 0), None)
        elif floating:
            self._put(key, variable.path, value, self._weights[1])
        else:
            self._places[key] = Place("agreed", self._agreed.size)
            self._agreed.put(variable.path, value)

    def _total(self, key: Key, total: Total) -> None:
        value, name = total.value, f"global_{total.reduction}()"
        if self._is_own(key, value):
            return
        if value.dtype.is_bool or value.dtype == tf.string or (total.reduction == "mean" and value.dtype.is_integer):
            raise UnsupportedStepError(
                f"The training step calls {name} with {value.dtype.name}, which has no {total.reduction}. Cast it to "
                "a float first."
            )
        if total.reduction == "mean" and not self._is_mean:
            raise UnsupportedStepError(
                "The training step calls global_mean(), which is a mean by rows, and the model's loss is not: "
                "gradients of its parts do not average to that of the whole. Use global_sum() with sums over rows."
            )
        self._put(key, name, value, self._weights[1] if total.reduction == "mean" else None)

    def _put(self, key: Key, name: str, value: tf.Tensor, factor: tf.Tensor | None) -> None:
        """Add a number that is summed over microbatches, in the float bucket of state unless that is too narrow."""
        dtype = self._wide(value)
        wide = tf.cast(value, dtype)
        wide = wide if factor is None else wide * tf.cast(factor, dtype)
        if dtype == self._dtype:
            self._places[key] = Place("state", len(self._state.parts))
            self._state.put(name, wide)
        else:
            self._places[key] = Place("exact", self._exact.size)
            self._exact.put(name, wide)

    def _wide(self, value: tf.Tensor) -> np.dtype:
        """The dtype in which a number is summed."""
        if not value.dtype.is_floating or value.dtype.size > self._dtype.itemsize:
            return np.dtype(np.float64)
        return self._dtype

    def _is_own(self, key: Key, value: tf.Tensor) -> bool:
        """Whether no row reaches a value; it is noted then."""
        if self._origins.of(value).rows:
            return False
        self._places[key] = Place("own", len(self.own))
        self.own.append(value)
        return True
