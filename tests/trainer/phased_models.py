"""Models that read what their step has changed, or that need a sum over the batch in the middle of it."""

from __future__ import annotations

import itertools

import keras
import tensorflow as tf
from heliostat.trainer import global_mean, global_sum
from keras import layers, ops

from .phased_cases import WIDTH, case, dense, net, tanh


class MeanTeacher(keras.Model):
    def __init__(self):
        super().__init__()
        self.student, self.teacher = net(WIDTH, tanh(5, 1), 1, first=2), net(WIDTH, tanh(5, 1), 1, first=2)
        self.teacher.trainable = False
        self.noise = layers.GaussianNoise(0.1, seed=3)
        self.agreement = keras.metrics.Mean(name="agreement")

    def call(self, x, training=False):
        return self.student(x, training=training)

    def train_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        target = self.teacher(self.noise(x, training=True))
        with tf.GradientTape() as tape:
            out = self(x, training=True)
            loss = tf.reduce_mean((out - y) ** 2) + tf.reduce_mean((out - target) ** 2)
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables, strict=True)
        )
        for mine, new in zip(self.teacher.weights, self.student.weights, strict=True):
            mine.assign(0.9 * mine + 0.1 * new)
        distance = (self.teacher(x) - y) ** 2
        self.agreement.update_state(distance)
        return {"both": loss, "agreement": self.agreement.result()}


@case(2)
def mean_teacher():
    model = MeanTeacher()
    model.compile(keras.optimizers.Adam(0.02))
    return model


class Codebook(layers.Layer):
    """Codes that are moving averages of the rows that are nearest to them (VQ-VAE)."""

    def build(self, _):
        made = {"trainable": False, "initializer": keras.initializers.RandomNormal(1.0, 0.5, seed=1)}
        self.codes, self.sums = (self.add_weight(shape=(4, WIDTH), **made) for _ in range(2))
        self.counts = self.add_weight(shape=(4,), **made)

    def call(self, z, training=False):
        far = ops.sum((z[:, None] - self.codes[None]) ** 2, -1)
        mine = ops.one_hot(ops.argmin(far, 1), 4, dtype=z.dtype)
        quantised = mine @ self.codes
        if training:
            rows = ops.stop_gradient(z)
            counts, sums = global_sum([ops.sum(mine, 0), ops.transpose(mine) @ rows])
            self.counts.assign(0.9 * self.counts + 0.1 * counts)
            self.sums.assign(0.9 * self.sums + 0.1 * sums)
            self.codes.assign(self.sums / (ops.abs(self.counts) + 1e-3)[:, None])
        self.add_loss(0.1 * ops.mean(ops.min(far, 1)))
        return z + ops.stop_gradient(quantised - z)


@case(2)
def vq_vae():
    model = keras.Sequential([keras.Input((WIDTH,)), dense(WIDTH, 1), Codebook(), dense(1, 2)])
    model.compile(keras.optimizers.Adam(0.02), "mse", metrics=["mae"])
    return model


class Sam(keras.Model):
    def train_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        weights = self.trainable_variables
        gradients = global_mean(self.gradients(x, y)[1])
        norm = tf.linalg.global_norm(gradients) + 1e-12
        climbed = [0.05 * gradient / norm for gradient in gradients]
        for weight, step in zip(weights, climbed, strict=True):
            weight.assign_add(step)
        loss, gradients = self.gradients(x, y)
        for weight, step in zip(weights, climbed, strict=True):
            weight.assign_sub(step)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return {"climbed": loss}

    def gradients(self, x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
        return loss, tape.gradient(loss, self.trainable_variables)


def functional(kind):
    inputs = keras.Input((WIDTH,))
    return kind(inputs, dense(1, 2)(tanh(5, 1)(inputs)))


@case(3, without_sum=1)
def sam():
    model = functional(Sam)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    return model


class Lookahead(keras.Model):
    def build_slow(self):
        self.slow = [keras.Variable(w, trainable=False, name=f"slow_{i}") for i, w in enumerate(self.trainable_weights)]
        return self

    def train_step(self, data):
        logs = super().train_step(data)
        for slow, fast in zip(self.slow, self.trainable_variables, strict=True):
            slow.assign(slow + 0.5 * (fast - slow))
            fast.assign(slow)
        return logs


@case(2, without_sum=1)
def lookahead():
    model = functional(Lookahead).build_slow()
    model.compile(keras.optimizers.Adam(0.02, global_clipnorm=0.1), "mse", metrics=["mae"])
    return model


class Spanning(keras.Model):
    """One tape over an update: the gradient goes through the weights before and after it."""

    def train_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        weights = self.trainable_variables
        with tf.GradientTape(persistent=True) as tape:
            first = tf.reduce_mean((self(x) - y) ** 2)
            self.optimizer.apply(tape.gradient(first, weights), weights)
            both = first + tf.reduce_mean((self(x) - 2 * y) ** 2)
        self.optimizer.apply(tape.gradient(both, weights), weights)
        return {"first": first, "both": both}


@case(2)
def one_tape_over_an_update():
    model = functional(Spanning)
    model.compile(keras.optimizers.SGD(0.05))
    return model


class Clipped(keras.Model):
    def train_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        gradients = global_mean(tape.gradient(loss, self.trainable_variables))
        gradients, norm = tf.clip_by_global_norm(gradients, 0.2)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss, "norm": norm}


@case(2, without_sum=1)
def clipped_in_the_step():
    model = functional(Clipped)
    model.compile(keras.optimizers.Adam(0.02), "mse")
    return model


class Byol(keras.Model):
    """A target network that follows the online one; two views of each row; the update before the loss is returned."""

    def __init__(self):
        super().__init__()
        self.online, self.target = net(WIDTH, tanh(5, 1), 4, first=2), net(WIDTH, tanh(5, 1), 4, first=2)
        self.predictor = net(4, 4, first=5)
        self.target.trainable = False

    def call(self, x):
        return self.online(x)

    def train_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        one, two = x, -x
        with tf.GradientTape() as tape:
            loss = 0.0
            for a, b in itertools.permutations((one, two)):
                p, t = self.predictor(self.online(a)), tf.stop_gradient(self.target(b))
                loss += tf.reduce_mean(tf.reduce_sum((tf.nn.l2_normalize(p, 1) - tf.nn.l2_normalize(t, 1)) ** 2, 1))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        for target, online in zip(self.target.weights, self.online.weights, strict=True):
            target.assign(0.95 * target + 0.05 * online)
        return {"loss": loss}


@case(2, without_sum=1)
def byol():
    model = Byol()
    model.compile(keras.optimizers.SGD(0.1))
    return model


class Aggregating(layers.Layer):
    """State that is no mean over rows: what it holds is said by each variable's `aggregation`."""

    def build(self, _):
        def add(name, aggregation, dtype=None):
            return self.add_weight(
                name=name, shape=(), dtype=dtype, trainable=False, initializer="zeros", aggregation=aggregation
            )

        self.rows, self.total = add("rows", "sum", "int64"), add("total", "sum")
        self.first, self.mean = add("first", "only_first_replica"), add("mean", "mean")
        self.steps, self.halves = add("steps", "none", "int32"), add("halves", "none")

    def call(self, x, training=False):
        if training:
            self.rows.assign_add(ops.cast(ops.shape(x)[0], "int64"))
            self.total.assign_add(ops.sum(x))
            self.first.assign(x[0, 0])
            self.mean.assign(ops.mean(x))
            self.steps.assign_add(1)
            self.halves.assign_add(0.1)
        return x


def aggregating():
    model = keras.Sequential([keras.Input((WIDTH,)), Aggregating(), dense(1, 2)])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def one_tape_by_xla():
    model = functional(Spanning)
    model.compile(keras.optimizers.SGD(0.05), jit_compile=True)
    return model
