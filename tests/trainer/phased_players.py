"""Two networks that are trained against each other, in as many ways as there are numbers of phases."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers, ops

from .phased_cases import NOISE, WIDTH, case, dense, net, tanh


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
    critic.layers[0].vector_u.assign([[0.1, -0.2, 0.3, 0.4, -0.5]])  # it is drawn without a seed
    model = Gan(critic)
    model.compile(*adams())
    return model
