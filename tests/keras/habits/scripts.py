"""Scripts with arguments, data and callbacks as people give them."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from keras import ops

from .habit import Habit, fits, numbers, ones

X, Y = numbers()


def line():
    model = keras.Sequential([keras.Input((5,)), ones(1)])
    model.compile(keras.optimizers.SGD(0.02), "mse")
    return model


def classes():
    model = keras.Sequential([keras.Input((5,)), ones(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def by_name():
    left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
    both = keras.layers.Concatenate()([left, right])
    model = keras.Model({"left": left, "right": right}, {name: ones(1, name=name)(both) for name in ("up", "down")})
    model.compile("sgd", {"up": "mse", "down": "mae"}, loss_weights={"up": 0.3, "down": 1.0})
    return model


def one_epoch_each(model):
    """`fit` in a loop."""
    return {"loss": [fits(X, Y, epochs=1)(model)["loss"][0] for _ in range(3)]}


class Endless:
    """A source without an end, that knows how often it was asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self):
        while True:
            self.asked += 1
            if self.asked > 1000:
                raise OverflowError("a thousand batches were read for a run of six steps")
            yield X[:8], Y[:8]


def endless(call):
    """A fit of a generator, or of the function that makes it."""

    def fit(model):
        source = Endless()
        given = source() if call else source
        return model.fit(given, steps_per_epoch=3, epochs=2, shuffle=False, verbose=0).history

    return fit


class Notes(keras.callbacks.Callback):
    """Reads the optimizer as numbers."""

    def on_epoch_end(self, epoch, logs=None):
        logs["rate"] = float(self.model.optimizer.learning_rate)
        logs["steps"] = int(self.model.optimizer.iterations)


class Share(keras.Model):
    """A loss with a share that is a Python number."""

    share = 0.0

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss + self.share * ops.mean(ops.square(y_pred))


def shared():
    inputs = keras.Input((5,))
    model = Share(inputs, ones(1)(inputs))
    model.compile(keras.optimizers.SGD(0.02), "mse")
    return model


class SetsShare(keras.callbacks.Callback):
    """Sets that number before the first step."""

    def on_train_begin(self, logs=None):
        self.model.share = 0.25


class Weighted(keras.losses.Loss):
    """A loss with a variable."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.factor = keras.Variable(0.0, trainable=False)

    def call(self, y, y_pred):
        return ops.mean(ops.square(y - y_pred) + self.factor * ops.abs(y_pred), axis=-1)


def weighted():
    model = keras.Sequential([keras.Input((5,)), ones(1)])
    model.compile(keras.optimizers.SGD(0.02), Weighted())
    return model


class Anneals(keras.callbacks.Callback):
    """Raises that variable with every epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.loss.factor.assign(0.3 * epoch)


class Bounds(keras.callbacks.Callback):
    """Keeps the weights small after every batch."""

    def on_train_batch_end(self, batch, logs=None):
        self.model.set_weights([np.clip(each, -0.8, 0.8) for each in self.model.get_weights()])


class Rehearses(keras.callbacks.Callback):
    """Trains the model by itself after every epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.train_on_batch(X[:4], -Y[:4])


def best_in_file(model):
    """The best weights in a file with a relative path, read after the fit."""
    best = keras.callbacks.ModelCheckpoint("best.keras", monitor="loss", save_best_only=True)
    fits(X, Y, callbacks=[best])(model)
    found = keras.models.load_model("best.keras").predict(X[:4], verbose=0)
    Path("best.keras").unlink()
    return {"best": found.ravel().tolist()}


def with_callback(make):
    """A fit with a new callback."""
    return lambda model: fits(X, Y, callbacks=[make()])(model)


_LABELS = (X.sum(1) > 0).astype(np.int64)
_NAMED = ({"left": X[:, :2], "right": X[:, 2:]}, {"up": Y, "down": -Y})

HABITS: dict[str, Habit] = {
    "arguments": Habit(build=classes, keras=fits(X, _LABELS, validation_split=0.25, class_weight={0: 1.0, 1: 2.5})),
    "named_arrays": Habit(build=by_name, keras=fits(*_NAMED)),
    "fit_in_a_loop": Habit(build=line, keras=one_epoch_each),
    "endless_generator": Habit(build=line, keras=endless(call=True), heliostat=endless(call=False)),
    "optimizer_as_numbers": Habit(build=line, keras=with_callback(Notes)),
    "relative_path": Habit(build=line, keras=best_in_file),
    "attribute_before_the_first_step": Habit(build=shared, keras=with_callback(SetsShare)),
    "variable_of_a_loss": Habit(build=weighted, keras=with_callback(Anneals)),
    "weights_in_a_batch_hook": Habit(build=line, keras=with_callback(Bounds)),
    "training_in_a_callback": Habit(build=line, keras=with_callback(Rehearses), refused=("train_on_batch",)),
}
"""By name."""
