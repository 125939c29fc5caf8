"""A `PyDataset` that prepares batches, and validation on a `tf.data.Dataset`."""

import keras
import numpy as np
import tensorflow as tf

# on Heliostat: from heliostat.trainer import Trainer
from keras import layers

keras.utils.set_random_seed(0)
keras.config.set_floatx("float64")

random = np.random.default_rng(0)
x_all, y_all = random.uniform(size=(44, 8)), random.integers(0, 3, 44)


class Batches(keras.utils.PyDataset):
    def __init__(self, x_set, y_set, batch_size, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y = x_set, y_set
        self.batch_size = batch_size

    def __len__(self):
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, idx):
        rows = slice(idx * self.batch_size, (idx + 1) * self.batch_size)
        return self.x[rows] * 2 - 1, self.y[rows]


def get_compiled_model():
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(6, activation="relu"), layers.Dense(3, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


train = Batches(x_all[:32], y_all[:32], batch_size=8)
valid = tf.data.Dataset.from_tensor_slices((x_all[32:], y_all[32:])).batch(4)

model = get_compiled_model()  # on Heliostat: model = Trainer(get_compiled_model)
history = model.fit(train, epochs=2, validation_data=valid, shuffle=False, verbose=0)
evaluated = model.evaluate(valid, verbose=0, return_dict=True)

results = {**history.history, **{f"evaluated {name}": value for name, value in evaluated.items()}}
