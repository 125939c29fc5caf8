"""Several fits of one trainer: each goes on where the one before has ended, and is a run of its own all the same."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal

import keras
import numpy as np
import pytest
from heliostat.trainer import ConfigurationError, ModelError, RunPausedError, Trainer, TrainingFailedError
from heliostat.trainer.checkpoints.store import CheckpointStore
from heliostat.trainer.driver import patient_files
from heliostat.trainer.errors import StateNotKeptError, StorageError

from .conftest import dense_data
from .faults import events_of
from .helpers import die, local_trainer
from .models import linear, normalised

pytestmark = pytest.mark.engine

DATA, VALID = dense_data(), dense_data(rows=23, seed=1)
JOB = {"global_batch_size": 16, "verbose": 0, "record_rows": True}


def history_of(*results):
    return [
        {name: values[i] for name, values in result.history.items()}
        for result in results
        for i in range(len(result.history["loss"]))
    ]


def rows_of(*results):
    steps = [step for result in results for epoch in result.epochs for step in epoch.row_ids]
    return [sorted(row for worker in step for row in worker) for step in steps]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One fit of four epochs."""
    with local_trainer(normalised, tmp_path_factory.mktemp("whole")) as trainer:
        return trainer.fit(DATA, validation_data=VALID, epochs=4, **JOB)


def test_fits_of_one_epoch_are_one_fit_of_all_epochs(tmp_path, whole, at):
    at("compute", 2, die, 1)  # in one of the fits; a replacement joins
    with local_trainer(normalised, tmp_path, workers=2) as trainer:
        results = [trainer.fit(DATA, validation_data=VALID, checkpoint_every=None, **JOB) for _ in range(4)]
    assert results[-1].sha256 == whole.sha256
    assert history_of(*results) == history_of(whole)
    assert rows_of(*results) == rows_of(whole)
    assert len({str(rows_of(result)) for result in results}) == 4, "every epoch has an order of its own"
    assert [result.run_dir.name for result in results] == ["run", "run-2", "run-3", "run-4"]


def test_the_state_in_which_a_run_ends_goes_where_checkpoints_would(tmp_path):
    with local_trainer(linear(), tmp_path) as trainer:
        here = trainer.fit(DATA, checkpoint_every=None, **JOB)
        there = trainer.fit(DATA, checkpoint_every=None, checkpoint_dir=tmp_path / "shared", **JOB)
    assert CheckpointStore(here.run_dir / "checkpoints" / "final").names()
    assert not (there.run_dir / "checkpoints").exists()
    assert [len(CheckpointStore(each / "final").names()) for each in (tmp_path / "shared").iterdir()] == [1]


def test_a_place_for_the_last_state_that_is_out_of_reach_at_the_end_costs_that_state_only(tmp_path, capfd):
    class Blocks(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            (tmp_path / "run" / "checkpoints").mkdir(exist_ok=True)
            (tmp_path / "run" / "checkpoints" / "final").touch()

    arguments = JOB | {"verbose": 2, "checkpoint_every": None, "callbacks": [Blocks()]}
    with local_trainer(linear(), tmp_path) as trainer:
        result = trainer.fit(DATA, **arguments)
    assert (result.run_dir / "model.keras").exists()
    failed = events_of(result.run_dir, "checkpoint_failed")
    assert [each["is_final"] for each in failed] == [True]
    assert capfd.readouterr().out.count("warning: the state in which the run ended is not kept: ") == 1


def test_epochs_may_be_counted_on_as_in_keras(tmp_path, whole):
    with local_trainer(normalised, tmp_path) as trainer:
        first = trainer.fit(DATA, validation_data=VALID, epochs=3, **JOB)
        second = trainer.fit(DATA, validation_data=VALID, epochs=4, initial_epoch=3, **JOB)
    assert (second.sha256, history_of(first, second)) == (whole.sha256, history_of(whole))
    assert [epoch.epoch for epoch in second.epochs] == [3]


class Raises(keras.callbacks.Callback):
    """Stops the second fit of a script in its second epoch, once."""

    left = 0

    def on_train_batch_end(self, batch, logs=None):
        if Raises.left and self.params["epochs"] == 3 and self.epoch == 1 and batch == 1:
            Raises.left -= 1
            raise ZeroDivisionError("a mistake in my callback")

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch


def script(folder, workers=0, **first):
    """Two fits, as a user's script makes them; the second with another batch."""
    with local_trainer(normalised, folder, workers=workers) as trainer:
        trainer.fit(DATA, callbacks=[Raises()], **{"epochs": 2, **JOB, **first})
        result = trainer.fit(DATA, epochs=3, callbacks=[Raises()], **JOB | {"global_batch_size": 24, "verbose": 2})
        return result, trainer.evaluate(VALID), trainer.hosts


def test_the_same_script_again_takes_finished_fits_from_their_folders_and_goes_on(tmp_path, capfd):
    Raises.left = 0
    expected, answer, _ = script(tmp_path / "undisturbed")
    assert f"going on from the end of the fit in {tmp_path}/undisturbed/run, after 2 epochs" in capfd.readouterr().out
    Raises.left = 1
    with pytest.raises(TrainingFailedError):
        script(tmp_path, workers=2)
    assert Raises.left == 0
    again, same_answer, _ = script(tmp_path, workers=1)
    assert (again.sha256, again.history, same_answer) == (expected.sha256, expected.history, answer)
    stored, same_answer, _ = script(tmp_path)
    assert (stored.sha256, same_answer) == (expected.sha256, answer)
    with pytest.raises(ConfigurationError, match=r"it was run longer") as raised:
        script(tmp_path, epochs=3)
    assert str(tmp_path / "run") in str(raised.value)


def test_all_workers_are_lost_before_the_first_checkpoint_of_a_second_fit(tmp_path, whole, at):
    with local_trainer(normalised, tmp_path, workers=1) as trainer:
        trainer.fit(DATA, validation_data=VALID, epochs=2, **JOB)
        at("compute", 3, die)
        assert trainer.fit(DATA, validation_data=VALID, epochs=2, **JOB).sha256 == whole.sha256


def test_a_fit_that_was_paused_is_tried_again_by_the_next(tmp_path, whole, at):
    with local_trainer(normalised, tmp_path) as trainer:
        trainer.fit(DATA, validation_data=VALID, epochs=2, **JOB)
        at("reduce", 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(RunPausedError):
            trainer.fit(DATA, validation_data=VALID, epochs=2, **JOB)
        result = trainer.fit(DATA, validation_data=VALID, epochs=2, **JOB)
    assert (result.sha256, result.run_dir.name) == (whole.sha256, "run-2")


def test_initial_weights_begin_anew(tmp_path):
    weights = [np.full(shape, 0.1, np.float32) for shape in ((12, 8), (8,), (8, 5), (5,))]
    with local_trainer(linear("adam"), tmp_path) as trainer:
        trainer.fit(DATA, **JOB)
        second = trainer.fit(DATA, initial_weights=weights, **JOB)
    with local_trainer(linear("adam"), tmp_path / "new") as trainer:
        assert trainer.fit(DATA, initial_weights=weights, **JOB).sha256 == second.sha256
        found = {trainer.fit(DATA, initial_weights="new", **JOB).sha256["weights"] for _ in range(2)}
        assert len(found) == 1
        with pytest.raises(ConfigurationError, match="'old'; it takes"):
            trainer.fit(DATA, initial_weights="old", **JOB)


class RaisesWhile(keras.callbacks.Callback):
    """Stops a fit in its second epoch while `left` says so."""

    left = 0

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1 and RaisesWhile.left:
            RaisesWhile.left -= 1
            raise ZeroDivisionError("a mistake in my callback")


def test_after_a_fit_that_failed_initial_weights_begin_anew_in_the_next_folder(tmp_path):
    RaisesWhile.left = 2
    wanted = {"epochs": 2, "callbacks": [RaisesWhile()], **JOB}
    with local_trainer(linear(), tmp_path) as trainer:
        with pytest.raises(TrainingFailedError):
            trainer.fit(DATA, **wanted)
        with pytest.raises(TrainingFailedError):  # anew, and other rows at a time: nothing of the first remains
            trainer.fit(DATA, initial_weights="new", **wanted | {"global_batch_size": 24})
        again = trainer.fit(DATA, initial_weights="new", **wanted | {"global_batch_size": 24})
        next_one = trainer.fit(DATA, initial_weights="new", **JOB)
    assert (again.run_dir.name, next_one.run_dir.name) == ("run-2", "run-3")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "failed"


def test_without_a_run_dir_resume_false_leaves_a_fit_that_failed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RaisesWhile.left = 1
    wanted = {"epochs": 2, "callbacks": [RaisesWhile()], **JOB}
    with Trainer(linear(), workers=0, num_microbatches=4, seed=7) as trainer:
        with pytest.raises(TrainingFailedError):
            trainer.fit(DATA, **wanted)
        result = trainer.fit(DATA, resume=False, **wanted | {"global_batch_size": 24})
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert len(result.epochs) == 2


def test_a_fit_whose_end_could_not_be_written_down_is_tried_again(tmp_path, monkeypatch):
    with local_trainer(linear(), tmp_path / "undisturbed") as trainer:
        expected = trainer.fit(DATA, epochs=2, **JOB).sha256
    refused = []

    def replace(path, content):
        if path.name == "run.json" and b'"finished"' in content and len(refused) < 2:  # it is tried once more
            refused.append(path)
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace_file(path, content)

    replace_file = patient_files.replace_file
    monkeypatch.setattr(patient_files, "replace_file", replace)
    with local_trainer(linear(), tmp_path) as trainer:
        with pytest.raises(StorageError):
            trainer.fit(DATA, epochs=2, **JOB)
        result = trainer.fit(DATA, epochs=2, **JOB)
    assert refused
    assert (result.sha256, result.run_dir.name) == (expected, "run")


def test_a_fit_whose_end_was_not_kept_cannot_be_gone_on_from(tmp_path):
    with local_trainer(linear(), tmp_path) as trainer:
        trainer.fit(DATA, **JOB)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    del record["final"]  # as earlier versions wrote it
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "final")
    with local_trainer(linear(), tmp_path) as trainer:
        trainer.fit(DATA, **JOB)
        with pytest.raises(StateNotKeptError, match="initial_weights"):
            trainer.fit(DATA, **JOB)


def frozen():
    """Two layers, of which the first is not trained at first."""
    model = keras.Sequential([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(5, "softmax")])
    model.layers[0].trainable = False
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def unfreeze(rate):
    def prepare(model):
        model.layers[0].trainable = True
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])

    return prepare


def lower_rate(model):
    model.optimizer.learning_rate = 1e-4


def tuning(folder, rate=1e-3, **arguments):
    """A script that trains a head, then everything, then goes on with a lower rate."""
    with local_trainer(frozen, folder, **arguments) as trainer:
        results = [trainer.fit(DATA, **JOB)]
        results.append(trainer.fit(DATA, prepare=unfreeze(rate), **JOB))
        results.append(trainer.fit(DATA, prepare=lower_rate, **JOB))
        return results, trainer.predict(DATA[0]).tolist()


def test_prepare_changes_the_model_on_all_workers_and_weights_stay(tmp_path, at):
    results, predicted = tuning(tmp_path / "alone")
    weights = [result.model().get_weights() for result in results]
    at("compute", 2, die, 1)
    others, same = tuning(tmp_path / "two", workers=2)
    assert [result.sha256 for result in others] == [result.sha256 for result in results]
    assert same == predicted
    model = frozen()
    model.build((None, 12))
    model.set_weights(weights[0])
    unfreeze(1e-3)(model)
    # The second fit begins with the weights of the first: the frozen layer's, which training changes now.
    changed = [not np.array_equal(a, b) for a, b in zip(weights[0], weights[1], strict=True)]
    assert changed == [True] * 4
    assert np.abs(weights[1][0] - weights[0][0]).max() < 0.1, "it goes on from there"
    iterations = [int(result.model().optimizer.iterations.numpy()) for result in results]
    assert iterations == [5, 5, 10], "a new optimizer begins anew, and one that stays goes on"
    assert results[2].model().optimizer.learning_rate.numpy() == np.float32(1e-4)
    stored, answer = tuning(tmp_path / "alone", workers=1)
    assert (stored[2].sha256, answer) == (results[2].sha256, predicted)
    with pytest.raises(
        ConfigurationError, match=r"optimizer\.learning_rate: it began with 0\.001, and now it is 0\.01"
    ):
        tuning(tmp_path / "alone", rate=1e-2)


def test_prepare_that_leaves_the_old_optimizer_to_other_weights_is_refused(tmp_path):
    def only_unfreeze(model):
        model.layers[0].trainable = True

    with local_trainer(frozen, tmp_path) as trainer:
        with pytest.raises(ConfigurationError, match=r"called as prepare\(model\)"):
            trainer.fit(DATA, prepare=lambda: None, **JOB)
        with pytest.raises(ModelError, match="with a new optimizer"):
            trainer.fit(DATA, prepare=only_unfreeze, **JOB)
