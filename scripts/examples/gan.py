"""A GAN: two networks, two optimizers, and the `train_step` of a Keras model, which stays as it is.

python scripts/examples/gan.py
"""

import keras
import numpy as np
import tensorflow as tf
from heliostat.trainer import Trainer

angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 2000)
ring = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype("float32")  # the points to imitate: a circle


def network(inputs, outputs):
    hidden = [keras.layers.Dense(32, activation="relu") for _ in range(2)]
    return keras.Sequential([keras.Input((inputs,)), *hidden, keras.layers.Dense(outputs)])


class GAN(keras.Model):
    def __init__(self):
        super().__init__()
        self.generator, self.critic = network(inputs=4, outputs=2), network(inputs=2, outputs=1)
        self.c_optimizer, self.g_optimizer = (keras.optimizers.Adam(2e-3, beta_1=0.5) for _ in range(2))
        self.noise = keras.random.SeedGenerator(0)

    def train_step(self, real):
        noise = keras.random.normal((tf.shape(real)[0], 4), seed=self.noise)
        with tf.GradientTape() as tape:
            fake = self.critic(self.generator(noise))
            c_loss = tf.reduce_mean(tf.nn.softplus(fake) + tf.nn.softplus(-self.critic(real)))
        weights = self.critic.trainable_variables
        self.c_optimizer.apply(tape.gradient(c_loss, weights), weights)
        with tf.GradientTape() as tape:  # reads the new critic: all workers have added up its gradients
            g_loss = tf.reduce_mean(tf.nn.softplus(-self.critic(self.generator(noise))))
        weights = self.generator.trainable_variables
        self.g_optimizer.apply(tape.gradient(g_loss, weights), weights)
        return {"critic": c_loss, "generator": g_loss}


def build_model():
    model = GAN()
    model.compile()
    return model


trainer = Trainer(build_model, workers=2)
trainer.fit(ring, batch_size=100, epochs=40)
points = trainer.model.generator(np.random.default_rng(1).normal(size=(1000, 4)).astype("float32")).numpy()
print("distance of generated points from the middle, 1 is right:", np.linalg.norm(points, axis=1).round(2)[:8])
