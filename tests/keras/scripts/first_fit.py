"""Fit with validation data, evaluate, predict, save: as the guide about built-in training begins."""

import keras
import numpy as np

# on Heliostat: from heliostat.trainer import Trainer
from keras import layers

keras.utils.set_random_seed(0)
keras.config.set_floatx("float64")

random = np.random.default_rng(0)
x_train, y_train = random.uniform(size=(40, 8)), random.integers(0, 3, 40)
x_val, y_val = random.uniform(size=(12, 8)), random.integers(0, 3, 12)


def get_compiled_model():
    inputs = keras.Input(shape=(8,), name="digits")
    x = layers.Dense(6, activation="relu", name="dense_1")(inputs)
    outputs = layers.Dense(3, activation="softmax", name="predictions")(x)
    model = keras.Model(inputs=inputs, outputs=outputs)
    model.compile(
        optimizer=keras.optimizers.RMSprop(),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )
    return model


model = get_compiled_model()  # on Heliostat: model = Trainer(get_compiled_model)
history = model.fit(x_train, y_train, batch_size=8, epochs=2, validation_data=(x_val, y_val), shuffle=False, verbose=0)
options = {"batch_size": 4}  # on Heliostat: options = {"batch_size": 4, "return_dict": False}
loss, accuracy = model.evaluate(x_val, y_val, verbose=0, **options)
predictions = model.predict(x_val[:5], verbose=0)
model.save("trained.keras")
again = keras.models.load_model("trained.keras").predict(x_val[:5], verbose=0)

results = {**history.history, "evaluated": [loss, accuracy], "predictions": predictions, "again": again}
