"""Small models for the tests, one function each."""

from __future__ import annotations

import keras
from keras import layers


def chapter(topk=True):
    """The chapter's text classifier, small."""
    model = keras.Sequential(
        [
            layers.Embedding(50, 4),
            layers.Conv1D(8, 5, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(8, 3, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Nadam(1e-2),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy", *([keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top2")] if topk else [])],
    )
    return model


def chapter_without_top2():
    """The same for float64, which TensorFlow's top-k does not take."""
    return chapter(topk=False)


def normalised():
    """BatchNormalization, Dropout and GaussianNoise: moving averages and random numbers."""
    model = keras.Sequential(
        [
            layers.Dense(16, activation="relu"),
            layers.BatchNormalization(momentum=0.9),
            layers.Dropout(0.3),
            layers.GaussianNoise(0.1),
            layers.Dense(5, activation="softmax"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def attention():
    """MultiHeadAttention and LayerNormalization, the pair whose bits an AddN rewrite would change."""
    words = keras.Input((30,), dtype="int32")
    x = layers.Embedding(50, 8)(words)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x))
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(words, layers.Dense(5, activation="softmax")(x))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def recurrent():
    """An LSTM with dropout."""
    model = keras.Sequential(
        [layers.Embedding(50, 4), layers.LSTM(6, dropout=0.2), layers.Dense(5, activation="softmax")]
    )
    model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def linear(optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=("accuracy",)):
    """A dense model whose optimizer, loss and metrics a test chooses; arguments may be functions that make them."""

    def build():
        made = [each() if callable(each) else each for each in (optimizer, loss)]
        model = keras.Sequential([layers.Dense(8, activation="relu"), layers.Dense(5, activation="softmax")])
        chosen = metrics() if callable(metrics) else list(metrics)
        model.compile(optimizer=made[0], loss=made[1], metrics=chosen)
        return model

    return build
