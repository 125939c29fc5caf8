"""The random numbers that callbacks draw: numpy's and Python's global generators, and those of the model.

A callback that draws would draw something else on every machine, and after the death of a chief. So hooks have
generators of their own: they begin from the run's seed, as `keras.utils.set_random_seed` begins, and are carried from
chief to chief with the states of callbacks. Steps draw from none of them: their seeds are set per microbatch.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras.callbacks import Callback

from ..engine.model import BuiltModel
from ..engine.python_draws import kept_draws
from ..engine.runtime import BUILD_LOCK


class DrawnNumbers(Callback):
    """Where the generators stand from which hooks draw; a callback, so that its state is carried as theirs are.

    Args:
        built: the model.
        seed: of the run.
    """

    def __init__(self, built: BuiltModel, seed: int) -> None:
        super().__init__()
        self._built = built
        self._python: tuple[Any, ...] = random.Random(seed).getstate()
        self._numpy: tuple[Any, ...] = np.random.RandomState(seed % 2**32).get_state()  # type: ignore[assignment]

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Inside the block, which runs hooks, numpy and Python draw from here."""
        # Another worker of this process seeds these generators when it builds its model.
        with BUILD_LOCK, kept_draws():
            random.setstate(self._python)
            np.random.set_state(self._numpy)
            try:
                yield
            finally:
                self._python, self._numpy = random.getstate(), np.random.get_state()  # type: ignore[assignment]

    def get_state(self) -> dict[str, object]:
        """Where they stand, as values."""
        version, words, gauss = self._python
        _, keys, *rest = self._numpy
        return {
            "python": [version, np.array(words, np.uint32), gauss],
            "numpy": [np.array(keys, np.uint32), *rest],
            "keras": [part.numpy() for part in self._parts()],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        version, words, gauss = state["python"]
        self._python = version, tuple(map(int, words)), gauss
        self._numpy = ("MT19937", *state["numpy"])
        for generator, value in zip(self._built.generators, state["keras"], strict=False):
            for part in self._built.components(generator.state):
                part.assign(value)

    def _parts(self) -> Sequence[tf.Variable]:
        return [self._built.components(generator.state)[0] for generator in self._built.generators]

    def on_train_begin(self, logs: object = None) -> None:
        """Hooks of others may have drawn: it has each of them, so that it is asked for its state."""

    on_train_end = on_epoch_begin = on_epoch_end = on_train_begin
    on_train_batch_begin = on_train_batch_end = on_test_batch_begin = on_test_batch_end = on_train_begin
    on_test_begin = on_test_end = on_train_begin
