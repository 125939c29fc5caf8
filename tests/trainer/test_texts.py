"""Columns of texts and bytes go into models with a vocabulary inside; where they cannot, that is said."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from heliostat.data import write_dataset
from heliostat.trainer import DataError

from .conftest import use_floats
from .helpers import local_trainer

pytestmark = pytest.mark.engine

WORDS = ["red", "green", "blue", "grey"]
TEXTS = [f"{WORDS[n % 4]} {WORDS[n % 3]}" for n in range(16)]
COLOURS = [WORDS[n % 4].encode() for n in range(16)]
Y = np.array([[float(n % 4)] for n in range(16)])
JOB = {"epochs": 2, "global_batch_size": 8, "shuffle": False, "verbose": 0}


def reads(jit_compile=False):
    def build():
        use_floats("float64")
        text, colour = keras.Input((1,), dtype="string", name="text"), keras.Input((1,), dtype="string", name="colour")
        tokens = keras.layers.TextVectorization(vocabulary=WORDS, output_sequence_length=3)(text)
        number = keras.layers.StringLookup(vocabulary=WORDS, output_mode="one_hot")(colour)
        seen = keras.layers.Flatten()(keras.layers.Embedding(8, 2, embeddings_initializer="ones")(tokens))
        both = keras.layers.Concatenate()([seen, keras.ops.cast(number, "float64")])
        model = keras.Model({"text": text, "colour": colour}, keras.layers.Dense(1, kernel_initializer="ones")(both))
        model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=jit_compile)
        return model

    return build


@pytest.mark.slow
def test_texts_are_what_keras_makes_of_them(tmp_path):
    plain = reads()()
    inputs = {"text": np.array(TEXTS), "colour": np.array(COLOURS)}
    tensors = {name: keras.ops.convert_to_tensor(each[:, None]) for name, each in inputs.items()}
    wanted = plain.fit(tensors, Y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    with local_trainer(reads(), tmp_path, workers=2, num_microbatches=2) as trainer:
        history = trainer.fit((inputs, Y), **JOB).history
        predicted = trainer.predict(
            {"text": TEXTS[:4], "colour": COLOURS[:4]}, inputs={"text": "text", "colour": "colour"}
        )
    np.testing.assert_allclose(history["loss"], wanted["loss"], rtol=1e-10)
    np.testing.assert_allclose(predicted, plain.predict_on_batch({k: v[:4] for k, v in tensors.items()}), rtol=1e-10)


def numbers():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def test_where_texts_cannot_be_taken_that_is_said(tmp_path):
    stored = write_dataset(tmp_path / "set", {"x": TEXTS, "y": Y})
    with (
        local_trainer(numbers, tmp_path / "a") as trainer,
        pytest.raises(DataError, match=r"input is of numbers.*vectorize"),
    ):
        trainer.fit(stored, **JOB)
    arrays = ({"text": TEXTS, "colour": COLOURS}, Y)
    with (
        local_trainer(reads(jit_compile=True), tmp_path / "b") as trainer,
        pytest.raises(DataError, match="jit_compile=False"),
    ):
        trainer.fit(arrays, **JOB)
    pictures = write_dataset(tmp_path / "pictures", {"x": [b"GIF89a\x02\x00\x03\x00"] * 16, "y": Y})
    with local_trainer(numbers, tmp_path / "p") as trainer, pytest.raises(DataError, match=r"decode\('x', \(height, "):
        trainer.fit(pictures, **JOB)
    stored = write_dataset(tmp_path / "labels", {"x": Y, "y": TEXTS})
    with local_trainer(numbers, tmp_path / "c") as trainer, pytest.raises(DataError, match=r"'y' .* differ in length"):
        trainer.fit(stored, **JOB)
