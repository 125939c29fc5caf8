"""spot_machines.py in plain Keras, which goes on from the last checkpoint on one machine."""

import keras
import numpy as np

keras.utils.set_random_seed(0)

rng = np.random.default_rng(0)
x = rng.normal(size=(20_000, 16)).astype("float32")
y = np.tanh(x[:, :8] * x[:, 8:]).sum(axis=1)

layers = [keras.layers.Dense(128, activation="tanh") for _ in range(3)]
model = keras.Sequential([keras.Input((16,)), *layers, keras.layers.Dense(1)])
model.compile("adam", "mse", metrics=["mae"])

backup = keras.callbacks.BackupAndRestore("backup")
history = model.fit(x, y, batch_size=100, epochs=15, validation_split=0.1, callbacks=[backup])
print("validation error by epoch:", [round(float(value), 3) for value in history.history["val_mae"]])
