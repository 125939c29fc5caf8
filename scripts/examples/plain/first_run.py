"""first_run.py in plain Keras, on one device."""

import keras
import numpy as np

keras.utils.set_random_seed(0)

# Three spirals, one for each class: two coordinates and a label for every point.
rng = np.random.default_rng(0)
y = rng.integers(0, 3, 6000)
radius = rng.uniform(0.1, 1, 6000)
angle = 4 * radius + 2 * np.pi * y / 3 + rng.normal(0, 0.1, 6000)
x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype("float32")

model = keras.Sequential(
    [
        keras.Input((2,)),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(3, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

history = model.fit(x, y, batch_size=64, epochs=8, validation_split=0.2)
print("validation accuracy by epoch:", [round(float(value), 3) for value in history.history["val_accuracy"]])
print("class of (0.5, 0.5):", model.predict(np.array([[0.5, 0.5]]), verbose=0).argmax())
model.save("spirals.keras")
