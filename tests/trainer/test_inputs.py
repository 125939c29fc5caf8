"""What can be fed: several inputs and targets, dtypes, weights, orders, and the uses of one trainer."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from heliostat.data import write_dataset
from heliostat.trainer.columns import Columns
from heliostat.trainer.errors import ConfigurationError, DataError
from keras import layers

from .conftest import dense_data, fingerprint
from .helpers import local_trainer
from .models import linear

pytestmark = pytest.mark.engine


def mixed_columns(rows, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "pixels": rng.integers(0, 256, (rows, 4), dtype=np.uint8),
        "words": rng.integers(0, 20, (rows, 5), dtype=np.int32),
        "numbers": rng.normal(size=(rows, 3)),
        "flags": rng.integers(0, 2, (rows, 2)).astype(bool),
        "class": rng.integers(0, 3, rows),
        "value": rng.normal(size=(rows, 1)),
        "w": rng.uniform(0, 2, rows),
    }


def several(reduction="sum_over_batch_size"):
    """Four inputs of four dtypes, two outputs with two losses."""

    def build():
        made = {
            "pixels": keras.Input((4,), dtype="uint8", name="pixels"),
            "words": keras.Input((5,), dtype="int32", name="words"),
            "numbers": keras.Input((3,), name="numbers"),
            "flags": keras.Input((2,), dtype="bool", name="flags"),
        }
        parts = [
            layers.Rescaling(1 / 255)(made["pixels"]),
            layers.Flatten()(layers.Embedding(20, 2)(made["words"])),
            made["numbers"],
            keras.ops.cast(made["flags"], "float32"),
        ]
        x = layers.Dense(8, activation="tanh")(layers.concatenate(parts))
        outputs = {
            "class": layers.Dense(3, activation="softmax", name="class")(x),
            "value": layers.Dense(1, name="value")(x),
        }
        model = keras.Model(made, outputs)
        model.compile(
            optimizer="adam",
            loss={
                "class": keras.losses.SparseCategoricalCrossentropy(reduction=reduction),
                "value": keras.losses.MeanSquaredError(reduction=reduction),
            },
            loss_weights={"class": 1.0, "value": 0.5},
            metrics={"class": ["accuracy"], "value": ["mae"]},
        )
        return model

    return build


NAMES = ("pixels", "words", "numbers", "flags")
CHOICE = {
    "inputs": {name: name for name in NAMES},
    "targets": {"class": "class", "value": "value"},
    "sample_weight": "w",
}


@pytest.fixture
def mixed(tmp_path):
    write_dataset(tmp_path / "mixed", mixed_columns(29))
    return tmp_path / "mixed"


def test_several_inputs_and_targets_of_any_dtype(train, mixed):
    arguments = {"epochs": 1, "validation_data": mixed, **CHOICE}
    reference = train(several(), mixed, workers=0, **arguments)
    result = train(several(), mixed, workers=3, loop="custom", **arguments)
    assert fingerprint(result)["weights"] == fingerprint(reference)["weights"]
    history = reference.history
    assert {"loss", "class_loss", "value_loss", "class_accuracy", "value_mae", "val_class_loss"} <= set(history)
    for name, value in result.history.items():
        np.testing.assert_allclose(history[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", pytest.param("sum", marks=pytest.mark.slow)])
def test_the_losses_of_single_outputs_follow_their_reduction(train, mixed, reduction):
    # One step without learning: what plain Keras computes on the same rows, here cut into 4, 4, 3 and 3.
    columns = mixed_columns(29)
    first = {name: column[:14] for name, column in columns.items()}
    arguments = {"epochs": 1, "steps_per_epoch": 1, "global_batch_size": 14, "shuffle": False, **CHOICE}
    start = several(reduction)()
    result = train(several(reduction), mixed, workers=2, initial_weights=start.get_weights(), **arguments)
    expected = start.evaluate(
        {name: first[name] for name in NAMES},
        {name: first[name] for name in ("class", "value")},
        sample_weight=first["w"],
        batch_size=14,
        verbose=0,
        return_dict=True,
    )
    found = {name: values[0] for name, values in result.history.items()}
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, err_msg=name)


def test_inputs_as_a_list(train, mixed):
    def build():
        made = [keras.Input((3,)), keras.Input((4,), dtype="uint8")]
        x = layers.concatenate([made[0], layers.Rescaling(1 / 255)(made[1])])
        model = keras.Model(made, [layers.Dense(1)(x), layers.Dense(3, activation="softmax")(x)])
        model.compile(optimizer="sgd", loss=["mse", "sparse_categorical_crossentropy"])
        return model

    choice = {"inputs": ["numbers", "pixels"], "targets": ["value", "class"], "epochs": 1}
    reference = train(build, mixed, workers=0, **choice)
    result = train(build, mixed, workers=2, **choice)
    assert fingerprint(result) == fingerprint(reference)


def test_a_weighted_mean_without_weights_learns_like_a_mean(train):
    data = dense_data(rows=21)
    loss = keras.losses.SparseCategoricalCrossentropy
    mean, weighted = (
        train(linear(loss=lambda r=r: loss(reduction=r)), data, workers=0, epochs=1)
        for r in ("sum_over_batch_size", "mean_with_sample_weight")
    )
    assert fingerprint(weighted) == fingerprint(mean)


def test_a_run_in_two_parts_of_initial_weights_and_epochs(train):
    data = dense_data(rows=37)
    whole = train(linear(), data, workers=0, epochs=3)  # plain SGD has no state but its step counter
    first = train(linear(), data, workers=2, epochs=1)
    rest = train(linear(), data, workers=0, epochs=3, initial_epoch=1, initial_weights=first.model().get_weights())
    assert rest.sha256["weights"] == whole.sha256["weights"]
    assert rest.history["loss"] == whole.history["loss"][1:]
    assert [record.epoch for record in rest.epochs] == [1, 2]


def test_steps_per_epoch_and_shuffle_choose_the_rows(train):
    result = train(linear(), dense_data(rows=50), workers=2, steps_per_epoch=2, shuffle=False, record_rows=True)
    rows = [[row for worker in step for row in worker] for record in result.epochs for step in record.row_ids]
    assert rows == [list(range(low, min(low + 16, 50))) for low in range(0, 50, 16)]
    assert [record.rows for record in result.epochs] == [32, 18]


def test_one_trainer_serves_several_fits_and_passes(tmp_path):
    x, y = dense_data(rows=37)
    with local_trainer(linear(), tmp_path, workers=2) as trainer:
        fresh_predictions = trainer.predict(x)  # of a new model, which has seen no targets
        before = trainer.evaluate((x, y))
        results = [trainer.fit((x, y), epochs=2, global_batch_size=16, verbose=0) for _ in range(2)]
        after = trainer.evaluate((x, y))
        predictions = trainer.predict(x)
    losses = [loss for result in results for loss in result.history["loss"]]
    assert losses == sorted(losses, reverse=True), "the second fit goes on where the first ended"
    assert results[0].run_dir != results[1].run_dir
    assert after["loss"] < before["loss"]
    assert before["accuracy"] == np.float32(np.mean(fresh_predictions.argmax(1) == y))
    np.testing.assert_allclose(results[1].model().predict(x, verbose=0), predictions, rtol=1e-5, atol=1e-6)
    assert after["accuracy"] == np.float32(np.mean(predictions.argmax(1) == y))


def test_columns_assemble_what_was_asked_for():
    batch = {"a": 1, "b": 2, "w": 3}
    assert Columns(inputs="a", targets="b").assemble(batch) == (1, 2, None)
    assert Columns(inputs=["a", "b"], targets=None, sample_weight="w").assemble(batch) == ([1, 2], None, 3)
    assert Columns(inputs={"i": "a"}, targets={"o": "a"}).assemble(batch) == ({"i": 1}, {"o": 1}, None)
    assert Columns(inputs=["a", "b"], targets="a", sample_weight="w").names == ("a", "b", "w")


def test_columns_are_checked(tmp_path):
    dataset = write_dataset(tmp_path / "rows", {"x": np.zeros((3, 2)), "y": np.zeros(3), "z": np.zeros((3, 2, 2))})
    with pytest.raises(ConfigurationError, match=r"targets=\{\} names no column"):
        Columns(inputs="x", targets={})
    with pytest.raises(DataError, match=r"class_weight= .*the shape \(2, 2\): many labels"):
        Columns(inputs="x", targets="z", class_weight=((0, 2.0),)).check(dataset)
    with pytest.raises(DataError, match="no column 'a', 'b'"):
        Columns(inputs=["a", "x"], targets="b").check(dataset)
