"""A module of the user's beside the script. What it holds cannot be pickled, so it must be there where it is used."""

import threading

import keras

LOCK = threading.Lock()


@keras.saving.register_keras_serializable("mylayers")
class Scaled(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, inputs):
        with LOCK:
            return inputs * self.scale


def same(row):
    return row
