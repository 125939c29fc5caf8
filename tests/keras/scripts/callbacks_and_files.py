"""Early stopping, the best model in a file with a relative path, a log in another, and reading both afterwards."""

import csv

import keras
import numpy as np

# on Heliostat: from heliostat.trainer import Trainer
from keras import layers

keras.utils.set_random_seed(0)
keras.config.set_floatx("float64")

random = np.random.default_rng(0)
x_train = random.normal(size=(48, 6))
y_train = np.tanh(x_train.sum(axis=1, keepdims=True))


def get_compiled_model():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, activation="tanh"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss="mse", metrics=["mae"])
    return model


callbacks = [
    keras.callbacks.EarlyStopping(monitor="val_loss", min_delta=0.02, patience=2, verbose=0),
    keras.callbacks.ModelCheckpoint("best_model.keras", save_best_only=True, monitor="val_loss", verbose=0),
    keras.callbacks.CSVLogger("training.log"),
]
model = get_compiled_model()  # on Heliostat: model = Trainer(get_compiled_model)
history = model.fit(
    x_train, y_train, epochs=20, batch_size=8, callbacks=callbacks, validation_split=0.25, shuffle=False, verbose=0
)
best = keras.models.load_model("best_model.keras").predict(x_train[:4], verbose=0)
with open("training.log") as file:
    logged = [float(line["val_loss"]) for line in csv.DictReader(file)]

results = {**history.history, "best": best, "logged": logged}
