"""Against plain Keras on one device, fed the same batches.

In float32 training amplifies rounding, so the comparison over epochs is in float64. Plain Keras squares repeated rows
of an embedding's gradient one by one in Adam's family; its optimizer is given dense gradients here.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.data import open_dataset

from .conftest import dense_data, text_data, use_floats
from .models import chapter_without_top2, linear
from .one_device import largest_difference

pytestmark = pytest.mark.engine

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam-global-clipnorm": lambda: keras.optimizers.Adam(1e-2, global_clipnorm=0.3),
    "nadam": lambda: keras.optimizers.Nadam(1e-2),
    "ema": lambda: keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=3),
    "schedule": lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(1e-2, 3, 0.5)),
}
MORE_OPTIMIZERS = {
    "adamw": lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.1),
    "rmsprop": lambda: keras.optimizers.RMSprop(1e-2, centered=True, momentum=0.5),
    "adagrad": lambda: keras.optimizers.Adagrad(1e-2),
    "adadelta": lambda: keras.optimizers.Adadelta(0.5),
    "adamax": lambda: keras.optimizers.Adamax(1e-2),
    "adafactor": lambda: keras.optimizers.Adafactor(1e-2),
    "ftrl": lambda: keras.optimizers.Ftrl(1e-2),
    "lion": lambda: keras.optimizers.Lion(1e-3),
    "lamb": lambda: keras.optimizers.Lamb(1e-2),
    "amsgrad": lambda: keras.optimizers.Adam(1e-2, amsgrad=True, clipvalue=0.1),
    "ema-final": lambda: keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9),
}


def with_dense_gradients(model):
    """Make plain Keras's optimizer add up the rows of a sparse gradient before it uses them."""
    original = type(model.optimizer)

    class Dense(original):
        def apply(self, grads, trainable_variables=None):
            dense = [None if g is None else tf.convert_to_tensor(g) for g in grads]
            return super().apply(dense, trainable_variables)

    model.optimizer.__class__ = Dense
    return model


def plain_keras(build, dataset_path, weights, *, epochs, batch, seed, sample_weight=False):
    model = with_dense_gradients(build())
    dataset = open_dataset(dataset_path)
    first = next(iter(dataset.batches(2, shuffle=False)))
    model.build(first["x"].shape) if not model.built else None
    model.set_weights(weights)
    for epoch in range(epochs):
        for rows in dataset.batches(batch, shuffle="full", seed=seed, epoch=epoch):
            model.train_on_batch(rows["x"], rows["y"], sample_weight=rows["w"] if sample_weight else None)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    return model.get_weights()


def initial_weights(build, x):
    keras.utils.set_random_seed(5)
    model = build()
    model.build(x[:2].shape)
    return model.get_weights()


def compare(train, build, data, *, epochs=2, batch=16, seed=7, **arguments) -> float:
    weights = initial_weights(build, data[0])
    result = train(build, data, epochs=epochs, global_batch_size=batch, seed=seed, initial_weights=weights, **arguments)
    weighted = "sample_weight" in arguments
    expected = plain_keras(
        build, result.run_dir / "data" / "train", weights, epochs=epochs, batch=batch, seed=seed, sample_weight=weighted
    )
    moved = largest_difference(expected, weights)
    assert moved > 1e-3, "plain Keras did not train; the comparison would prove nothing"
    return largest_difference(result.model().get_weights(), expected)


@pytest.mark.parametrize(
    ("workers", "replicas"),
    [pytest.param(0, 1, marks=pytest.mark.slow), (3, 1), pytest.param(1, 2, marks=pytest.mark.slow)],
)
def test_the_chapters_model_trains_as_plain_keras_does(train, workers, replicas):
    use_floats("float64")
    assert compare(train, chapter_without_top2, text_data(), workers=workers, replicas=replicas) <= 1e-10


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_update_as_plain_keras_does(train, name):
    use_floats("float64")
    assert compare(train, linear(optimizer=OPTIMIZERS[name]), dense_data(), workers=0) <= 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE_OPTIMIZERS)
def test_more_optimizers_update_as_plain_keras_does(train, name):
    use_floats("float64")
    assert compare(train, linear(optimizer=MORE_OPTIMIZERS[name]), dense_data(), workers=0) <= 1e-10


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight", "sum_over_batch_size"])
def test_reductions_and_weights_count_as_in_plain_keras(train, reduction):
    use_floats("float64")
    x, y = dense_data()
    weights = np.linspace(0.1, 2, len(x))
    build = linear(
        optimizer=lambda: keras.optimizers.SGD(0.02),
        loss=lambda: keras.losses.SparseCategoricalCrossentropy(reduction=reduction),
    )
    assert compare(train, build, (x, y, weights), workers=2, sample_weight="w") <= 1e-10


def test_one_float32_step_has_the_gradient_of_the_batch(train):
    """SGD with rate 1: the change of the weights is the gradient."""
    build = linear(optimizer=lambda: keras.optimizers.SGD(1.0))
    data = dense_data(rows=16)
    weights = initial_weights(build, data[0])
    result = train(build, data, workers=3, epochs=1, initial_weights=weights)
    expected = plain_keras(build, result.run_dir / "data" / "train", weights, epochs=1, batch=16, seed=7)
    for got, want, start in zip(result.model().get_weights(), expected, weights, strict=True):
        assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want - start)


def test_history_equals_plain_keras(train):
    use_floats("float64")
    data, valid = dense_data(), dense_data(rows=29, seed=2)
    build = linear(optimizer=lambda: keras.optimizers.SGD(0.05))
    weights = initial_weights(build, data[0])
    result = train(build, data, workers=2, epochs=1, initial_weights=weights, validation_data=valid)
    model = build()
    model.build(data[0].shape)
    model.set_weights(weights)
    losses, rows_seen, correct = 0.0, 0, 0.0
    for rows in open_dataset(result.run_dir / "data" / "train").batches(16, shuffle="full", seed=7, epoch=0):
        logs = model.train_on_batch(rows["x"], rows["y"], return_dict=True)
        losses, correct = losses + logs["loss"] * len(rows["y"]), correct + logs["accuracy"] * len(rows["y"])
        rows_seen += len(rows["y"])
    validated = model.evaluate(*valid, verbose=0, return_dict=True)
    expected = {
        "loss": losses / rows_seen,
        "accuracy": correct / rows_seen,
        "val_loss": validated["loss"],
        "val_accuracy": validated["accuracy"],
    }
    assert {name: values[0] for name, values in result.history.items()} == pytest.approx(expected, rel=1e-9)
