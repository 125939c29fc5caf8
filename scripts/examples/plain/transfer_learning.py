"""transfer_learning.py in plain Keras."""

import keras
import numpy as np

keras.utils.set_random_seed(0)

rng = np.random.default_rng(0)


def measurements(num_rows, gain, offset):
    x = rng.uniform(-2, 2, (num_rows, 3)).astype("float32")
    return x, gain * (np.sin(2 * x[:, 0]) * x[:, 1] + x[:, 2] ** 2) + offset


x, y = measurements(8000, gain=1, offset=0)  # of the machine that has been running for years
x_new, y_new = measurements(100, gain=1.5, offset=-2)  # of the new one
new_rows = measurements(1000, gain=1.5, offset=-2)


layers = [keras.layers.Dense(64, activation="tanh") for _ in range(2)]
model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1)])
model.compile(keras.optimizers.Adam(0.003), "mse", metrics=["mae"])


def freeze(model):
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])


before = model.fit(x, y, batch_size=80, epochs=10, validation_data=new_rows).history["val_mae"]
freeze(model)
after = model.fit(x_new, y_new, batch_size=20, epochs=40, validation_data=new_rows).history["val_mae"]
print("mean error on the new machine:", round(float(before[-1]), 3), "->", round(float(after[-1]), 3))
