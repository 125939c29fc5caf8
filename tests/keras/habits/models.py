"""Models with steps and losses of their own."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import ops

from .habit import Habit, fits, numbers, ones

X, Y = numbers()


def _functional(kind, optimizer=None, **compiled):
    inputs = keras.Input((5,))
    model = kind(inputs, ones(1)(inputs))
    model.compile(optimizer or keras.optimizers.SGD(0.02), **compiled)
    return model


def _updated(model, tape, loss):
    weights = model.trainable_variables
    model.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))


class TwoParts(keras.Model):
    """`x, y = data`, as guides write it."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        _updated(self, tape, loss)
        return {"own": loss}


class AllResults(keras.Model):
    """Returns what every metric says, the compiled ones among them."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        _updated(self, tape, loss)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {m.name: m.result() for m in self.metrics}


class Pair(keras.Model):
    """Gets two models in its constructor and has no `get_config`."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def call(self, x):
        return self.second(self.first(x))


def _narrow_and_wide():
    return (
        keras.Sequential([keras.Input((5,)), ones(2)], name="narrow"),
        keras.Sequential([keras.Input((2,)), ones(5)], name="wide"),
    )


def pair():
    model = Pair(*_narrow_and_wide())
    model.compile(keras.optimizers.SGD(0.001), "mse")
    return model


class NoCall(keras.Model):
    """Has a step and no `call`."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def train_step(self, data):
        x = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(self.second(self.first(x)) - x))
        weights = self.first.trainable_weights + self.second.trainable_weights
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"back": loss}


def no_call():
    model = NoCall(*_narrow_and_wide())
    model.compile(keras.optimizers.SGD(0.001))
    return model


class Rivals(keras.Model):
    """Two optimizers; the second loss is of the weights that the first has changed."""

    def __init__(self, judge, maker):
        super().__init__()
        self.judge, self.maker = judge, maker

    def call(self, x):
        return self.judge(self.maker(x[:, 3:]))

    def train_step(self, data):
        x = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape() as tape:
            j_loss = ops.mean(ops.softplus(-self.judge(x)) + ops.softplus(self(x)))
        weights = self.judge.trainable_weights
        self.j_optimizer.apply(tape.gradient(j_loss, weights), weights)
        with tf.GradientTape() as tape:
            m_loss = ops.mean(ops.softplus(-self(x)))
        weights = self.maker.trainable_weights
        self.m_optimizer.apply(tape.gradient(m_loss, weights), weights)
        return {"judge": j_loss, "maker": m_loss}


def rivals():
    judge, maker = keras.Sequential([keras.Input((5,)), ones(1)]), keras.Sequential([keras.Input((2,)), ones(5)])
    model = Rivals(judge, maker)
    model.j_optimizer, model.m_optimizer = keras.optimizers.Adam(0.02), keras.optimizers.Adam(0.01)
    model.compile()
    return model


def total_of_squares(y, y_pred):
    return ops.sum(ops.square(y - y_pred))


class Follower(keras.Model):
    """A second set of weights follows the first, after each update."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = ops.mean(ops.square(y_pred - y)) + 0.5 * ops.mean(ops.square(y_pred - self.slow(x)))
        _updated(self, tape, loss)
        for mine, new in zip(self.slow.weights, self.trainable_variables, strict=True):
            mine.assign(0.7 * mine + 0.3 * new)
        return {"total": loss}


def follower():
    model = _functional(Follower)
    model.slow = keras.Sequential([keras.Input((5,)), ones(1)])
    model.slow.trainable = False
    return model


class OwnLoss(keras.Model):
    """Its own `compute_loss`, and its own metrics in the property."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tracker = keras.metrics.Mean(name="loss")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = ops.mean(ops.abs(y - y_pred))
        self.tracker.update_state(loss, sample_weight=ops.shape(x)[0])
        return loss

    @property
    def metrics(self):
        return [self.tracker]


def overlap():
    model = keras.Sequential([keras.Input((5,)), ones(1, "sigmoid")])
    model.compile(keras.optimizers.SGD(0.1), keras.losses.Dice())
    return model


class Clipped(keras.Model):
    """Clips its gradients by their norm before it applies them."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        grads, _ = tf.clip_by_global_norm(tape.gradient(loss, self.trainable_variables), 0.3)
        self.optimizer.apply_gradients(zip(grads, self.trainable_variables, strict=True))
        return {"own": loss}


class Codes(keras.layers.Layer):
    """Vectors that follow, by moving averages, sums of the rows that are nearest."""

    def build(self, shape):
        start = {"trainable": False, "initializer": keras.initializers.RandomNormal(1.0, 0.4, seed=2)}
        self.codes, self.sums = (self.add_weight(shape=(3, 5), name=name, **start) for name in ("codes", "sums"))
        self.counts = self.add_weight(shape=(3,), name="counts", **start)

    def call(self, z, training=False):
        far = ops.sum(ops.square(z[:, None] - self.codes[None]), -1)
        mine = ops.one_hot(ops.argmin(far, 1), 3, dtype=z.dtype)
        if training:
            self.counts.assign(0.8 * self.counts + 0.2 * ops.sum(mine, 0))
            self.sums.assign(0.8 * self.sums + 0.2 * ops.matmul(ops.transpose(mine), z))
            self.codes.assign(self.sums / self.counts[:, None])
        return z + ops.stop_gradient(ops.matmul(mine, self.codes) - z)


def codebook():
    model = keras.Sequential([keras.Input((5,)), ones(5), Codes()])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


HABITS: dict[str, Habit] = {
    "two_parts": Habit(build=lambda: _functional(TwoParts, loss="mse"), keras=fits(X, Y, batch_size=24)),
    "all_results": Habit(build=lambda: _functional(AllResults, loss="mse", metrics=["mae"]), keras=fits(X, Y)),
    "no_get_config": Habit(build=pair, keras=fits(X, X)),
    "no_call": Habit(build=no_call, keras=fits(X, batch_size=24)),
    "rivals": Habit(build=rivals, keras=fits(X, batch_size=24)),
    "sum_over_rows": Habit(
        build=lambda: _functional(keras.Model, loss=total_of_squares), keras=fits(X, Y), refused=("reduction",)
    ),
    "follower": Habit(build=follower, keras=fits(X, Y, batch_size=24)),
    "own_loss": Habit(build=lambda: _functional(OwnLoss), keras=fits(X, Y)),
    "overlap": Habit(build=overlap, keras=fits(X, (Y > 0).astype(float)), said=("dice", "num_microbatches=1")),
    "clipped_in_step": Habit(
        build=lambda: _functional(Clipped, loss="mse"), keras=fits(X, Y), refused=("clipnorm", "global_mean")
    ),
    "codebook": Habit(build=codebook, keras=fits(X, X), refused=("global_sum", "num_microbatches=1")),
}
"""By name. Of a number that a step returns Keras shows the last batch's: there a batch is all rows."""
