"""What models whose steps have several phases are made of: their rows, small networks, and the list of them.

Initial weights have seeds of their own, so that plain Keras begins with the same.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

WIDTH, NOISE = 6, 3
CASES = {}  # name: (build, phases, phases without a sum)


def case(phases: int, *, without_sum: int = 0):
    def note(build):
        CASES[build.__name__] = (build, phases, without_sum)
        return build

    return note


def dense(units, seed, **arguments):
    return layers.Dense(units, kernel_initializer=keras.initializers.GlorotUniform(seed=seed), **arguments)


def net(width, *hidden, first=0):
    return keras.Sequential(
        [keras.Input((width,)), *(dense(n, first + i) if isinstance(n, int) else n for i, n in enumerate(hidden))]
    )


def tanh(units, seed):
    return dense(units, seed, activation="tanh")


def data(rows=40, seed=0):
    x = np.random.default_rng(seed).normal(size=(rows, WIDTH))
    return x, np.tanh(x[:, :1] + x[:, 1:2] ** 2)


class KeepWeights(keras.callbacks.Callback):
    """Keeps the weights at the end of a run in a file: not every model can be loaded."""

    def __init__(self, path):
        super().__init__()
        self.path = str(path)

    def on_train_end(self, _logs=None):
        np.savez(self.path, *self.model.get_weights())

    @property
    def weights(self):
        with np.load(self.path) as kept:
            return list(kept.values())
