"""A teacher that follows its student, and a student that learns from a teacher."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from ..against import Rows

WIDTH, CLASSES = 6, 3


def labelled() -> Rows:
    """Vectors of three classes."""
    random = np.random.default_rng(0)
    return Rows(x=random.normal(size=(24, WIDTH)), y=random.integers(0, CLASSES, 24))


def _classifier(width: int, name: str) -> keras.Model:
    return keras.Sequential(
        [keras.Input((WIDTH,)), layers.Dense(width, activation="relu"), layers.Dense(CLASSES)], name=name
    )


class MeanTeacher(keras.Model):
    """Tarvainen and Valpola 2017: the teacher is the student's moving average, made after each update of it."""

    def __init__(self, student, teacher, decay=0.9):
        super().__init__()
        self.student, self.teacher, self.decay = student, teacher, decay
        self.noise = layers.GaussianNoise(0.1, seed=11)
        self.teacher.set_weights(self.student.get_weights())
        self.teacher.trainable = False

    def call(self, x):
        return self.teacher(x)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            guess = self.student(self.noise(x, training=True), training=True)
            target = self.teacher(self.noise(x, training=True))
            supervised = self.compute_loss(x=x, y=y, y_pred=guess)
            consistency = ops.mean((ops.softmax(guess) - ops.softmax(target)) ** 2)
            loss = supervised + 2.0 * consistency
        weights = self.student.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        for mine, new in zip(self.teacher.weights, self.student.weights, strict=True):
            mine.assign(self.decay * mine + (1 - self.decay) * new)
        results = self.compute_metrics(x, y, guess)
        return {**results, "consistency": consistency}


def mean_teacher() -> keras.Model:
    """A mean teacher of a small classifier."""
    model = MeanTeacher(_classifier(5, "student"), _classifier(5, "teacher"))
    model.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


class Distiller(keras.Model):
    """Hinton et al. 2015: the student learns labels, and what its teacher finds likely."""

    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher

    def compile(self, optimizer, metrics, student_loss_fn, distillation_loss_fn, alpha=0.1, temperature=3):
        super().compile(optimizer=optimizer, metrics=metrics)
        self.student_loss_fn, self.distillation_loss_fn = student_loss_fn, distillation_loss_fn
        self.alpha, self.temperature = alpha, temperature

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, allow_empty=False):
        likely = self.teacher(x, training=False)
        student_loss = self.student_loss_fn(y, y_pred)
        distillation = self.distillation_loss_fn(
            ops.softmax(likely / self.temperature, axis=1), ops.softmax(y_pred / self.temperature, axis=1)
        ) * (self.temperature**2)
        return self.alpha * student_loss + (1 - self.alpha) * distillation

    def call(self, x):
        return self.student(x)


def distillation() -> keras.Model:
    """A small student of a wider teacher."""
    teacher = _classifier(9, "teacher")
    teacher.trainable = False
    model = Distiller(_classifier(4, "student"), teacher)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
        student_loss_fn=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        distillation_loss_fn=keras.losses.KLDivergence(),
    )
    return model
