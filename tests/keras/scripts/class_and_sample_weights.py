"""Weights of classes and of samples: as the guide about built-in training gives them."""

import keras
import numpy as np

# on Heliostat: from heliostat.trainer import Trainer
from keras import layers

keras.utils.set_random_seed(0)
keras.config.set_floatx("float64")

random = np.random.default_rng(0)
x_train, y_train = random.uniform(size=(40, 8)), random.integers(0, 5, 40)


def get_compiled_model():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6, activation="relu"), layers.Dense(5)])
    model.compile(
        optimizer="sgd",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["sparse_categorical_accuracy"],
    )
    return model


class_weight = {0: 1.0, 1: 1.0, 2: 2.0, 3: 1.0, 4: 0.5}
sample_weight = np.ones(shape=(len(y_train),))
sample_weight[y_train == 2] = 2.0

model = get_compiled_model()  # on Heliostat: model = Trainer(get_compiled_model)
by_class = model.fit(
    x_train, y_train, class_weight=class_weight, batch_size=8, epochs=1, shuffle=False, verbose=0
).history
by_sample = model.fit(
    x_train, y_train, sample_weight=sample_weight, batch_size=8, epochs=1, shuffle=False, verbose=0
).history

results = {"by_class": by_class["loss"], "by_sample": by_sample["loss"], **by_sample}
