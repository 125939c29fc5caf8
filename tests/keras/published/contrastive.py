"""Two models that compare rows: SimCLR within a batch, and a siamese pair of inputs within a row."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from ..against import Rows
from .teachers import CLASSES, WIDTH


class ContrastiveModel(keras.Model):
    """Chen et al. 2020 with a linear probe: its step trains the encoder, and then the probe on the new encoder."""

    def __init__(self, temperature=0.1):
        super().__init__()
        self.temperature = temperature
        self.augmenter = keras.Sequential(
            [keras.Input((WIDTH,)), layers.GaussianNoise(0.1, seed=3), layers.Dropout(0.1, seed=4)]
        )
        self.encoder = keras.Sequential([keras.Input((WIDTH,)), layers.Dense(6, "tanh"), layers.Dense(5, "tanh")])
        self.projection_head = keras.Sequential([keras.Input((5,)), layers.Dense(4, "tanh"), layers.Dense(4)])
        self.linear_probe = keras.Sequential([keras.Input((5,)), layers.Dense(CLASSES)])

    def compile(self, contrastive_optimizer, probe_optimizer, **arguments):
        super().compile(**arguments)
        self.contrastive_optimizer, self.probe_optimizer = contrastive_optimizer, probe_optimizer
        self.probe_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.contrastive_loss_tracker = keras.metrics.Mean(name="c_loss")
        self.contrastive_accuracy = keras.metrics.SparseCategoricalAccuracy(name="c_acc")
        self.probe_loss_tracker = keras.metrics.Mean(name="p_loss")
        self.probe_accuracy = keras.metrics.SparseCategoricalAccuracy(name="p_acc")

    @property
    def metrics(self):
        return [
            self.contrastive_loss_tracker,
            self.contrastive_accuracy,
            self.probe_loss_tracker,
            self.probe_accuracy,
        ]

    def contrastive_loss(self, first, second):
        first, second = (each / ops.norm(each, axis=1, keepdims=True) for each in (first, second))
        alike = ops.matmul(first, ops.transpose(second)) / self.temperature
        labels = ops.arange(ops.shape(first)[0])
        self.contrastive_accuracy.update_state(labels, alike)
        self.contrastive_accuracy.update_state(labels, ops.transpose(alike))
        one = keras.losses.sparse_categorical_crossentropy(labels, alike, from_logits=True)
        other = keras.losses.sparse_categorical_crossentropy(labels, ops.transpose(alike), from_logits=True)
        return ops.mean(one + other) / 2

    def train_step(self, data):
        x, y = data
        first, second = self.augmenter(x, training=True), self.augmenter(x, training=True)
        with tf.GradientTape() as tape:
            projected = [
                self.projection_head(self.encoder(each, training=True), training=True) for each in (first, second)
            ]
            c_loss = self.contrastive_loss(*projected)
        weights = self.encoder.trainable_weights + self.projection_head.trainable_weights
        self.contrastive_optimizer.apply_gradients(zip(tape.gradient(c_loss, weights), weights, strict=True))
        self.contrastive_loss_tracker.update_state(c_loss)

        augmented = self.augmenter(x, training=True)
        with tf.GradientTape() as tape:
            logits = self.linear_probe(self.encoder(augmented, training=False), training=True)
            p_loss = self.probe_loss(y, logits)
        weights = self.linear_probe.trainable_weights
        self.probe_optimizer.apply_gradients(zip(tape.gradient(p_loss, weights), weights, strict=True))
        self.probe_loss_tracker.update_state(p_loss)
        self.probe_accuracy.update_state(y, logits)
        return {m.name: m.result() for m in self.metrics}


def simclr() -> keras.Model:
    """SimCLR on vectors."""
    model = ContrastiveModel()
    model.compile(contrastive_optimizer=keras.optimizers.Adam(1e-2), probe_optimizer=keras.optimizers.Adam(1e-2))
    return model


def pairs() -> Rows:
    """Two vectors a row, whether they are of one kind, and the kind of the first."""
    random = np.random.default_rng(0)
    x = {name: random.normal(size=(24, WIDTH)) for name in ("left", "right")}
    y = {"distance": random.integers(0, 2, (24, 1)).astype(float), "kind": random.integers(0, CLASSES, 24)}
    return Rows(x=x, y=y)


def contrastive_loss(y_true, y_pred, margin=1.0):
    """Hadsell et al. 2006: far apart if they differ, close together if not; one number a row."""
    return ops.mean((1 - y_true) * ops.square(y_pred) + y_true * ops.square(ops.maximum(margin - y_pred, 0)), axis=-1)


def siamese() -> keras.Model:
    """Koch et al. 2015: one embedding of both inputs, and two outputs with a loss each."""
    left, right = keras.Input((WIDTH,), name="left"), keras.Input((WIDTH,), name="right")
    embedding = keras.Sequential([keras.Input((WIDTH,)), layers.Dense(5, "tanh"), layers.Dense(3)], name="embedding")
    a, b = embedding(left), embedding(right)
    apart = ops.sqrt(ops.maximum(ops.sum(ops.square(a - b), axis=1, keepdims=True), keras.config.epsilon()))
    distance = layers.Dense(1, activation="sigmoid", name="distance")(apart)
    kind = layers.Dense(CLASSES, activation="softmax", name="kind")(a)
    model = keras.Model({"left": left, "right": right}, {"distance": distance, "kind": kind})
    model.compile(
        optimizer=keras.optimizers.RMSprop(1e-2),
        loss={"distance": contrastive_loss, "kind": "sparse_categorical_crossentropy"},
        loss_weights={"distance": 1.0, "kind": 0.5},
        metrics={"kind": ["accuracy"]},
    )
    return model
