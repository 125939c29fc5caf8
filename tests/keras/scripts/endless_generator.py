"""A generator function without an end, with steps per epoch."""

import keras
import numpy as np

# on Heliostat: from heliostat.trainer import Trainer
from keras import layers

keras.utils.set_random_seed(0)
keras.config.set_floatx("float64")

random = np.random.default_rng(0)
x_train, y_train = random.uniform(size=(40, 8)), random.uniform(size=(40, 1))


def batches():
    at = 0
    while True:
        yield x_train[at : at + 8], y_train[at : at + 8]
        at = (at + 8) % 40


def get_compiled_model():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6, activation="relu"), layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    return model


model = get_compiled_model()  # on Heliostat: model = Trainer(get_compiled_model)
source = batches()  # on Heliostat: source = batches
history = model.fit(source, steps_per_epoch=4, epochs=3, shuffle=False, verbose=0)

results = history.history
