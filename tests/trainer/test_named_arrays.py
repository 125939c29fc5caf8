"""Arrays in dicts and lists for named inputs and outputs, against plain Keras on the whole batch in float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from heliostat.data import open_dataset

from .conftest import use_floats
from .helpers import local_trainer
from .one_device import fitted, same_history, same_weights

pytestmark = pytest.mark.engine

X = np.random.default_rng(0).normal(size=(24, 6))  # full batches: Keras averages losses of outputs over batches
Y = np.tanh(X.sum(1, keepdims=True))
LEFT, RIGHT = X[:, :2], X[:, 2:]
JOB = {"epochs": 2, "global_batch_size": 8, "shuffle": False, "verbose": 0}


def named():
    use_floats("float64")
    a, b = keras.Input((2,), name="a"), keras.Input((4,), name="b")
    both = keras.layers.Concatenate()([a, b])
    u, v = (keras.layers.Dense(1, kernel_initializer="ones", name=name)(both) for name in "uv")
    model = keras.Model({"a": a, "b": b}, {"u": u, "v": v})
    model.compile("adam", {"u": "mse", "v": "mae"}, loss_weights={"u": 1.0, "v": 0.5})
    return model


def listed():
    use_floats("float64")
    a, b = keras.Input((2,), name="a"), keras.Input((4,), name="b")
    both = keras.layers.Concatenate()([a, b])
    model = keras.Model([a, b], [keras.layers.Dense(1, kernel_initializer="ones", name=each)(both) for each in "uv"])
    model.compile("adam", ["mse", "mae"])
    return model


def autoencoder():
    use_floats("float64")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6, kernel_initializer="ones")])
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize(
    ("build", "data", "columns"),
    [
        (named, ({"b": RIGHT, "a": LEFT}, {"v": -Y, "u": Y}), ["x.a", "x.b", "y.u", "y.v"]),
        pytest.param(listed, ([LEFT, RIGHT], [Y, -Y]), ["x.0", "x.1", "y.0", "y.1"], marks=pytest.mark.slow),
        pytest.param(listed, ({"b": RIGHT, "a": LEFT}, (Y, -Y)), ["x.a", "x.b", "y.0", "y.1"], marks=pytest.mark.slow),
        pytest.param(autoencoder, (X, X), ["x"], marks=pytest.mark.slow),
    ],
    ids=["dicts", "lists", "dict by the names of a list", "input as target"],
)
def test_structures_of_arrays_are_those_of_keras(build, data, columns, tmp_path):
    history, weights = fitted(build, *data, batch_size=8, epochs=2)
    with local_trainer(build, tmp_path, workers=2, num_microbatches=2) as trainer:
        result = trainer.fit(data, **JOB)
        found = result.model().get_weights()
    same_history(result.history, history)
    same_weights(found, weights)
    assert sorted(open_dataset(tmp_path / "run" / "data" / "train").schema) == columns
