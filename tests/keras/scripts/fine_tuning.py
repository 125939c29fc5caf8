"""A frozen base under a new head, and then a fit of everything with a lower rate: as the guide has it."""

import keras
import numpy as np

# on Heliostat: from heliostat.trainer import Trainer
from keras import layers

keras.utils.set_random_seed(0)
keras.config.set_floatx("float64")

random = np.random.default_rng(0)
x_train, y_train = random.normal(size=(32, 6, 6, 2)), random.integers(0, 2, (32, 1)).astype("float64")


def get_model():
    base_model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
        ],
        name="base",
    )
    base_model.trainable = False
    inputs = keras.Input(shape=(6, 6, 2))
    x = base_model(inputs, training=False)
    outputs = layers.Dense(1)(x)
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy()],
    )
    return model


def unfreeze(model):
    model.get_layer("base").trainable = True
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy()],
    )


options = {"batch_size": 8, "shuffle": False, "verbose": 0}
model = get_model()  # on Heliostat: model = Trainer(get_model)
first = model.fit(x_train, y_train, epochs=2, **options).history
unfreeze(model)  # on Heliostat: options["prepare"] = unfreeze
second = model.fit(x_train, y_train, epochs=2, **options).history
predictions = model.predict(x_train[:4], verbose=0)

results = {"first": first["loss"], "second": second["loss"], "predictions": predictions, **second}
