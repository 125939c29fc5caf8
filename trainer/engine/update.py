"""apply: the optimizer as one jit-compiled function, followed by plain assignments.

The update runs once per worker, outside every replica context, on the first replica's variables, with TFOptimizer's
overrides for `tf.distribute` set aside: the sum it gets is global already. What it computes is then copied to the other
replicas, as far as they read it: weights, moving averages, and the optimizer's scalars, of which a step may use the
learning rate and scales its loss by one. The rest of the optimizer's state, twice the weights for Adam, is read where
it is computed alone. The update is local and deterministic, so every worker that has the same sum ends in the same
state. A compiled function must run on the device of its variables, or XLA refuses. Where variables are small on average
the update runs on one long vector (`flat.py`); large ones are updated one by one, in place.

What was not done: dividing the update among the workers (reduce-scatter, update of one's own part, all-gather of
weights, as in ZeRO; Rajbhandari et al., 2020). It would divide the update's time and the optimizer's memory by the
number of workers. But a part of the optimizer's state would then be on one worker alone, whose death would lose it, and
with it the promise that nothing is rolled back; so each part would have to be on two workers, and every worker would
need the sums of two parts, half as many bytes again on the network. Measured on two cores (Adam, 5.8 M weights,
float32): 0.7 to 0.9 ns per weight on one core, 1.3 to 1.7 ns when two workers share the memory's bandwidth; the four
bytes more per weight take 3.2 ns on 10 Gbit/s. So it would cost more than it gains below some 20 to 40 Gbit/s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from . import private_api
from .flat import FlatState, flat_state, scatter
from .layout import VectorLayout, split_by_variable
from .model import BuiltModel
from .per_replica import InlineCall
from .private_optimizers import stateless
from .runtime import BUILD_LOCK


class Update:
    """Applies the sum of a step: new weights, optimizer state and moving averages.

    Args:
        built: the model.
        layout: what the summed vector holds.
    """

    def __init__(self, built: BuiltModel, layout: VectorLayout) -> None:
        self._built, self._layout = built, layout
        self._float_state = [built.non_trainable[i] for i in layout.float_state]
        with BUILD_LOCK:
            self._flat = flat_state(built, layout.gradients)
            self._loaded = False
            if self._flat is not None:
                self._load, self._store = self._flat.make_load(), self._flat.make_store()
            change = self._by_variable() if self._flat is None else self._flat_update(self._flat)
            specs = [tf.TensorSpec((length,), dtype) for dtype, length in layout.float_buckets]
            traced = tf.function(change, autograph=False, input_signature=specs).get_concrete_function()
            self._update = InlineCall(traced) if built.runtime.on_one_cpu else traced

    def __call__(self, *float_buckets: tf.Tensor) -> None:
        """Assign the new state, given the float buckets of the summed vector."""
        if self._flat is not None and not self._loaded:
            self._load()
            self._loaded = True
        self._update(*float_buckets)

    def take(self, float_buckets: Sequence[tf.Tensor], _sums: np.ndarray, maxima: np.ndarray) -> None:
        """Assign everything, given the sum over all microbatches; see `layout.VectorLayout` for its buckets."""
        self(*float_buckets)
        if self._layout.int_state:
            self._assign_int_state(maxima)

    def sync_optimizer(self) -> None:
        """Bring the optimizer's variables up to date; from now on they may be looked at, and changed."""
        if self._flat is not None and self._loaded:
            self._store()
            self._loaded = False

    def _by_variable(self) -> Callable[..., None]:
        """One compiled function over all variables."""
        built = self._built
        changed = [*built.trainable, *built.optimizer.variables, *self._float_state]
        first = [built.components(variable)[0] for variable in changed]
        scalars = [variable for variable in built.optimizer.variables if variable.shape == ()]
        read_by_all = [*built.trainable, *scalars, *self._float_state]

        def assign_first(*float_buckets: tf.Tensor) -> None:
            for part, value in zip(first, self._new_values(float_buckets, first), strict=True):
                part.assign(value)

        compiled = tf.function(assign_first, autograph=False, jit_compile=True)

        def update(*float_buckets: tf.Tensor) -> None:
            with tf.device(first[0].device):
                compiled(*float_buckets)
            copy_to_other_replicas([built.components(variable) for variable in read_by_all])

        return update

    def _flat_update(self, flat: FlatState) -> Callable[..., None]:
        """One compiled function over the long vectors, whose weights are then handed out."""
        built, flat_optimizer = self._built, flat.flat_optimizer
        scalar_parts = [built.components(own) for _, own in flat.scalars]
        float_state_parts = [built.components(variable) for variable in self._float_state]
        source = {id(of): parts[0] for (of, _), parts in zip(flat.scalars, scalar_parts, strict=True)}
        stores = [source.get(id(variable), private_api.tf_variable(variable)) for variable in flat_optimizer.variables]
        weights = private_api.tf_variable(flat.weights)

        def assign_first(gradients: tf.Tensor, *float_state: tf.Tensor) -> tf.Tensor:
            state = [store.read_value() for store in stores]
            with stateless(flat_optimizer):
                (new_weights,), new_state = flat_optimizer.stateless_apply(
                    state, [tf.cast(gradients, weights.dtype)], [weights.read_value()]
                )
            weights.assign(new_weights)
            for store, value in zip(stores, new_state, strict=True):
                store.assign(value)
            new_float_state = _values(float_state, self._layout.variables_per_bucket[1:], self._float_state)
            for parts, value in zip(float_state_parts, new_float_state, strict=True):
                parts[0].assign(value)
            return new_weights

        compiled = tf.function(assign_first, autograph=False, jit_compile=True)

        def update(*float_buckets: tf.Tensor) -> None:
            with tf.device(weights.device):
                new_weights = compiled(*float_buckets)
            scatter(built, new_weights, built.trainable)
            copy_to_other_replicas([*scalar_parts, *float_state_parts])

        return update

    def _assign_int_state(self, maxima: np.ndarray) -> None:
        """Assign the integer state that all microbatches agreed on, from the third bucket of the sum."""
        at = self._layout.metrics.num_maxima - 2 * self._layout.metrics.num_int_state
        for index in self._layout.int_state:
            variable = self._built.non_trainable[index]
            size = int(np.prod(variable.shape))
            value = maxima[at : at + size].reshape(variable.shape).astype(variable.dtype)
            at += size
            for part in self._built.components(variable):
                part.assign(value)

    def _new_values(self, float_buckets: Sequence[tf.Tensor], first: Sequence[tf.Variable]) -> list[tf.Tensor]:
        """New weights, optimizer state and float state, given `first`, the first replica's part of each."""
        built, layout = self._built, self._layout
        num_weights = len(built.trainable)
        num_state = len(built.optimizer.variables)
        current = [part.read_value() for part in first]
        gradients: list[tf.Tensor | None] = [None] * num_weights
        trained = [built.trainable[index] for index in layout.gradients]
        values = _values(float_buckets, layout.variables_per_bucket, [*trained, *self._float_state])
        for index, value in zip(layout.gradients, values, strict=False):
            gradients[index] = value
        float_state = values[len(trained) :]
        with stateless(built.optimizer):
            weights, state = built.optimizer.stateless_apply(
                current[num_weights : num_weights + num_state], gradients, current[:num_weights]
            )
        return [*weights, *state, *float_state]


def copy_to_other_replicas(parts_of: Sequence[Sequence[tf.Variable]]) -> None:
    """Assign to all parts of variables what the first of each holds."""
    for parts in parts_of:
        for part in parts[1:]:
            part.assign(parts[0].read_value())


def _values(
    buckets: Sequence[tf.Tensor], variables_per_bucket: Sequence[int], variables: Sequence[keras.Variable]
) -> list[tf.Tensor]:
    """A value for each variable, in its shape and dtype; see `split_by_variable`."""
    parts = split_by_variable(buckets, variables_per_bucket, variables)
    return [tf.cast(tf.reshape(part, variable.shape), variable.dtype) for variable, part in parts]
