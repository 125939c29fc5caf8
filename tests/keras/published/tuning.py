"""A trained model for something new: in two fits, the second of them of all its layers; and by low-rank additions."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from ..against import Rows


def pictures() -> Rows:
    """Small pictures of two kinds."""
    random = np.random.default_rng(0)
    return Rows(x=random.normal(size=(24, 6, 6, 1)), y=random.integers(0, 2, (24, 1)).astype(float))


def _base() -> keras.Model:
    base = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
        ],
        name="base",
    )
    base.layers[1].set_weights([np.full(3, value) for value in (1.2, 0.1, 0.3, 0.8)])  # as if it had been trained
    return base


def transfer() -> keras.Model:
    """A frozen base, in inference mode, under a new head."""
    base = _base()
    base.trainable = False
    inputs = keras.Input((6, 6, 1))
    outputs = layers.Dense(1)(base(inputs, training=False))
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy()],
    )
    return model


def unfreeze(model: keras.Model) -> None:
    """All layers, with a lower rate: what comes before the second fit."""
    model.get_layer("base").trainable = True
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy()],
    )


def words() -> Rows:
    """Sequences of words, and the word that comes next."""
    random = np.random.default_rng(0)
    return Rows(x=random.integers(0, 9, (24, 4)), y=random.integers(0, 9, 24))


def lora() -> keras.Model:
    """Hu et al. 2021: the layers of a model are frozen, and matrices of low rank beside them are trained."""
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int64"),
            layers.Embedding(9, 6),
            layers.Flatten(),
            layers.Dense(8, activation="relu"),
            layers.Dense(9, activation="softmax"),
        ]
    )
    for layer in model.layers:
        if isinstance(layer, layers.Dense | layers.Embedding):
            layer.enable_lora(2)
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
