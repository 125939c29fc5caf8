"""Every argument of Keras's `fit` does here what it does there, as those of passes do (`test_keras_passes.py`).

Float64, against plain Keras. Keras's own signatures are read, so that an argument of a new version is noticed.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.data import write_dataset
from heliostat.trainer import ConfigurationError, Trainer
from heliostat.trainer.keras_arguments import ELSEWHERE, TABLE, page_lines
from keras import layers

from .conftest import use_floats
from .helpers import local_trainer
from .one_device import fitted, same_history, same_weights

ROWS, CLASSES = 42, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 5))
Y = np.argmax(X[:, :CLASSES], axis=1)
ONE_HOT = np.eye(CLASSES)[Y]
WEIGHTS = np.linspace(0.5, 2.0, ROWS)
VALID = (X[:15] + 0.1, Y[:15])
SPARSE, DENSE = "sparse_categorical_crossentropy", "categorical_crossentropy"
CLASS_WEIGHT = {0: 0.5, 2: 3.0}  # a class that is not named weighs 1
METHODS = ("fit", "evaluate", "predict")


def classifier(loss=SPARSE, reduction="sum_over_batch_size"):
    """Whose metrics are weighted and not."""

    def build():
        made = {SPARSE: keras.losses.SparseCategoricalCrossentropy, DENSE: keras.losses.CategoricalCrossentropy}[loss]
        weighted = {SPARSE: keras.metrics.SparseCategoricalAccuracy, DENSE: keras.metrics.CategoricalAccuracy}[loss]
        model = keras.Sequential([keras.Input((5,)), layers.Dense(CLASSES, "softmax", kernel_initializer="ones")])
        model.compile(
            keras.optimizers.Adam(0.05),
            made(reduction=reduction),
            metrics=["accuracy"],
            weighted_metrics=[weighted(name="weighted")],
        )
        return model

    return build


def of_steps():
    """One label for each of five timesteps."""
    inputs = keras.Input((5, 1))
    hidden = layers.Dense(4, "tanh", kernel_initializer="ones")(inputs)
    model = keras.Model(inputs, layers.Dense(CLASSES, "softmax", kernel_initializer="ones")(hidden))
    model.compile(keras.optimizers.SGD(0.5), SPARSE, weighted_metrics=["accuracy"])
    return model


def compare(tmp_path, build, *arrays, workers=0, **arguments):
    """History and weights must be plain Keras's: one microbatch, or two workers with one each."""
    use_floats("float64")
    x, y = arrays
    history, weights = fitted(build, x, y, **arguments)
    with local_trainer(build, tmp_path, workers=workers, num_microbatches=max(1, workers)) as trainer:
        result = trainer.fit(x, y, **{"shuffle": False, "verbose": 0} | arguments)
    same_history(result.history, history)
    assert any(np.ptp(weight) > 1e-3 for weight in weights), "plain Keras did not train"
    same_weights(result.model().get_weights(), weights)


# By name: the model, its targets, and the arguments of `fit`. What is in two of them need not be by itself.
CASES = {
    "many at once": (
        classifier(),
        Y,
        {
            "batch_size": 8,
            "initial_epoch": 1,
            "epochs": 4,
            "class_weight": CLASS_WEIGHT,
            "validation_split": 0.4,
            "validation_freq": [2, 4],
            "validation_steps": 2,
            "validation_batch_size": 5,
        },
    ),
    "batch_size": (classifier(), Y, {"batch_size": 8, "epochs": 2}),
    "no batch_size": (classifier(), Y, {"epochs": 2}),
    "steps_per_epoch": (classifier(), Y, {"steps_per_epoch": 4, "epochs": 2}),
    "steps_per_epoch and batch_size": (classifier(), Y, {"steps_per_epoch": 3, "batch_size": 8}),
    "initial_epoch": (classifier(), Y, {"initial_epoch": 1, "epochs": 3, "batch_size": 8}),
    "validation_split": (classifier(), Y, {"validation_split": 0.3, "epochs": 2, "batch_size": 8}),
    "validation_data": (classifier(), Y, {"validation_data": VALID, "epochs": 2, "batch_size": 8}),
    "validation_data wins": (classifier(), Y, {"validation_data": VALID, "validation_split": 0.5, "batch_size": 8}),
    "validation_freq": (
        classifier(),
        Y,
        {"validation_data": VALID, "validation_freq": 2, "epochs": 5, "batch_size": 16},
    ),
    "validation_freq of a list": (
        classifier(),
        Y,
        {"validation_data": VALID, "validation_freq": [1, 4], "epochs": 4, "batch_size": 16},
    ),
    "validation_steps": (classifier(), Y, {"validation_data": VALID, "validation_steps": 2, "batch_size": 4}),
    "validation_steps alone": (classifier(), Y, {"validation_data": VALID, "validation_steps": 4}),
    "validation_batch_size": (
        classifier(),
        Y,
        {"validation_data": VALID, "validation_steps": 2, "validation_batch_size": 5, "batch_size": 4},
    ),
    "class_weight": (classifier(), Y, {"class_weight": CLASS_WEIGHT, "epochs": 2, "batch_size": 8}),
    "class_weight of a column": (classifier(), Y[:, None], {"class_weight": CLASS_WEIGHT, "batch_size": 8}),
    "class_weight of one-hot": (classifier(DENSE), ONE_HOT, {"class_weight": CLASS_WEIGHT, "batch_size": 8}),
    "class_weight of floats": (classifier(), Y + 0.0, {"class_weight": CLASS_WEIGHT, "batch_size": 8}),
    "class_weight and its mean": (
        classifier(reduction="mean_with_sample_weight"),
        Y,
        {"class_weight": CLASS_WEIGHT, "batch_size": 8, "epochs": 2},
    ),
    "class_weight with validation": (
        classifier(),
        Y,
        {"class_weight": CLASS_WEIGHT, "validation_split": 0.3, "batch_size": 8, "epochs": 2},
    ),
    "sample_weight": (classifier(), Y, {"sample_weight": WEIGHTS, "epochs": 2, "batch_size": 8}),
    "sample_weight with validation": (
        classifier(),
        Y,
        {"sample_weight": WEIGHTS, "validation_data": VALID, "batch_size": 8},
    ),
    "sample_weight in validation": (
        classifier(),
        Y,
        {"validation_data": (*VALID, WEIGHTS[:15]), "batch_size": 8},
    ),
    "sample_weight in both": (
        classifier(),
        Y,
        {"sample_weight": WEIGHTS, "validation_data": (*VALID, WEIGHTS[:15]), "batch_size": 8},
    ),
    "sample_weight that is split": (
        classifier(),
        Y,
        {"sample_weight": WEIGHTS, "validation_split": 0.3, "epochs": 2, "batch_size": 8},
    ),
}
QUICK = ("many at once",)


@pytest.mark.engine
@pytest.mark.parametrize(
    "name", [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in CASES]
)
def test_arguments_of_fit_do_what_they_do_in_keras(tmp_path, name):
    build, targets, arguments = CASES[name]
    compare(tmp_path, build, X, targets, **arguments)


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_they_do_it_on_two_workers(tmp_path, name):
    build, targets, arguments = CASES[name]
    compare(tmp_path, build, X, targets, workers=2, **arguments)


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_timesteps_have_weights(tmp_path, workers):
    labels = np.tile(Y[:, None], 5)
    weights = RNG.uniform(size=labels.shape)
    compare(tmp_path, of_steps, X[..., None], labels, workers=workers, sample_weight=weights, batch_size=8)


def several():
    """Two inputs, two outputs."""
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    both = layers.Concatenate()([a, b])
    u, v = (layers.Dense(1, kernel_initializer="ones", name=name)(both) for name in "uv")
    model = keras.Model({"a": a, "b": b}, {"u": u, "v": v})
    model.compile("sgd", {"u": "mse", "v": "mae"}, weighted_metrics={"u": ["mae"], "v": ["mse"]})
    return model


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("weights", [{"u": WEIGHTS, "v": WEIGHTS[::-1].copy()}, WEIGHTS], ids=["each", "one"])
@pytest.mark.parametrize("workers", [0, 2])
def test_outputs_have_weights(tmp_path, weights, workers):
    x, y = {"a": X[:, :2], "b": X[:, 2:]}, {"u": X[:, :1] * 2, "v": X[:, 1:2] - 1}
    arguments = {"sample_weight": weights, "validation_split": 1 / 3, "batch_size": 7, "epochs": 2}
    compare(tmp_path, several, x, y, workers=workers, **arguments)


@pytest.mark.engine
@pytest.mark.slow
def test_streams_take_the_arguments_that_they_take_in_keras(tmp_path):
    use_floats("float64")
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(7)
    weighted = tf.data.Dataset.from_tensor_slices((X, Y, WEIGHTS)).batch(7)
    model = classifier()()
    want = model.fit(
        batches, class_weight=dict(enumerate([0.5, 2.0, 3.0])), validation_data=weighted, verbose=0
    ).history
    with local_trainer(classifier(), tmp_path, num_microbatches=1) as trainer:
        weights = dict(enumerate([0.5, 2.0, 3.0]))
        result = trainer.fit(batches, class_weight=weights, validation_data=weighted, verbose=0)
        same_history(result.history, want)
        np.testing.assert_allclose(trainer.evaluate(weighted, return_dict=False), model.evaluate(weighted, verbose=0))
        np.testing.assert_allclose(trainer.predict(weighted, steps=2), model.predict(weighted, steps=2, verbose=0))
        for refused, words in (
            ({"class_weight": weights, "x": weighted}, "do not go together"),
            ({"validation_split": 0.1, "x": batches}, "Dataset, a stream of batches, as in Keras"),
            ({"y": Y, "x": batches}, "y= goes with arrays"),
        ):
            with pytest.raises(ConfigurationError, match=words):
                trainer.fit(**refused)


@pytest.mark.engine
@pytest.mark.slow
def test_shuffled_rows_are_the_same_rows(tmp_path):
    """Orders differ from Keras's, which differ from run to run; the first epoch has each row once."""
    with local_trainer(classifier(), tmp_path, workers=2) as trainer:
        result = trainer.fit(X, Y, batch_size=8, shuffle=True, verbose=0, record_rows=True)
    (epoch,) = result.epochs
    rows = [row for step in epoch.row_ids for worker in step for row in worker]
    assert sorted(rows) == list(range(ROWS)) != rows


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("loop", ["train_on_batch", "custom"])
def test_classes_have_weights_in_all_loops(tmp_path, loop):
    use_floats("float64")
    arguments = {"class_weight": CLASS_WEIGHT, "batch_size": 8, "epochs": 2, "validation_data": VALID}
    want, _ = fitted(classifier(), X, Y, **arguments)
    with local_trainer(classifier(), tmp_path, workers=2, num_microbatches=2) as trainer:
        result = trainer.fit(X, Y, shuffle=False, verbose=0, loop=loop, **arguments)
    same_history(result.history, want)


@pytest.mark.engine
@pytest.mark.slow
def test_columns_of_a_dataset_are_weights_and_validation_may_do_without(tmp_path):
    use_floats("float64")
    weighted = write_dataset(tmp_path / "weighted", {"x": X, "y": Y, "w": WEIGHTS})
    plain = write_dataset(tmp_path / "plain", {"x": VALID[0], "y": VALID[1]})
    want, _ = fitted(classifier(), X, Y, sample_weight=WEIGHTS, validation_data=VALID, batch_size=8)
    with local_trainer(classifier(), tmp_path, num_microbatches=1) as trainer:
        result = trainer.fit(
            weighted, sample_weight="w", validation_data=str(tmp_path / "plain"), batch_size=8, shuffle=False, verbose=0
        )
        same_history(result.history, want)
        assert "the rows to validate on have no sample_weight" in (result.run_dir / "run.json").read_text()
        assert trainer.evaluate(plain)["loss"] == pytest.approx(want["val_loss"][0], rel=1e-10)
    with local_trainer(classifier(), tmp_path / "split", num_microbatches=1) as trainer:
        result = trainer.fit(weighted, validation_split=0.25, batch_size=8, verbose=0, record_rows=True)
    trained = {row for step in result.epochs[0].row_ids for worker in step for row in worker}
    assert len(trained) == len(weighted.split(0.75)[0]) == round(0.75 * ROWS)


@pytest.mark.engine
@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_weights_or_another_validation(tmp_path):
    arguments = {"class_weight": CLASS_WEIGHT, "validation_data": VALID, "validation_freq": [1], "verbose": 0}
    with local_trainer(classifier(), tmp_path) as trainer:
        want = trainer.fit(X, Y, **arguments).history
    with local_trainer(classifier(), tmp_path) as trainer:
        assert trainer.fit(X, Y, **arguments).history == want, "of the finished run"
    for change in ({"class_weight": {0: 2.0}}, {"validation_freq": 2}, {"validation_steps": 1}):
        (name,) = change
        with local_trainer(classifier(), tmp_path) as trainer, pytest.raises(ConfigurationError, match=f" {name}: it"):
            trainer.fit(X, Y, **arguments | change)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_begins_with_keras_arguments_and_the_table_has_each(method):
    theirs, ours = (
        [each for each in inspect.signature(getattr(of, method)).parameters.values() if each.name != "self"]
        for of in (keras.Model, Trainer)
    )
    names = [each.name for each in theirs if each.kind is not inspect.Parameter.VAR_KEYWORD]
    assert [each.name for each in ours][: len(names)] == names
    assert sorted(each.name for each in TABLE if method in each.methods) == sorted(names)
    beside = [each for each in ours if each.name not in names]
    assert {each.kind for each in beside} == {inspect.Parameter.KEYWORD_ONLY}, "positions are Keras's"


def test_the_page_is_the_table():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "arguments.md").read_text()
    assert "\n".join(page_lines()) in page
    assert [each for each in ELSEWHERE if f"`{each}`" not in page] == []
