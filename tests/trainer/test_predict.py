"""Predictions come in dataset order, with the model's structure, from any number of workers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from .helpers import local_trainer

pytestmark = pytest.mark.engine


def branching():
    """Outputs in a dict with a list in it; the first is the row's own number."""
    x = keras.Input((3,))
    outputs = {"row": x[:, :1], "pair": [layers.Dense(2, activation="tanh")(x), layers.Dense(4)(x)]}
    model = keras.Model(x, outputs)
    model.compile(optimizer="sgd", loss=None)
    return model


def numbered(rows):
    x = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float64)
    x[:, 0] = np.arange(rows)
    return x


@pytest.mark.parametrize("rows", [1, 2, 29])
def test_predictions_are_the_same_rows_and_bits_for_all_layouts(tmp_path, rows):
    x = numbered(rows)
    found = []
    for workers, replicas in ((0, 1), (3, 1), (2, 2)):
        with local_trainer(
            branching, tmp_path / f"{workers}x{replicas}", workers=workers, replicas=replicas
        ) as trainer:
            found.append(trainer.predict(x, global_batch_size=16))
    for outputs in found:
        assert outputs["row"].dtype == np.float32
        assert outputs["row"].ravel().tolist() == list(range(rows))
        assert [part.shape for part in outputs["pair"]] == [(rows, 2), (rows, 4)]
        for part, other in zip(outputs["pair"], found[0]["pair"], strict=True):
            assert np.array_equal(part, other)


def test_predictions_are_those_of_the_model(tmp_path):
    x = numbered(21).astype(np.float32)
    y = np.zeros((21, 1), np.float32)

    def build():
        model = keras.Sequential([layers.Dense(4, activation="relu"), layers.Dropout(0.5), layers.Dense(1)])
        model.compile(optimizer="sgd", loss="mse")
        return model

    with local_trainer(build, tmp_path, workers=2) as trainer:
        result = trainer.fit((x / 21, y), verbose=0)
        predictions = trainer.predict(x)
    np.testing.assert_allclose(predictions, result.model().predict(x, verbose=0), rtol=1e-5)


def test_a_second_pass_traces_nothing(tmp_path):
    traced = []

    class Counting(keras.Sequential):
        def call(self, inputs, training=None):
            traced.append(inputs.shape)
            return super().call(inputs, training=training)

    def build():
        model = Counting([layers.Dense(3)])
        model.compile(optimizer="sgd", loss="mse", metrics=["mae"])
        return model

    x, y = numbered(23).astype(np.float32), np.ones((23, 3), np.float32)
    with local_trainer(build, tmp_path, workers=2) as trainer:
        trainer.fit((x, y), verbose=0)
        results, counts = [], []
        for _ in range(2):
            results.append((trainer.evaluate((x, y)), trainer.predict(x).tolist()))
            counts.append(len(traced))
        assert results[0] == results[1]
        assert counts[0] == counts[1]
        trainer.predict(x.astype(np.float64))  # other rows than before
        assert len(traced) > counts[1]
        trainer.fit((x, y), epochs=2, verbose=0)  # another model
        assert trainer.evaluate((x, y)) != results[0][0]
        assert trainer.predict(x).tolist() != results[0][1]
