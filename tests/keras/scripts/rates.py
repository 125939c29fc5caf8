"""A schedule by callback, and a callback of one's own that reads the optimizer and sets its rate."""

import keras
import numpy as np

# on Heliostat: from heliostat.trainer import Trainer
from keras import layers

keras.utils.set_random_seed(0)
keras.config.set_floatx("float64")

random = np.random.default_rng(0)
x_train = random.normal(size=(40, 6))
y_train = np.tanh(x_train.sum(axis=1, keepdims=True))


def scheduler(epoch, lr):
    return lr if epoch < 2 else lr * 0.5


class Halve(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        lr = float(self.model.optimizer.learning_rate)
        if epoch == 1:
            self.model.optimizer.learning_rate = lr / 2
        self.seen.append((lr, int(self.model.optimizer.iterations)))


def get_compiled_model():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, activation="tanh"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss="mse")
    return model


halve = Halve()
model = get_compiled_model()  # on Heliostat: model = Trainer(get_compiled_model)
history = model.fit(
    x_train,
    y_train,
    batch_size=8,
    epochs=4,
    callbacks=[keras.callbacks.LearningRateScheduler(scheduler), halve],
    shuffle=False,
    verbose=0,
)

results = {**history.history, "seen": halve.seen}
