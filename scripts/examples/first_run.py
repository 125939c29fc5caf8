"""The first run: arrays, a model, two workers, and a plain Keras model at the end.

    python scripts/examples/first_run.py

`workers=2` are two processes of this machine. Where there are GPUs, each takes its share of them. `batch_size` is the
whole batch: each worker computes half of its 64 rows, and the learning rate stays what it is.
"""

import keras
import numpy as np
from heliostat.trainer import Trainer

# Three spirals, one for each class: two coordinates and a label for every point.
rng = np.random.default_rng(0)
y = rng.integers(0, 3, 6000)
radius = rng.uniform(0.1, 1, 6000)
angle = 4 * radius + 2 * np.pi * y / 3 + rng.normal(0, 0.1, 6000)
x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype("float32")


def build_model():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


trainer = Trainer(build_model, workers=2)
history = trainer.fit(x, y, batch_size=64, epochs=8, validation_split=0.2)
model = trainer.model
print("validation accuracy by epoch:", [round(float(value), 3) for value in history.history["val_accuracy"]])
print("class of (0.5, 0.5):", model.predict(np.array([[0.5, 0.5]]), verbose=0).argmax())
model.save("spirals.keras")
