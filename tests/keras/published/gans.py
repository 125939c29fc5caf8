"""Two generative adversarial networks: steps that apply two optimizers, one after the other."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from ..against import Rows

LATENT = 3


def pictures() -> Rows:
    """Small pictures without labels."""
    return Rows(x=np.random.default_rng(0).uniform(-1, 1, (24, 8, 8, 1)))


def _discriminator() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2D(6, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(1),
        ],
        name="discriminator",
    )


def _generator(normalised: bool) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((LATENT,)),
            layers.Dense(2 * 2 * 4),
            layers.Reshape((2, 2, 4)),
            layers.Conv2DTranspose(4, 4, strides=2, padding="same", use_bias=not normalised),
            *([layers.BatchNormalization()] if normalised else []),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2DTranspose(3, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2D(1, 3, padding="same", activation="tanh"),
        ],
        name="generator",
    )


class DCGAN(keras.Model):
    """Radford et al. 2015: the discriminator's step, then the generator's, which sees the new discriminator."""

    def __init__(self, discriminator, generator):
        super().__init__()
        self.discriminator, self.generator = discriminator, generator
        self.draws = keras.random.SeedGenerator(3)

    def compile(self, d_optimizer, g_optimizer, loss_fn):
        super().compile()
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn
        self.d_loss = keras.metrics.Mean(name="d_loss")
        self.g_loss = keras.metrics.Mean(name="g_loss")

    @property
    def metrics(self):
        return [self.d_loss, self.g_loss]

    def train_step(self, real):
        count = ops.shape(real)[0]
        latent = keras.random.normal((count, LATENT), seed=self.draws)
        fake = self.generator(latent)
        both = ops.concatenate([fake, real], axis=0)
        labels = ops.concatenate([ops.ones((count, 1)), ops.zeros((count, 1))], axis=0)
        labels += 0.05 * keras.random.uniform(ops.shape(labels), seed=self.draws)
        with tf.GradientTape() as tape:
            d_loss = self.loss_fn(labels, self.discriminator(both, training=True))
        weights = self.discriminator.trainable_weights
        self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, weights), weights, strict=True))

        latent = keras.random.normal((count, LATENT), seed=self.draws)
        with tf.GradientTape() as tape:
            judged = self.discriminator(self.generator(latent, training=True))
            g_loss = self.loss_fn(ops.zeros((count, 1)), judged)
        weights = self.generator.trainable_weights
        self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, weights), weights, strict=True))

        self.d_loss.update_state(d_loss)
        self.g_loss.update_state(g_loss)
        return {"d_loss": self.d_loss.result(), "g_loss": self.g_loss.result()}


def dcgan() -> keras.Model:
    """A DCGAN with batch normalization in its generator."""
    gan = DCGAN(_discriminator(), _generator(normalised=True))
    gan.compile(
        d_optimizer=keras.optimizers.Adam(1e-2, beta_1=0.5),
        g_optimizer=keras.optimizers.Adam(1e-2, beta_1=0.5),
        loss_fn=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return gan


class WGANGP(keras.Model):
    """Gulrajani et al. 2017: several steps of the critic with a penalty on its gradient, then one of the generator."""

    def __init__(self, discriminator, generator, d_steps, penalty):
        super().__init__()
        self.discriminator, self.generator = discriminator, generator
        self.d_steps, self.penalty = d_steps, penalty
        self.draws = keras.random.SeedGenerator(3)

    def compile(self, d_optimizer, g_optimizer):
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

    def gradient_penalty(self, real, fake):
        share = keras.random.uniform((ops.shape(real)[0], 1, 1, 1), seed=self.draws)
        between = real + share * (fake - real)
        with tf.GradientTape() as tape:
            tape.watch(between)
            judged = self.discriminator(between, training=True)
        slopes = tape.gradient(judged, between)
        return ops.mean((ops.sqrt(ops.sum(slopes**2, axis=[1, 2, 3])) - 1.0) ** 2)

    def train_step(self, real):
        if isinstance(real, tuple):
            real = real[0]
        count = ops.shape(real)[0]
        for _ in range(self.d_steps):
            latent = keras.random.normal((count, LATENT), seed=self.draws)
            with tf.GradientTape() as tape:
                fake = self.generator(latent, training=True)
                cost = ops.mean(self.discriminator(fake, training=True)) - ops.mean(
                    self.discriminator(real, training=True)
                )
                d_loss = cost + self.penalty * self.gradient_penalty(real, fake)
            weights = self.discriminator.trainable_variables
            self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, weights), weights, strict=True))
        latent = keras.random.normal((count, LATENT), seed=self.draws)
        with tf.GradientTape() as tape:
            g_loss = -ops.mean(self.discriminator(self.generator(latent, training=True), training=True))
        weights = self.generator.trainable_variables
        self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, weights), weights, strict=True))
        return {"d_loss": d_loss, "g_loss": g_loss}


def wgan_gp() -> keras.Model:
    """A WGAN-GP with two steps of its critic."""
    gan = WGANGP(_discriminator(), _generator(normalised=False), d_steps=2, penalty=10.0)
    gan.compile(
        d_optimizer=keras.optimizers.Adam(1e-3, beta_1=0.5, beta_2=0.9),
        g_optimizer=keras.optimizers.Adam(1e-3, beta_1=0.5, beta_2=0.9),
    )
    return gan
