"""laptop_to_cluster.py in plain Keras, on one device."""

import keras
import numpy as np

keras.utils.set_random_seed(0)

rng = np.random.default_rng(0)
x = rng.normal(size=(10_000, 20)).astype("float32")
y = np.sin(x.sum(axis=1) / 4)

layers = [keras.layers.Dense(64, activation="tanh"), keras.layers.Dense(1)]
model = keras.Sequential([keras.Input((20,)), *layers])
model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])

history = model.fit(x, y, batch_size=200, epochs=5, validation_split=0.1)
print("validation error by epoch:", [round(float(value), 4) for value in history.history["val_mae"]])
model.save("waves.keras")
