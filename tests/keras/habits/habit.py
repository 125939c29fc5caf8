"""What a way of writing is, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

Fits = Callable[[Any], Any]
"""Trains what it is given, a model or a trainer, and returns history or numbers by name."""


@dataclass(frozen=True, kw_only=True)
class Habit:
    """A way to write a model or a script.

    Attributes:
        build: builds the model.
        keras: how it is trained by Keras.
        heliostat: how it is trained by a trainer; None for the same.
        refused: words of the error before the first step; empty where it is equal to Keras or said.
        said: words of a line at the start of the run; numbers need not be equal then.
    """

    build: Callable[[], keras.Model]
    keras: Fits
    heliostat: Fits | None = None
    refused: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


def numbers(rows: int = 24, width: int = 5, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Rows and a target for each."""
    x = np.random.default_rng(seed).normal(size=(rows, width))
    return x, np.sin(x.sum(1, keepdims=True))


def ones(width: int, activation=None, **arguments) -> keras.layers.Dense:
    """A layer whose first weights are known."""
    return keras.layers.Dense(width, activation, kernel_initializer="ones", **arguments)


def fits(*arrays, **asked) -> Fits:
    """A fit of these arrays whose history is compared."""
    asked = {"batch_size": 8, "epochs": 3, "shuffle": False, "verbose": 0} | asked
    return lambda model: model.fit(*arrays, **asked).history
