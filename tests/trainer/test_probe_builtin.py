"""No loss, layer or metric of Keras is refused by the probe, and of its losses those are named that take whole batches.

A few always, all of them in all precisions with the slow tests.
"""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
from keras import layers, losses, metrics

from .conftest import use_floats
from .probe_recipes import INTEGERS, METRICS, ROWS, TAKES, VECTOR, around, dense, targets
from .probed import built_for, look_at

pytestmark = pytest.mark.engine

OF_THE_BATCH = {"Circle", "Dice", "Tversky"}
POLICIES = ("float64", "float32", "mixed_float16", "mixed_bfloat16")
NOT_BUILT = {
    *("Layer", "Wrapper", "InputLayer", "FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"),  # of other things
    *("GRUCell", "LSTMCell", "SimpleRNNCell", "StackedRNNCells"),  # in RNN
    *("StringLookup", "TextVectorization", "HashedCrossing", "MaxNumBoundingBoxes"),  # take other columns
    "STFTSpectrogram",  # wants scipy
    *("Dot", "RandomCrop"),
    "Equalization",  # gives its input back where a functional model is made of it, which Keras takes for a circle
}


def classes_of(module, kind):
    """Classes by name, each once: layers have several names."""
    found = {}
    for name, each in inspect.getmembers(module, inspect.isclass):
        if issubclass(each, kind) and each is not kind and each not in found.values() and each.__name__ == name:
            found[name] = each
    return found


def compute_in(policy):
    use_floats(policy) if policy == "float64" else keras.config.set_dtype_policy(policy)


def says_of_loss(name, policy):
    compute_in(policy)
    rng = np.random.default_rng(0)
    y, shape, activation = targets(TAKES.get(name, "numbers"), rng)
    x = rng.normal(size=(ROWS, *VECTOR))
    return look_at(built_for(dense(getattr(losses, name), shape, activation), x, y), x, y)


def model_around(name, policy):
    """build_model around a layer, and rows for it."""
    compute_in(policy)
    rng = np.random.default_rng(0)
    build, shape = around(name)
    x = rng.integers(0, 10, (ROWS, *shape)).astype("int32") if shape == INTEGERS else rng.random((ROWS, *shape))
    return build, x, rng.random((ROWS, 2))


def says_of_layer(name, policy):
    build, x, y = model_around(name, policy)
    return look_at(built_for(build, x, y), x, y)


def why_keras_does_not_train(name, policy):
    """The error of plain Keras, computing as the probe does; empty where there is none."""
    build, x, y = model_around(name, policy)
    try:
        model = build()
        model.run_eagerly = True
        model.train_on_batch(x[:8], y[:8])
    except Exception as error:  # whatever TensorFlow makes of a kernel that it does not have
        return f"{type(error).__name__}: {error}"
    return ""


def says_of_metrics(names, policy):
    compute_in(policy)
    rng = np.random.default_rng(0)
    (kind,) = {METRICS[name][1] if name in METRICS else TAKES.get(name, "numbers") for name in names}
    y, shape, activation = targets(kind, rng)
    x = rng.normal(size=(ROWS, *VECTOR))
    made = [lambda name=name: getattr(metrics, name)(**METRICS.get(name, ({},))[0]) for name in names]
    return look_at(built_for(dense(loss_for(kind), shape, activation, made), x, y), x, y)


def loss_for(kind):
    return "sparse_categorical_crossentropy" if kind == "classes" else "mse"


@pytest.mark.parametrize("name", ["CategoricalCrossentropy", "Dice", "Huber"])
def test_losses(name):
    assert [name.lower() in note for note in says_of_loss(name, "float32")] == ([True] if name in OF_THE_BATCH else [])


@pytest.mark.parametrize("name", ["LSTM", "MultiHeadAttention", "RandomFlip", "SpectralNormalization"])
def test_layers(name):
    assert says_of_layer(name, "float32") == ()


def test_metrics():
    assert says_of_metrics(["AUC", "BinaryIoU", "Precision"], "float64") == ()


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", sorted(classes_of(losses, losses.Loss)))
def test_every_loss(name, policy):
    notes = says_of_loss(name, policy)
    if policy in ("float64", "float32"):
        assert bool(notes) == (name in OF_THE_BATCH)
    assert all("by microbatches" in note for note in notes)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", sorted(set(classes_of(layers, layers.Layer)) - NOT_BUILT))
def test_every_layer(name, policy):
    if policy != "float32" and (why := why_keras_does_not_train(name, policy)):
        pytest.skip(f"plain Keras does not train it in {policy}: {' '.join(why.split())[:200]}")
    notes = says_of_layer(name, policy)
    assert not [note for note in notes if policy in ("float64", "float32") or "could not run" in note]


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", sorted(set(classes_of(metrics, metrics.Metric)) - {"Mean", "Sum"}))
def test_every_metric(name, policy):
    if policy == "float64" and "TopK" in name:
        pytest.skip("TensorFlow's top-k takes float32 only")
    assert says_of_metrics([name], policy) == ()
