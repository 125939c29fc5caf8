"""The update of a phase of a step with several: what the step did, done again with sums over the whole batch.

The events of a phase are taken in order (`recorded.py`), each on the latest versions: an optimizer that is given
gradients, a variable that is assigned by hand. Then come moving averages and sums over the batch. All of it is one
compiled function, as for a step of one phase (`update.py`). The new values go into the phase's shadows; the last phase
assigns the variables themselves, all that the step has changed, in the same function. So a step is still atomic.

A phase is local and deterministic: workers that have the same sum, and the same values of what no row reaches, end with
the same bits.

Not done: joining small variables in one vector (`flat.py`), which an elementwise optimizer that is applied to all of
its variables at once could have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from heliostat.cluster.vectors import Layout

from . import private_api
from .contribution import Key, Places
from .cut_step import CutStep
from .layout import split_by_variable
from .private_optimizers import stateless
from .recorded import Apply, Assign
from .runtime import BUILD_LOCK
from .update import copy_to_other_replicas


class Summed:
    """The quantities of a phase, taken out of the sum over microbatches and of what no row reaches.

    Args:
        places: where they lie.
        buckets: the float buckets of the sum.
        exact: float64, what follows the metrics' part of the sums.
        agreed: float64, integers on which all microbatches agree.
        own: what no row reaches.
    """

    def __init__(
        self,
        places: Places,
        buckets: Sequence[tf.Tensor],
        exact: tf.Tensor,
        agreed: tf.Tensor,
        own: Sequence[tf.Tensor],
    ) -> None:
        layout = places.layout
        self._of, self._exact, self._agreed, self._own = places.of, exact, agreed, own
        self._parts = [values for _, values in split_by_variable(buckets, layout.variables_per_bucket, layout.parts)]
        self._num_gradients = sum(layout.variables_per_bucket[: layout.num_gradient_buckets])

    def is_own(self, key: Key) -> bool:
        """Whether no row reaches a quantity."""
        return self._of[key].where == "own"

    def value(self, key: Key, like: keras.Variable | tf.Variable) -> tf.Tensor:
        """A quantity in the shape and dtype of a variable."""
        place, size = self._of[key], int(np.prod(like.shape))
        if place.where == "own":
            found = self._own[place.at]
        elif place.where == "gradient":
            found = self._parts[place.at]
        elif place.where == "state":
            found = self._parts[self._num_gradients + place.at]
        else:
            found = (self._exact if place.where == "exact" else self._agreed)[place.at : place.at + size]
        return tf.cast(tf.reshape(found, like.shape), like.dtype)


class NewValues:
    """Computes and assigns the new values of one phase.

    Args:
        cut: the step.
        number: of the phase.
        float_buckets: dtype and length of each float bucket of the sum; gradients may have been rounded.
    """

    def __init__(self, cut: CutStep, number: int, float_buckets: Layout) -> None:
        self._cut, self._number, self._phase, self._places = cut, number, cut.phases[number], cut.places[number]
        self._float_buckets = float_buckets
        is_last = number == len(cut.phases) - 1
        assigned = [v for phase in cut.phases for v in phase.assigned] if is_last else self._phase.assigned
        self._variables = list({id(variable): variable for variable in assigned}.values())
        targets = [private_api.tf_variable(v) if is_last else cut.shadows.of(number, v) for v in self._variables]
        self._totals = cut.shadows.totals(number)
        self._parts = [cut.shadows.components(each) for each in (*targets, *self._totals)]
        layout = self._places.layout
        self._num_sums, self._num_agreed = layout.metrics.num_sums, layout.metrics.num_int_state
        with BUILD_LOCK:
            self._own = cut.own_values(number)
            self._update = self._traced()

    def take(self, float_buckets: Sequence[tf.Tensor], sums: np.ndarray, maxima: np.ndarray) -> None:
        """Assign the new values, given the sum over all microbatches; see `layout.VectorLayout` for its buckets."""
        start = len(maxima) - 2 * self._num_agreed
        exact, agreed = sums[self._num_sums :], maxima[start : start + self._num_agreed]
        self._update(list(float_buckets), tf.constant(exact), tf.constant(agreed), self._own())

    def sync_optimizer(self) -> None:
        """Nothing is kept apart between steps."""

    def _traced(self) -> Callable[..., None]:
        """The update: on the first replica, compiled; then it is copied to the others."""
        compiled = tf.function(self._assign_first, autograph=False, jit_compile=True)
        slots = {id(v) for v in self._cut.built.optimizer_state if v.shape != ()}
        read_by_all = [
            parts for variable, parts in zip(self._variables, self._parts, strict=False) if id(variable) not in slots
        ] + self._parts[len(self._variables) :]

        def update(buckets: list[tf.Tensor], exact: tf.Tensor, agreed: tf.Tensor, own: list[tf.Tensor]) -> None:
            with tf.device(self._cut.built.runtime.devices[0]):
                compiled(buckets, exact, agreed, own)
            copy_to_other_replicas(read_by_all)

        specs = [tf.TensorSpec((length,), dtype) for dtype, length in self._float_buckets]
        num_exact = self._places.layout.buckets[-2][1] - self._num_sums
        exact, agreed = (tf.TensorSpec((length,), tf.float64) for length in (num_exact, self._num_agreed))
        own = [tf.TensorSpec(each.shape, each.dtype) for each in self._own.outputs]
        function: Callable[..., None] = tf.function(update, autograph=False).get_concrete_function(
            specs, exact, agreed, own
        )
        return function

    def _assign_first(
        self, buckets: list[tf.Tensor], exact: tf.Tensor, agreed: tf.Tensor, own: list[tf.Tensor]
    ) -> None:
        summed = Summed(self._places, buckets, exact, agreed, own)
        new = _NewOnes(self._latest)
        for at, event in enumerate(self._phase.events):
            if isinstance(event, Assign):
                new.put(event.variable, summed.value(("assign", at, 0), event.variable))
            else:
                _apply(event, at, summed, new)
        for at, change in enumerate(self._phase.state):
            key = ("state", at, 0)
            value = summed.value(key, change.variable)
            is_change = change.variable.aggregation == "sum" and not summed.is_own(key)
            new.put(change.variable, new.of(change.variable) + value if is_change else value)
        values = [new.of(variable) for variable in self._variables]
        values += [summed.value(("total", at, 0), shadow) for at, shadow in enumerate(self._totals)]
        for parts, value in zip(self._parts, values, strict=True):
            parts[0].assign(value)

    def _latest(self, variable: keras.Variable) -> tf.Tensor:
        """The value of a variable when the phase begins."""
        shadows = self._cut.shadows
        return shadows.components(shadows.latest(self._number, variable))[0].read_value()


class _NewOnes:
    """New values of variables so far, else the latest."""

    def __init__(self, latest: Callable[[keras.Variable], tf.Tensor]) -> None:
        self._latest, self._values = latest, dict[int, tf.Tensor]()

    def of(self, variable: keras.Variable) -> tf.Tensor:
        return self._values[id(variable)] if id(variable) in self._values else self._latest(variable)

    def put(self, variable: keras.Variable, value: tf.Tensor) -> None:
        self._values[id(variable)] = value


def _apply(event: Apply, at: int, summed: Summed, new: _NewOnes) -> None:
    """Let an optimizer take its gradients."""
    optimizer = event.optimizer
    weights, state = private_api.trainable_variables(optimizer), optimizer.variables
    given = {
        id(variable): summed.value(("gradient", at, number), variable)
        for number, (gradient, variable) in enumerate(event.pairs)
        if gradient is not None
    }
    gradients = [given.get(id(variable)) for variable in weights]
    with stateless(optimizer):
        new_weights, new_state = optimizer.stateless_apply(
            [new.of(variable) for variable in state], gradients, [new.of(variable) for variable in weights]
        )
    for variable, value in zip([*weights, *state], [*new_weights, *new_state], strict=True):
        new.put(variable, value)
