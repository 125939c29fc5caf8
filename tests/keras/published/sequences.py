"""Reading text in pictures with an endpoint layer for CTC, and an LSTM over padded sequences."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from ..against import Rows

TIMES, SYMBOLS, LENGTH = 6, 5, 2


def captchas() -> Rows:
    """Small pictures with their labels among the inputs."""
    random = np.random.default_rng(0)
    x = {"image": random.normal(size=(24, TIMES, 4, 1)), "label": random.integers(1, SYMBOLS, (24, LENGTH))}
    return Rows(x=x)


class CTCLayer(layers.Layer):
    """Computes the loss from labels and guesses, adds it to the model, and lets the guesses pass."""

    def call(self, y_true, y_pred):
        count = ops.shape(y_true)[0]
        lengths = ops.full((count,), LENGTH, dtype="int32"), ops.full((count,), TIMES, dtype="int32")
        self.add_loss(ops.mean(ops.ctc_loss(ops.cast(y_true, "int32"), y_pred, lengths[0], lengths[1], mask_index=0)))
        return y_pred


def ctc_endpoint() -> keras.Model:
    """A recurrent reader of captchas without a compiled loss."""
    image = keras.Input((TIMES, 4, 1), name="image")
    label = keras.Input((LENGTH,), name="label", dtype="int64")
    x = layers.Conv2D(3, 3, activation="relu", padding="same")(image)
    x = layers.Reshape((TIMES, 12))(x)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    guesses = layers.Dense(SYMBOLS + 1, name="guesses")(x)
    model = keras.Model({"image": image, "label": label}, CTCLayer(name="ctc_loss")(label, guesses))
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    return model


def tagged() -> Rows:
    """Padded sequences of words, and a tag for every word."""
    random = np.random.default_rng(0)
    words = random.integers(1, 9, (24, TIMES))
    words[np.arange(TIMES)[None] >= random.integers(1, TIMES + 1, 24)[:, None]] = 0
    return Rows(x=words, y=random.integers(0, 3, (24, TIMES)))


def masked_lstm() -> keras.Model:
    """A tagger that masks the padding, in its loss as well."""
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int64"),
            layers.Embedding(9, 4, mask_zero=True),
            layers.LSTM(5, return_sequences=True),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
    return model
