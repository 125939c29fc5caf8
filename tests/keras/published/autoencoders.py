"""A variational autoencoder, and two with a codebook: learned by its gradient, and by moving averages."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from heliostat.trainer import global_sum
from keras import layers, ops

from ..against import Rows

WIDTH, LATENT, CODES = 6, 2, 4


def vectors() -> Rows:
    """Numbers without labels."""
    return Rows(x=np.random.default_rng(0).uniform(size=(24, WIDTH)))


def vectors_twice() -> Rows:
    """Numbers that are their own targets."""
    x = np.random.default_rng(0).uniform(size=(24, WIDTH))
    return Rows(x=x, y=x)


class Sampling(layers.Layer):
    """Draws from the distribution that the encoder describes."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.seed_generator = keras.random.SeedGenerator(1337)

    def call(self, inputs):
        mean, log_variance = inputs
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.seed_generator)


class VAE(keras.Model):
    """Kingma and Welling 2013, with a tracker for each part of its loss."""

    def __init__(self, encoder, decoder, **arguments):
        super().__init__(**arguments)
        self.encoder, self.decoder = encoder, decoder
        self.total = keras.metrics.Mean(name="loss")
        self.reconstruction = keras.metrics.Mean(name="reconstruction_loss")
        self.divergence = keras.metrics.Mean(name="kl_loss")

    @property
    def metrics(self):
        return [self.total, self.reconstruction, self.divergence]

    def train_step(self, data):
        with tf.GradientTape() as tape:
            mean, log_variance, z = self.encoder(data)
            back = self.decoder(z)
            reconstruction = ops.mean(ops.sum(keras.losses.binary_crossentropy(data, back)[:, None], axis=1))
            kl = -0.5 * (1 + log_variance - ops.square(mean) - ops.exp(log_variance))
            kl = ops.mean(ops.sum(kl, axis=1))
            total = reconstruction + kl
        grads = tape.gradient(total, self.trainable_weights)
        self.optimizer.apply_gradients(zip(grads, self.trainable_weights, strict=True))
        self.total.update_state(total)
        self.reconstruction.update_state(reconstruction)
        self.divergence.update_state(kl)
        return {
            "loss": self.total.result(),
            "reconstruction_loss": self.reconstruction.result(),
            "kl_loss": self.divergence.result(),
        }


def vae() -> keras.Model:
    """A variational autoencoder of vectors."""
    inputs = keras.Input((WIDTH,))
    hidden = layers.Dense(5, activation="relu")(inputs)
    mean, log_variance = layers.Dense(LATENT, name="mean")(hidden), layers.Dense(LATENT, name="variance")(hidden)
    encoder = keras.Model(inputs, [mean, log_variance, Sampling()([mean, log_variance])], name="encoder")
    decoder = keras.Sequential([keras.Input((LATENT,)), layers.Dense(WIDTH, activation="sigmoid")], name="decoder")
    model = VAE(encoder, decoder)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    return model


def _nearest(codes, inputs):
    distances = ops.sum(inputs**2, axis=1, keepdims=True) + ops.sum(codes**2, axis=0) - 2 * ops.matmul(inputs, codes)
    return ops.one_hot(ops.argmin(distances, axis=1), CODES, dtype=inputs.dtype)


class VectorQuantizer(layers.Layer):
    """Van den Oord et al. 2017: the nearest code, learned by a loss of its own; the gradient passes it by."""

    def __init__(self, beta=0.25, **arguments):
        super().__init__(**arguments)
        self.beta = beta

    def build(self, shape):
        uniform = keras.initializers.RandomUniform(0.0, 1.0, seed=5)
        self.codes = self.add_weight(shape=(shape[-1], CODES), initializer=uniform, name="codes")

    def call(self, x):
        quantized = ops.matmul(_nearest(self.codes, x), ops.transpose(self.codes))
        commitment = ops.mean((ops.stop_gradient(quantized) - x) ** 2)
        codebook = ops.mean((quantized - ops.stop_gradient(x)) ** 2)
        self.add_loss(self.beta * commitment + codebook)
        return x + ops.stop_gradient(quantized - x)


class MovingQuantizer(layers.Layer):
    """The nearest code, which follows the rows that chose it by moving averages: sums over the whole batch."""

    def build(self, shape):
        fixed = {"trainable": False, "initializer": keras.initializers.RandomUniform(0.5, 1.0, seed=5)}
        self.codes, self.sums = (
            self.add_weight(shape=(shape[-1], CODES), name=name, **fixed) for name in ("codes", "sums")
        )
        self.counts = self.add_weight(shape=(CODES,), name="counts", **fixed)

    def call(self, x, training=False):
        chosen = _nearest(self.codes, x)
        quantized = ops.matmul(chosen, ops.transpose(self.codes))
        self.add_loss(0.25 * ops.mean((ops.stop_gradient(quantized) - x) ** 2))
        if training:
            counts, sums = global_sum((ops.sum(chosen, axis=0), ops.matmul(ops.transpose(x), chosen)))
            self.counts.assign(0.9 * self.counts + 0.1 * counts)
            self.sums.assign(0.9 * self.sums + 0.1 * sums)
            self.codes.assign(self.sums / self.counts)
        return x + ops.stop_gradient(quantized - x)


class VQVAETrainer(keras.Model):
    """Trains an autoencoder with a quantizer, and tracks its losses."""

    def __init__(self, vqvae, variance, **arguments):
        super().__init__(**arguments)
        self.vqvae, self.variance = vqvae, variance
        self.total = keras.metrics.Mean(name="loss")
        self.reconstruction = keras.metrics.Mean(name="reconstruction_loss")

    @property
    def metrics(self):
        return [self.total, self.reconstruction]

    def train_step(self, x):
        with tf.GradientTape() as tape:
            back = self.vqvae(x, training=True)
            reconstruction = ops.mean((x - back) ** 2) / self.variance
            total = reconstruction + sum(self.vqvae.losses)
        grads = tape.gradient(total, self.vqvae.trainable_variables)
        self.optimizer.apply_gradients(zip(grads, self.vqvae.trainable_variables, strict=True))
        self.total.update_state(total)
        self.reconstruction.update_state(reconstruction)
        return {"loss": self.total.result(), "reconstruction_loss": self.reconstruction.result()}


def _quantized(quantizer) -> keras.Model:
    layer = [keras.Input((WIDTH,)), layers.Dense(3, activation="relu"), quantizer, layers.Dense(WIDTH)]
    return keras.Sequential(layer, name="vqvae")


def vq_vae() -> keras.Model:
    """A VQ-VAE whose codebook is learned by its gradient."""
    model = VQVAETrainer(_quantized(VectorQuantizer()), variance=0.1)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    return model


def vq_vae_by_averages() -> keras.Model:
    """A VQ-VAE whose codebook follows by moving averages, under Keras's own step."""
    model = _quantized(MovingQuantizer())
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return model
