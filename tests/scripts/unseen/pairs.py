"""A loss over pairs of neighbouring rows: halves of eight rows keep them together, microbatches of seven do not."""

import keras
import numpy as np
from heliostat.trainer import Trainer

rng = np.random.default_rng(0)
x = rng.normal(size=(280, 5)).astype("float32")
y = x[:, :1] + x[:, 1:2]


def loss(y, p):
    num = keras.ops.shape(p)[0] // 2 * 2
    apart = keras.ops.square((p[0:num:2] - p[1:num:2]) - (y[0:num:2] - y[1:num:2]))
    return keras.ops.mean(keras.ops.square(y - p)) + keras.ops.mean(apart)


def build_model():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), loss, metrics=["mae"])
    return model


Trainer(build_model, workers=2, num_microbatches=4).fit(x, y, batch_size=28, epochs=2, verbose=0)
