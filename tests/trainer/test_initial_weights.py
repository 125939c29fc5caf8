"""Weights that are given hold for optimizers that copy them when they are built; float64 against plain Keras.

There the optimizer is built before `fit`: one that `fit` builds is built while a graph is traced, and what it copies
then is lost (Keras 3.15: the averages of `ScheduleFreeAdamW` begin at 0).
"""

from __future__ import annotations

import keras
import pytest

from .conftest import dense_data, use_floats
from .helpers import local_trainer
from .models import linear
from .one_device import same_weights

pytestmark = pytest.mark.engine


class Lookahead(keras.optimizers.SGD):
    """Slow weights follow the fast ones every second step, and take their place."""

    def build(self, variables):
        super().build(variables)
        self.slow = []
        for variable in variables:
            self.slow.append(self.add_variable_from_reference(variable, "slow"))
            self.slow[-1].assign(variable)

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate)
        slow = self.slow[self._get_variable_index(variable)]
        is_second = keras.ops.equal((self.iterations + 1) % 2, 0)
        mean = keras.ops.where(is_second, slow + 0.5 * (variable - slow), slow)
        self.assign(slow, mean)
        self.assign(variable, keras.ops.where(is_second, mean, variable))


class ScheduleFree(keras.optimizers.Optimizer):
    """Steps are made from an iterate of its own; the weights are its mean."""

    def build(self, variables):
        super().build(variables)
        self.iterates = self.add_optimizer_variables(variables, "iterate")
        for iterate, variable in zip(self.iterates, variables, strict=True):
            self.assign(iterate, keras.ops.copy(variable))

    def update_step(self, gradient, variable, learning_rate):
        iterate = self.iterates[self._get_variable_index(variable)]
        new = iterate - keras.ops.cast(learning_rate, gradient.dtype) * gradient
        share = 1.0 / keras.ops.cast(self.iterations + 1, variable.dtype)
        self.assign(iterate, new)
        self.assign(variable, (1.0 - share) * variable + share * new)


OPTIMIZERS = {
    "lookahead": lambda: Lookahead(0.3),
    "schedule-free": lambda: ScheduleFree(0.3),
    "averages": lambda: keras.optimizers.SGD(0.3, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=2),
}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", ["lookahead", *(pytest.param(n, marks=pytest.mark.slow) for n in list(OPTIMIZERS)[1:])]
)
def test_an_optimizer_copies_the_weights_that_were_given(tmp_path, name, workers):
    use_floats("float64")
    (x, y), build = dense_data(rows=40), linear(optimizer=OPTIMIZERS[name])
    keras.utils.set_random_seed(3)
    plain = build()
    plain.build(x.shape)
    start = [weight + 0.5 for weight in plain.get_weights()]
    plain.set_weights(start)
    plain.optimizer.build(plain.trainable_variables)
    plain.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    with local_trainer(build, tmp_path, workers=workers, num_microbatches=max(1, workers)) as trainer:
        result = trainer.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, initial_weights=start)
    model = result.model(custom_objects={"Lookahead": Lookahead, "ScheduleFree": ScheduleFree})
    same_weights(model.get_weights(), plain.get_weights())
