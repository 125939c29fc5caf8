"""`tf.data`, `PyDataset` and generators as data: written once, then trained on like everything else."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.data import open_dataset
from heliostat.trainer import ConfigurationError, TrainingFailedError
from heliostat.trainer.driver import stream_files

from .conftest import dense_data
from .faults import outcome
from .helpers import local_trainer
from .models import normalised

pytestmark = pytest.mark.engine

ROWS = 41
JOB = {"epochs": 2, "global_batch_size": 16, "verbose": 0, "record_rows": True, "shuffle": False}


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return -(-ROWS // 10)

    def __getitem__(self, index):
        x, y = dense_data(ROWS)
        return x[10 * index : 10 * (index + 1)], y[10 * index : 10 * (index + 1)]


def tf_data():
    return tf.data.Dataset.from_tensor_slices(dense_data(ROWS)).batch(7)


def generated():
    x, y = dense_data(ROWS)
    for start in range(0, ROWS, 9):
        yield x[start : start + 9], y[start : start + 9]


@pytest.fixture(scope="module")
def from_arrays(tmp_path_factory):
    with local_trainer(normalised, tmp_path_factory.mktemp("arrays")) as trainer:
        return outcome(trainer.fit(dense_data(ROWS), **JOB))


@pytest.mark.parametrize(
    "make",
    [lambda: tf_data, tf_data, Batches, lambda: Batches, lambda: generated],
    ids=["function of tf.data", "tf.data", "PyDataset", "class", "generator"],
)
def test_every_stream_trains_like_its_arrays(make, from_arrays, tmp_path):
    data = make()
    data = (lambda made=data: made()) if isinstance(data, type) else data
    with local_trainer(normalised, tmp_path) as trainer:
        assert outcome(trainer.fit(data, **JOB)) == from_arrays


def test_parts_in_dicts_go_to_their_columns(tmp_path):
    def two_inputs():
        left, right = keras.Input((4,), name="left"), keras.Input((8,), name="right")
        joined = keras.layers.Concatenate()([left, right])
        model = keras.Model([left, right], keras.layers.Dense(5, activation="softmax")(joined))
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    x, y = dense_data(ROWS)
    stream = tf.data.Dataset.from_tensor_slices(({"left": x[:, :4], "right": x[:, 4:]}, y)).batch(8)
    with local_trainer(two_inputs, tmp_path) as trainer:
        choice = {"left": "left", "right": "right"}
        found = trainer.fit(stream, inputs=choice, **JOB)
    with local_trainer(normalised, tmp_path / "flat") as trainer:
        assert [len(each.row_ids) for each in found.epochs] == [3, 3]
    assert np.isfinite(found.history["loss"]).all()


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        (lambda: tf_data().repeat(), {}, "repeats for ever"),
        (lambda: 7, {}, "returned an int"),
        (lambda: tf_data().map(lambda x, y: (x, y, y, y)), {}, "a tuple of 4"),
        (lambda: tf_data().take(0), {}, "gave no batch"),
        (lambda: tf_data().unbatch(), {}, "single rows, let it give batches"),
        (tf_data, {"inputs": {"a": "left"}}, r"ask for the parts \['a'\]"),
    ],
)
def test_streams_that_do_not_fit_are_refused(tmp_path, data, arguments, message):
    with local_trainer(normalised, tmp_path) as trainer, pytest.raises(ConfigurationError, match=message):
        trainer.fit(data, **JOB | arguments)


@pytest.mark.parametrize("data", [lambda: generated, tf_data], ids=["of unknown length", "of known length"])
def test_a_long_stream_that_may_have_no_end_is_told_once(tmp_path, monkeypatch, recwarn, data):
    monkeypatch.setattr(stream_files, "LONG_BYTES", 100)
    with local_trainer(normalised, tmp_path) as trainer:
        trainer.fit(data(), **JOB)
    told = [str(each.message) for each in recwarn if "never ends" in str(each.message)]
    assert [each.partition(" so far")[0] for each in told] == (
        ["generated has given 9 rows"] if data is not tf_data else []
    )
    assert all("say steps_per_epoch=" in each for each in told)


@pytest.mark.parametrize(("epochs", "is_told"), [(1, False), (2, True)])
def test_that_a_stream_is_not_drawn_anew_is_told(tmp_path, capfd, epochs, is_told):
    with local_trainer(normalised, tmp_path) as trainer:
        trainer.fit(generated, **JOB | {"verbose": 2, "epochs": epochs})
    assert "was read once" in (printed := " ".join(capfd.readouterr().out.split()))
    assert ("augmentation in it is that of the first epoch" in printed) == is_told


class Stops(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise RuntimeError("stopped")


def shuffled():
    return tf.data.Dataset.from_tensor_slices(dense_data(ROWS)).shuffle(ROWS).batch(7)


@pytest.mark.parametrize("data", [shuffled, lambda: shuffled().take(0)], ids=["another order", "used up"])
def test_a_run_of_a_stream_goes_on_with_the_rows_it_began_with(tmp_path, data, capfd):
    with local_trainer(normalised, tmp_path) as trainer, pytest.raises(TrainingFailedError, match="stopped"):
        trainer.fit(shuffled, callbacks=[Stops()], **JOB)
    with local_trainer(normalised, tmp_path) as trainer:
        result = trainer.fit(data, **JOB | {"verbose": 2})
    printed = capfd.readouterr().out
    assert "are not read again" in printed
    assert [path.name for path in (tmp_path / "run" / "data").iterdir()] == ["train"]
    stored = open_dataset(tmp_path / "run" / "data" / "train")
    with local_trainer(normalised, tmp_path / "whole") as trainer:
        assert outcome(trainer.fit(stored, **JOB)) == outcome(result)


def test_a_stream_whose_run_never_began_is_read_anew(tmp_path):
    """Nothing says then that what lies there is what is wanted now."""
    with local_trainer(normalised, tmp_path) as trainer, pytest.raises(ConfigurationError):
        trainer.fit(tf_data, **JOB | {"global_batch_size": 16}, validation_data=lambda: 7)
    (tmp_path / "run" / "data" / "valid").mkdir(parents=True, exist_ok=True)
    with local_trainer(normalised, tmp_path) as trainer:
        result = trainer.fit(lambda: tf_data().take(3), **JOB)
    assert result.epochs[0].rows == 21


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda x, y: (x, np.where(np.arange(ROWS) == 17, 1 - y, y)), "'y' differs in row 17"),
        (lambda x, y: (x.astype(np.float64), y), r"'x' has float64 \(12,\) in a row, and not float32"),
        (lambda x, y: (x[:-1], y[:-1]), "there are 40 rows, and not 41"),
        (lambda x, y: (x, y, np.ones(ROWS)), "there is a column 'w', too"),
    ],
)
def test_other_arrays_than_a_run_began_with_are_named_and_not_written(tmp_path, change, what):
    with local_trainer(normalised, tmp_path) as trainer, pytest.raises(TrainingFailedError, match="stopped"):
        trainer.fit(dense_data(ROWS), callbacks=[Stops()], **JOB)
    before = {path: path.read_bytes() for path in (tmp_path / "run" / "data").rglob("*") if path.is_file()}
    changed = change(*dense_data(ROWS))
    weight = "w" if len(changed) == 3 else None
    with (
        local_trainer(normalised, tmp_path) as trainer,
        pytest.raises(ConfigurationError, match=rf"data\.train.*{what}"),
    ):
        trainer.fit(changed, sample_weight=weight, **JOB)
    assert {path: path.read_bytes() for path in (tmp_path / "run" / "data").rglob("*") if path.is_file()} == before
