"""Whose a folder is: runs beside each other leave each other alone, and a run that goes on is the run that began."""

from __future__ import annotations

import json
import shutil

import keras
import pytest
import tensorflow as tf
from heliostat.data import DatasetError
from heliostat.trainer import ConfigurationError, TrainingFailedError
from heliostat.trainer.checkpoints.store import CheckpointStore

from .conftest import dense_data, written_epochs
from .helpers import local_trainer
from .models import linear

pytestmark = pytest.mark.engine

DATA = dense_data()
JOB = {"global_batch_size": 16, "verbose": 0}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Hashes of a run of four epochs."""
    with local_trainer(linear(), tmp_path_factory.mktemp("undisturbed")) as trainer:
        return trainer.fit(DATA, epochs=4, **JOB).sha256


def test_runs_that_share_a_folder_for_checkpoints_leave_each_other_alone(tmp_path, undisturbed):
    shared = tmp_path / "shared"
    arguments = {"checkpoint_dir": shared, "keep": 2, **JOB}
    for name, seed, epochs in (("a", 7, 3), ("b", 8, 2)):
        with local_trainer(linear(), tmp_path / name, seed=seed) as trainer:
            trainer.fit(DATA, epochs=epochs, **arguments)
    kept = {each.name: CheckpointStore(each).names() for each in shared.iterdir()}
    assert sorted(map(len, kept.values())) == [2, 2]
    with local_trainer(linear(), tmp_path / "a") as trainer:
        assert trainer.fit(DATA, epochs=4, **arguments).sha256 == undisturbed
    with local_trainer(linear(), tmp_path / "b", seed=8) as trainer:
        assert len(trainer.fit(DATA, epochs=3, **arguments).history["loss"]) == 3


def test_a_run_of_an_earlier_version_goes_on_from_its_checkpoints_among_others(tmp_path, undisturbed):
    shared = tmp_path / "shared"
    for name, seed, epochs in (("a", 7, 2), ("b", 8, 3)):
        with local_trainer(linear(), tmp_path / name, seed=seed) as trainer:
            trainer.fit(DATA, epochs=epochs, checkpoint_dir=shared, **JOB)
        record = json.loads((tmp_path / name / "run" / "run.json").read_text())
        own = shared / record.pop("id")
        (tmp_path / name / "run" / "run.json").write_text(json.dumps(record))
        for each in CheckpointStore(own).names():
            if not (shared / each).exists():
                (own / each).rename(shared / each)
        shutil.rmtree(own)
    assert len(CheckpointStore(shared).names()) == 3
    with local_trainer(linear(), tmp_path / "a") as trainer:
        result = trainer.fit(DATA, epochs=4, checkpoint_dir=shared, **JOB)
    assert result.sha256 == undisturbed
    assert len(CheckpointStore(shared).names()) == 3, "what others left is not touched"


class RaisesOnce(keras.callbacks.Callback):
    raised = False

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2 and not RaisesOnce.raised:
            RaisesOnce.raised = True
            raise ZeroDivisionError("a mistake in my callback")


def test_a_run_without_checkpoints_begins_again_as_the_same_run(tmp_path, undisturbed):
    RaisesOnce.raised = False
    arguments = {"epochs": 4, "checkpoint_every": None, **JOB}
    with local_trainer(linear(), tmp_path) as trainer, pytest.raises(TrainingFailedError):
        trainer.fit(DATA, callbacks=[RaisesOnce()], **arguments)
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    with local_trainer(linear(), tmp_path, seed=8) as trainer, pytest.raises(ConfigurationError, match="seed"):
        trainer.fit(DATA, **arguments)
    with local_trainer(linear("adam"), tmp_path) as trainer, pytest.raises(ConfigurationError, match="model"):
        trainer.fit(DATA, **arguments)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
    with local_trainer(linear(), tmp_path) as trainer:
        result = trainer.fit(DATA, **arguments)
    assert result.sha256 == undisturbed
    assert [epoch["epoch"] for epoch in written_epochs(result)] == [0, 1, 2, 3]


def test_a_finished_run_that_began_later_than_at_epoch_0_is_finished(tmp_path):
    for _ in range(2):
        with local_trainer(linear(), tmp_path) as trainer:
            trainer.fit(DATA, epochs=3, initial_epoch=1, **JOB)
            hosts = trainer.hosts
    assert hosts == {}, "nothing was to be computed"


def test_a_dataset_that_is_not_there_leaves_no_run_folder(tmp_path):
    with local_trainer(linear(), tmp_path) as trainer, pytest.raises(DatasetError):
        trainer.fit(tmp_path / "nowhere", **JOB)
    assert not (tmp_path / "run").exists()


def test_a_trainer_can_be_resized_before_its_first_task(tmp_path):
    with local_trainer(linear(), tmp_path, workers=2) as trainer:
        trainer.resize(1)
        trainer.fit(DATA, **JOB)
        assert list(trainer.hosts) == [0]


def test_evaluate_cuts_batches_as_the_run_does_that_went_on_elsewhere(tmp_path):
    found = []
    for workers in (3, 0):
        with local_trainer(linear(), tmp_path, workers=workers, num_microbatches=None) as trainer:
            trainer.fit(DATA, **JOB)
            found.append(trainer.evaluate(DATA, global_batch_size=71))
    assert found[0] == found[1]


def tuned(rate=0.01, units=8, scale=1.0, optimizer="SGD"):
    def build_model():
        class Scaled(keras.layers.Layer):
            def call(self, x):
                return x * scale

        model = keras.Sequential([keras.layers.Dense(units), Scaled(), keras.layers.Dense(5, "softmax")])
        model.compile(getattr(keras.optimizers, optimizer)(rate), "sparse_categorical_crossentropy")
        return model

    return build_model


CHANGES = [
    ({"rate": 0.001}, r"model\.optimizer\.learning_rate: it began with 0\.01, and now it is 0\.001"),
    ({"optimizer": "Adam"}, r"model\.optimizer\.class_name: it began with 'SGD', and now it is 'Adam'"),
    ({"units": 9}, r"model\.layers\[1\]\.units: it began with 8, and now it is 9"),
]


@pytest.mark.parametrize(("change", "named"), CHANGES)
def test_a_changed_setting_of_the_model_is_named_on_a_finished_and_on_an_unfinished_folder(tmp_path, change, named):
    with local_trainer(tuned(), tmp_path) as trainer:
        trainer.fit(DATA, epochs=1, **JOB)
    before = (tmp_path / "run" / "run.json").read_text()
    with local_trainer(tuned(**change), tmp_path) as trainer, pytest.raises(ConfigurationError, match=named):
        trainer.fit(DATA, epochs=1, **JOB)
    with local_trainer(tuned(**change), tmp_path) as trainer, pytest.raises(ConfigurationError, match=named):
        trainer.fit(DATA, epochs=2, **JOB)
    assert (tmp_path / "run" / "run.json").read_text() == before, "the finished run is still finished"


def test_code_that_changes_no_setting_is_said_to_have_changed(tmp_path, capfd):
    with local_trainer(tuned(), tmp_path) as trainer:
        first = trainer.fit(DATA, epochs=1, **JOB)
    with local_trainer(tuned(scale=2.0), tmp_path) as trainer:
        assert trainer.fit(DATA, epochs=1, **JOB | {"verbose": 2}).sha256 == first.sha256
    said = capfd.readouterr().out
    assert "has changed since the run" in said
    assert "tuned.<locals>.build_model" in said
    with local_trainer(tuned(), tmp_path) as trainer:
        trainer.fit(DATA, epochs=1, **JOB | {"verbose": 2})
        assert trainer.hosts == {}, "with the same code nothing is built"
    assert "has changed" not in capfd.readouterr().out


def step(factor):
    def train_step(model, optimizer, x, y):
        with tf.GradientTape() as tape:
            loss = factor * tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, model(x, training=True)))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    return train_step


def test_a_finished_folder_says_that_a_custom_step_or_a_callback_is_another(tmp_path, capfd):
    def run(factor, callbacks=()):
        with local_trainer(linear(), tmp_path) as trainer:
            arguments = {"loop": "custom", "train_step": step(factor), "callbacks": callbacks}
            result = trainer.fit(DATA, **arguments, **JOB | {"verbose": 2})
        return result.sha256, capfd.readouterr().out

    first, said = run(1.0)
    assert "warning: callbacks or steps" not in said
    again, said = run(1.0)
    assert again == first
    assert "warning: callbacks or steps" not in said
    _, said = run(2.0)
    assert "step.<locals>.train_step. This is the result with those of then" in said
    _, said = run(1.0, [RaisesOnce()])
    assert "RaisesOnce" in said


def test_a_new_model_is_built_once_for_several_evaluations(tmp_path):
    built = []

    def build_model():
        built.append(1)
        return linear()()

    with local_trainer(build_model, tmp_path) as trainer:
        answers = [trainer.evaluate(DATA) for _ in range(3)]
        trainer.predict(DATA[0])
        assert len(built) == 1
        trainer.fit(DATA, **JOB)
        assert trainer.evaluate(DATA) != answers[0]
    assert answers == [answers[0]] * 3
