"""A step of your own: adversarial training, in which each row is moved to where the model is most wrong.

    python scripts/examples/custom_step.py

`train_step` is written for one device. Each worker calls it on its part of the batch; the optimizer sees the gradient
of the whole batch, and metrics count the rows of all workers.
"""

import keras
import numpy as np
import tensorflow as tf
from heliostat.trainer import Trainer

rng = np.random.default_rng(0)
x = rng.normal(size=(4000, 10))
y = (x[:, 0] * x[:, 1] + x[:, 2] > 0).astype("int32")


def build_model():
    layers = [keras.Input((10,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.005), loss, metrics=["accuracy"])
    return model


def train_step(model, optimizer, x, y):
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
    moved = x + 0.05 * tf.sign(tape.gradient(loss, x))
    with tf.GradientTape() as tape:
        y_pred = model(moved, training=True)
        loss = model.compute_loss(x=moved, y=y, y_pred=y_pred)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    model.compute_metrics(x, y, y_pred)
    return loss


trainer = Trainer(build_model, workers=2)
history = trainer.fit(x, y, batch_size=100, epochs=5, loop="custom", train_step=train_step)
print("accuracy on moved rows by epoch:", [round(float(value), 3) for value in history.history["accuracy"]])
