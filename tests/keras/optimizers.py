"""Every optimizer and schedule of Keras, and how it is tried: on a model with matrices and vectors."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers, optimizers
from keras.optimizers import schedules

from .against import Rows
from .recipe import Recipe

OPTIMIZERS: dict[str, Recipe] = {
    "Adadelta": Recipe(make=optimizers.Adadelta),
    "Adafactor": Recipe(make=optimizers.Adafactor),
    "Adagrad": Recipe(make=optimizers.Adagrad),
    "Adam": Recipe(make=optimizers.Adam),
    "AdamW": Recipe(make=optimizers.AdamW),
    "Adamax": Recipe(make=optimizers.Adamax),
    "Ftrl": Recipe(make=optimizers.Ftrl),
    "Lamb": Recipe(make=optimizers.Lamb),
    "Lion": Recipe(make=optimizers.Lion),
    "LossScaleOptimizer": Recipe(make=lambda rate: optimizers.LossScaleOptimizer(optimizers.SGD(rate))),
    "MultiOptimizer": Recipe(
        make=lambda rate: optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.SGD(rate)))
    ),
    "Muon": Recipe(make=optimizers.Muon),
    "Nadam": Recipe(make=optimizers.Nadam),
    "Optimizer": Recipe(verdict="base", reason="the class that optimizers of one's own are made of"),
    "OptimizerMap": Recipe(verdict="base", reason="which optimizer has which weights, for `MultiOptimizer`"),
    "RMSprop": Recipe(make=optimizers.RMSprop),
    "SGD": Recipe(make=lambda rate: optimizers.SGD(rate, momentum=0.9)),
    "ScheduleFreeAdamW": Recipe(
        make=lambda rate: optimizers.ScheduleFreeAdamW(rate, weight_decay=0),
        verdict="said",
        reason="in `fit` of Keras on TensorFlow its momentum begins at zero, not at the weights, and is read "
        "after it has changed; here it is as its authors describe it",
    ),
}
"""The classes, by name; what makes one takes a learning rate, a number or a schedule."""

SCHEDULES: dict[str, Recipe] = {
    "CosineDecay": Recipe(make=lambda: schedules.CosineDecay(1e-2, 5, warmup_target=2e-2, warmup_steps=2), within=1e-6),
    "CosineDecayRestarts": Recipe(make=lambda: schedules.CosineDecayRestarts(1e-2, 3), within=1e-6),
    "ExponentialDecay": Recipe(make=lambda: schedules.ExponentialDecay(1e-2, 3, 0.5), within=1e-6),
    "InverseTimeDecay": Recipe(make=lambda: schedules.InverseTimeDecay(1e-2, 3, 0.5), within=1e-6),
    "LearningRateSchedule": Recipe(verdict="base", reason="the class that schedules of one's own are made of"),
    "PiecewiseConstantDecay": Recipe(
        make=lambda: schedules.PiecewiseConstantDecay([2, 4], [1e-2, 5e-3, 1e-3]), within=1e-6
    ),
    "PolynomialDecay": Recipe(make=lambda: schedules.PolynomialDecay(1e-2, 5), within=1e-6),
}
"""The schedules, by name; Keras computes a rate in float32."""


class MeanOfAll(schedules.LearningRateSchedule):
    """The mean of the rates of several schedules."""

    def __init__(self, each):
        self.each = each

    def __call__(self, step):
        return sum(schedule(step) for schedule in self.each) / len(self.each)

    def get_config(self):
        return {}


OPTIONS: dict[str, Recipe] = {
    "clipnorm": Recipe(make=lambda rate: optimizers.Adam(rate, clipnorm=0.1)),
    "global_clipnorm": Recipe(make=lambda rate: optimizers.Adam(rate, global_clipnorm=0.1)),
    "clipvalue": Recipe(make=lambda rate: optimizers.Adam(rate, clipvalue=0.01)),
    "weight_decay": Recipe(make=lambda rate: optimizers.SGD(rate, weight_decay=0.1)),
    "use_ema": Recipe(
        make=lambda rate: optimizers.SGD(rate, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=3)
    ),
    "gradient_accumulation_steps": Recipe(
        make=lambda rate: optimizers.SGD(rate, gradient_accumulation_steps=2),
        verdict="refused",
        reason="microbatches are the accumulation: raise `global_batch_size` and `num_microbatches`",
    ),
}
"""What every optimizer takes beside its rate."""


APART = {"LossScaleOptimizer", "MultiOptimizer"}
"""Optimizers that hold others."""


def model_of_all(recipes: dict[str, Recipe]):
    """The function that builds a model with two layers for every optimizer, and all of them in a `MultiOptimizer`."""

    def build() -> keras.Model:
        inputs = keras.Input((4, 4, 2))
        flat = layers.Flatten()(inputs)
        outputs = [
            layers.Dense(1, name=f"{name}_2")(layers.Dense(3, "tanh", name=f"{name}_1")(flat)) for name in recipes
        ]
        model = keras.Model(inputs, layers.Average()(outputs))
        chosen = {f"{name}_[12]": recipe.make(1e-2) for name, recipe in recipes.items()}
        default = chosen[f"{next(iter(recipes))}_[12]"]
        model.compile(optimizers.MultiOptimizer(optimizers.OptimizerMap(default, chosen)), "mse")
        return model

    return build


def schedule_free(model: keras.Model, data: Rows, batch: int, epochs: int) -> None:
    """Train a model as Defazio et al. 2024 describe it ("The Road Less Scheduled", with Adam's second moment)."""
    rate = float(model.optimizer.learning_rate)
    given = (model.optimizer.beta_1, model.optimizer.beta_2, model.optimizer.epsilon)
    beta_1, beta_2, epsilon = (float(np.float32(each)) for each in given)  # as Keras's `ops.cast` takes them
    weights = [w.numpy() for w in model.trainable_variables]
    fast, second = [w.copy() for w in weights], [np.zeros_like(w) for w in weights]
    starts = [start for _ in range(epochs) for start in range(0, len(data.x), batch)]
    for step, start in enumerate(starts, 1):
        here = slice(start, start + batch)
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((model(data.x[here]) - data.y[here]) ** 2)
        for i, gradient in enumerate(tape.gradient(loss, [w.value for w in model.trainable_variables])):
            g = gradient.numpy()
            second[i] = beta_2 * second[i] + (1 - beta_2) * g**2
            average = (weights[i] - (1 - beta_1) * fast[i]) / beta_1
            fast[i] = fast[i] - rate * g / (np.sqrt(second[i] / (1 - beta_2**step)) + epsilon)
            average = (1 - 1 / step) * average + fast[i] / step
            weights[i] = (1 - beta_1) * fast[i] + beta_1 * average
        model.set_weights(weights)


def rows(count: int = 28) -> Rows:
    """Small pictures and a number for each."""
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 4, 4, 2))
    return Rows(x=x, y=np.tanh(x.sum((1, 2, 3)))[:, None])


def model_of(make_optimizer):
    """The function that builds a model with this optimizer."""

    def build() -> keras.Model:
        model = keras.Sequential(
            [
                keras.Input((4, 4, 2)),
                layers.Conv2D(3, 2, activation="tanh"),
                layers.Flatten(),
                layers.Dense(5, activation="tanh"),
                layers.Dense(1),
            ]
        )
        model.compile(make_optimizer(), "mse")
        return model

    return build
