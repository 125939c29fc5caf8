"""Models whose steps have several phases, one function each, small; and how many phases they have.

Initial weights have seeds of their own, so that plain Keras begins with the same.
"""

from __future__ import annotations

import itertools

import keras
import numpy as np
import tensorflow as tf
from heliostat.trainer import global_mean, global_sum
from keras import layers, ops

WIDTH, NOISE = 6, 3
CASES = {}  # name: (build, phases, phases without a sum)


def case(phases: int, *, without_sum: int = 0):
    def note(build):
        CASES[build.__name__] = (build, phases, without_sum)
        return build

    return note


def dense(units, seed, **arguments):
    return layers.Dense(units, kernel_initializer=keras.initializers.GlorotUniform(seed=seed), **arguments)


def net(width, *hidden, first=0):
    return keras.Sequential(
        [keras.Input((width,)), *(dense(n, first + i) if isinstance(n, int) else n for i, n in enumerate(hidden))]
    )


def tanh(units, seed):
    return dense(units, seed, activation="tanh")


def data(rows=40, seed=0):
    x = np.random.default_rng(seed).normal(size=(rows, WIDTH))
    return x, np.tanh(x[:, :1] + x[:, 1:2] ** 2)


class Players(keras.Model):
    """A discriminator `d` and a generator `g`, each with an optimizer; a loss tracker, noise on labels and inputs."""

    def __init__(self, critic=None, generator=None, inputs=WIDTH):
        super().__init__()
        self.d = critic or net(inputs, tanh(5, 1), 1, first=2)
        self.g = generator or net(NOISE, tanh(5, 11), inputs, first=12)
        self.noise = keras.random.SeedGenerator(5)
        self.d_loss = keras.metrics.Mean(name="d_loss")

    def compile(self, d_optimizer, g_optimizer):
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

    def call(self, x):
        return self.d(x)

    def build(self, _):
        self.built = True

    def fakes(self, x):
        return self.g(keras.random.normal((ops.shape(x)[0], NOISE), seed=self.noise, dtype=x.dtype), training=True)

    def train_d(self, loss_of):
        with tf.GradientTape() as tape:
            loss = loss_of()
        self.d_optimizer.apply(tape.gradient(loss, self.d.trainable_weights), self.d.trainable_weights)
        return loss

    def train_g(self, loss_of):
        with tf.GradientTape() as tape:
            loss = loss_of()
        self.g_optimizer.apply_gradients(
            zip(tape.gradient(loss, self.g.trainable_weights), self.g.trainable_weights, strict=True)
        )
        return loss


def adams():
    return keras.optimizers.Adam(0.02, beta_1=0.5), keras.optimizers.Adam(0.01)


class Gan(Players):
    def train_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        fake = self.fakes(x)
        labels = 0.05 * keras.random.uniform((ops.shape(x)[0], 1), seed=self.noise, dtype=x.dtype)
        d = self.train_d(
            lambda: (
                tf.reduce_mean(
                    tf.nn.softplus(-self.d(x, training=True)) + labels * tf.nn.softplus(self.d(fake, training=True))
                )
                + tf.reduce_mean(tf.nn.softplus(self.d(fake)))
            )
        )
        g = self.train_g(lambda: tf.reduce_mean(tf.nn.softplus(-self.d(self.fakes(x)))))
        self.d_loss.update_state(d, sample_weight=tf.cast(tf.shape(x)[0], x.dtype))
        return {"d_loss": self.d_loss.result(), "g": g}


@case(2)
def gan():
    model = Gan()
    model.compile(*adams())
    return model


@case(2)
def gan_with_batch_normalization():
    def normalised(seed, *, inputs, units):
        return keras.Sequential(
            [
                keras.Input((inputs,)),
                dense(5, seed),
                layers.BatchNormalization(momentum=0.8),
                layers.Activation("tanh"),
                dense(units, seed + 1),
            ]
        )

    model = Gan(normalised(1, inputs=WIDTH, units=1), normalised(11, inputs=NOISE, units=WIDTH))
    model.compile(*adams())
    return model


class BothAtOnce(Players):
    def train_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as d_tape, tf.GradientTape() as g_tape:
            made = self.d(self.fakes(x))
            d = tf.reduce_mean(tf.nn.softplus(-self.d(x)) + tf.nn.softplus(made))
            g = tf.reduce_mean(tf.nn.softplus(-made))
        d_gradients = d_tape.gradient(d, self.d.trainable_variables)
        g_gradients = g_tape.gradient(g, self.g.trainable_variables)
        self.d_optimizer.apply_gradients(zip(d_gradients, self.d.trainable_variables, strict=True))
        self.g_optimizer.apply_gradients(zip(g_gradients, self.g.trainable_variables, strict=True))
        return {"d": d, "g": g}


@case(1)
def both_at_once():
    model = BothAtOnce()
    model.compile(*adams())
    return model


class WganGp(Players):
    def train_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        for _ in range(3):
            d = self.train_d(lambda: self.critic_loss(x))
            self.d_loss.update_state(d, sample_weight=tf.cast(tf.shape(x)[0], x.dtype))
        g = self.train_g(lambda: -tf.reduce_mean(self.d(self.fakes(x))))
        return {"d_loss": self.d_loss.result(), "g": g}

    def critic_loss(self, x):
        fake = self.fakes(x)
        share = keras.random.uniform((ops.shape(x)[0], 1), seed=self.noise, dtype=x.dtype)
        mixed = x + share * (fake - x)
        with tf.GradientTape() as tape:
            tape.watch(mixed)
            score = self.d(mixed)
        slope = tf.sqrt(tf.reduce_sum(tape.gradient(score, mixed) ** 2, 1) + 1e-12)
        return tf.reduce_mean(self.d(fake)) - tf.reduce_mean(self.d(x)) + tf.reduce_mean((slope - 1) ** 2)


@case(4)
def wgan_gp():
    model = WganGp()
    model.compile(*adams())
    return model


class Wgan(Players):
    def train_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        for _ in range(2):
            d = self.train_d(lambda: tf.reduce_mean(self.d(self.fakes(x))) - tf.reduce_mean(self.d(x)))
            for weight in self.d.trainable_weights:
                weight.assign(ops.clip(weight, -0.3, 0.3))
        return {"d": d, "g": self.train_g(lambda: -tf.reduce_mean(self.d(self.fakes(x))))}


@case(5, without_sum=2)
def wgan_with_clipped_weights():
    model = Wgan()
    model.compile(keras.optimizers.RMSprop(0.05), keras.optimizers.RMSprop(0.05))
    return model


@case(4, without_sum=2)
def spectral_normalization():
    critic = net(WIDTH, layers.SpectralNormalization(dense(5, 1)), 1, first=2)
    model = Gan(critic)
    model.compile(*adams())
    return model


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
