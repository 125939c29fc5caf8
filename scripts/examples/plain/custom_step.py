"""custom_step.py in plain Keras and TensorFlow: the same step in a loop."""

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(0)

rng = np.random.default_rng(0)
x = rng.normal(size=(4000, 10))
y = (x[:, 0] * x[:, 1] + x[:, 2] > 0).astype("int32")

layers = [keras.Input((10,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(2)]
model = keras.Sequential(layers)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(0.005), loss, metrics=["accuracy"])


@tf.function
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


batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(4000).batch(100)
for epoch in range(5):
    model.reset_metrics()
    for x_batch, y_batch in batches:
        train_step(model, model.optimizer, x_batch, y_batch)
    print(epoch, "accuracy on moved rows:", round(float(model.get_metrics_result()["accuracy"]), 3))
