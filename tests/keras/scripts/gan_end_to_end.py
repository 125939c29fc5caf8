"""A GAN with two optimizers on a tf.data.Dataset: as the guide about customizing fit ends."""

import keras
import numpy as np
import tensorflow as tf

# on Heliostat: from heliostat.trainer import Trainer
from keras import layers

keras.utils.set_random_seed(0)
keras.config.set_floatx("float64")

latent_dim = 4


class GAN(keras.Model):
    def __init__(self, discriminator, generator, latent_dim):
        super().__init__()
        self.discriminator = discriminator
        self.generator = generator
        self.latent_dim = latent_dim
        self.d_loss_tracker = keras.metrics.Mean(name="d_loss")
        self.g_loss_tracker = keras.metrics.Mean(name="g_loss")
        self.built = True

    @property
    def metrics(self):
        return [self.d_loss_tracker, self.g_loss_tracker]

    def compile(self, d_optimizer, g_optimizer, loss_fn):
        super().compile()
        self.d_optimizer = d_optimizer
        self.g_optimizer = g_optimizer
        self.loss_fn = loss_fn

    def train_step(self, real_images):
        if isinstance(real_images, tuple):
            real_images = real_images[0]
        batch_size = tf.shape(real_images)[0]
        codes = real_images[:, :latent_dim] ** 2  # drawn at random in the guide
        fake_images = self.generator(codes)
        combined = tf.concat([fake_images, real_images], axis=0)
        labels = tf.concat([tf.ones((batch_size, 1)), tf.zeros((batch_size, 1))], axis=0)
        with tf.GradientTape() as tape:
            d_loss = self.loss_fn(labels, self.discriminator(combined))
        grads = tape.gradient(d_loss, self.discriminator.trainable_weights)
        self.d_optimizer.apply(grads, self.discriminator.trainable_weights)

        misleading_labels = tf.zeros((batch_size, 1))
        with tf.GradientTape() as tape:
            predictions = self.discriminator(self.generator(codes))
            g_loss = self.loss_fn(misleading_labels, predictions)
        grads = tape.gradient(g_loss, self.generator.trainable_weights)
        self.g_optimizer.apply(grads, self.generator.trainable_weights)

        self.d_loss_tracker.update_state(d_loss)
        self.g_loss_tracker.update_state(g_loss)
        return {"d_loss": self.d_loss_tracker.result(), "g_loss": self.g_loss_tracker.result()}


def get_gan():
    discriminator = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5), layers.LeakyReLU(negative_slope=0.2), layers.Dense(1)]
    )
    generator = keras.Sequential(
        [keras.Input((latent_dim,)), layers.Dense(5), layers.LeakyReLU(negative_slope=0.2), layers.Dense(6)]
    )
    gan = GAN(discriminator, generator, latent_dim)
    gan.compile(
        d_optimizer=keras.optimizers.Adam(learning_rate=0.003),
        g_optimizer=keras.optimizers.Adam(learning_rate=0.003),
        loss_fn=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return gan


images = np.random.default_rng(0).normal(size=(40, 6))
dataset = tf.data.Dataset.from_tensor_slices(images).batch(8)

gan = get_gan()  # on Heliostat: gan = Trainer(get_gan)
history = gan.fit(dataset, epochs=2, shuffle=False, verbose=0)

results = history.history
