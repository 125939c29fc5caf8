"""Keras callbacks run on the chief with global logs, and what they change reaches every worker."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from heliostat.trainer.engine.private_api import is_default
from heliostat.trainer.errors import ConfigurationError, TrainingFailedError
from heliostat.trainer.worker.callback_hooks import check_callbacks, has_batch_hooks
from heliostat.trainer.worker.callback_relay import CallbackRelay
from heliostat.trainer.worker.epochs import SessionHooks
from keras.callbacks import Callback

from ..conftest import dense_data, fingerprint
from ..models import linear, normalised

pytestmark = pytest.mark.engine

TENSORBOARD = find_spec("tensorboard") is not None
SGD = linear(optimizer=lambda: keras.optimizers.SGD(0.1))


class RateAfterFirstStep(Callback):
    """Sets the learning rate to zero after the first step of the run, in the hook it is told."""

    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, self._begin if hook == "on_train_batch_begin" else self._end)

    def _begin(self, batch, logs=None):
        if batch == 1:
            self.model.optimizer.learning_rate = 0.0

    def _end(self, batch, logs=None):
        if batch == 0:
            self.model.optimizer.learning_rate = 0.0


class DecayEveryStep(Callback):
    """Changes the rate after every step, the last of an epoch included."""

    def on_train_batch_end(self, batch, logs=None):
        self.model.optimizer.learning_rate = self.model.optimizer.learning_rate * 0.9


class StopAt(Callback):
    """Asks to stop in the hook it is told, at the second batch."""

    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, self._stop)

    def _stop(self, batch, logs=None):
        if batch == 1:
            self.model.stop_training = True


class Weights(Callback):
    """Changes weights in the hooks between epochs."""

    def on_train_begin(self, logs=None):
        self._scale(0.5)

    def on_epoch_end(self, epoch, logs=None):
        self._scale(0.9)

    def on_train_end(self, logs=None):
        self._scale(2.0)

    def _scale(self, factor):
        self.model.set_weights([w * factor for w in self.model.get_weights()])


class Notes(Callback):
    """Writes down what it is told."""

    def __init__(self):
        super().__init__()
        self.batches, self.epochs, self.tests, self.ends = [], [], [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append((batch, dict(logs)))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append((epoch, dict(logs)))

    def on_train_end(self, logs=None):
        self.ends.append(dict(logs))

    def on_test_begin(self, logs=None):
        self.tests.append("begin")

    def on_test_batch_end(self, batch, logs=None):
        self.tests.append(batch)

    def on_test_end(self, logs=None):
        self.tests.append("end")


class Failing(Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.divide(batch, 0)

    def divide(self, numerator, denominator):
        return numerator / denominator


@pytest.fixture(scope="module")
def data():
    return dense_data(rows=37)


SLOW_TOO = pytest.mark.slow  # the same in another loop


@pytest.mark.parametrize(
    ("hook", "loop"),
    [
        ("on_train_batch_begin", "fit"),
        ("on_train_batch_end", "train_on_batch"),
        pytest.param("on_train_batch_begin", "custom", marks=SLOW_TOO),
    ],
)
def test_a_rate_set_between_steps_acts_on_the_next_computation(train, data, hook, loop):
    one_step = train(SGD, data, workers=0, epochs=1, steps_per_epoch=1)
    result = train(SGD, data, workers=2, epochs=1, loop=loop, callbacks=[RateAfterFirstStep(hook)])
    assert result.sha256["weights"] == one_step.sha256["weights"]
    assert result.sha256["optimizer"] != one_step.sha256["optimizer"]  # but it went on counting steps


def test_a_rate_set_after_the_last_step_reaches_all_workers(train, data):
    reference = train(SGD, data, workers=0, callbacks=[DecayEveryStep()])
    for loop in ("fit", "custom"):
        result = train(SGD, data, workers=2, loop=loop, callbacks=[DecayEveryStep()])
        assert fingerprint(result) == fingerprint(reference)


def test_keras_schedules_and_changed_weights_reach_all_workers(train, data):
    def callbacks():
        return [
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5),
            keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=1, min_delta=10.0, factor=0.1),
            Weights(),
        ]

    notes = Notes()
    reference = train(SGD, data, workers=0, epochs=4, callbacks=[*callbacks(), notes])
    result = train(SGD, data, workers=3, epochs=4, loop="train_on_batch", callbacks=callbacks())
    assert fingerprint(result) == fingerprint(reference)
    np.testing.assert_allclose(result.history["learning_rate"], [0.05, 0.025, 0.00125, 6.25e-5], rtol=1e-6)
    plain = train(SGD, data, workers=0, epochs=4)
    assert plain.sha256["weights"] != result.sha256["weights"]


@pytest.mark.parametrize("loop", ["fit", pytest.param("custom", marks=SLOW_TOO)])
def test_early_stopping_restores_the_best_weights_everywhere(train, data, loop):
    best = train(SGD, data, workers=0, epochs=1)
    # The loss falls, so by mode="max" the first epoch is the best one.
    early = keras.callbacks.EarlyStopping(monitor="loss", mode="max", patience=2, restore_best_weights=True)
    result = train(SGD, data, workers=3, epochs=9, loop=loop, callbacks=[early])
    assert len(result.history["loss"]) == 3
    assert result.sha256["weights"] == best.sha256["weights"]
    assert np.array_equal(result.model().predict(data[0], verbose=0), best.model().predict(data[0], verbose=0))


@pytest.mark.parametrize(
    ("hook", "loop"),
    [
        ("on_train_batch_end", "custom"),
        ("on_train_batch_begin", "fit"),
        pytest.param("on_train_batch_end", "fit", marks=SLOW_TOO),
        pytest.param("on_train_batch_begin", "train_on_batch", marks=SLOW_TOO),
    ],
)
def test_a_stop_in_the_middle_of_an_epoch_stops_all_workers_after_that_step(train, data, hook, loop):
    two_steps = train(SGD, data, workers=0, epochs=1, steps_per_epoch=2, validation_data=data)
    result = train(SGD, data, workers=2, epochs=3, loop=loop, validation_data=data, callbacks=[StopAt(hook)])
    assert fingerprint(result) == fingerprint(two_steps)
    assert result.epochs[0].rows == 32


def test_files_and_logs_of_callbacks_do_not_depend_on_the_workers(train, data):
    heard = {}
    for workers, loop in ((0, "fit"), (3, "train_on_batch")):
        notes, lines = Notes(), []
        callbacks = [
            notes,
            keras.callbacks.CSVLogger("log.csv"),
            keras.callbacks.ModelCheckpoint("best.keras", monitor="val_loss", save_best_only=True),
            keras.callbacks.ModelCheckpoint("{epoch}.weights.h5", save_weights_only=True),
            *([keras.callbacks.TensorBoard("board", histogram_freq=1)] if TENSORBOARD else []),
            keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs, lines=lines: lines.append(epoch)),
        ]
        result = train(
            SGD, data, workers=workers, loop=loop, validation_data=dense_data(23, seed=1), callbacks=callbacks
        )
        with (result.run_dir / "log.csv").open() as file:
            table = list(csv.DictReader(file))
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert [float(row[name]) for row in table] == result.history[name]
        assert {"best.keras", "1.weights.h5", "2.weights.h5"} <= {path.name for path in result.run_dir.iterdir()}
        assert bool(list((result.run_dir / "board").rglob("events.out.tfevents.*"))) == TENSORBOARD
        assert keras.models.load_model(result.run_dir / "best.keras").compiled
        assert lines == [0, 1]
        assert notes.tests[0] == "begin"
        assert notes.tests[-1] == "end"
        assert notes.tests.count("end") == 2
        assert notes.epochs == [(epoch, {n: v[epoch] for n, v in result.history.items()}) for epoch in (0, 1)]
        heard[workers] = (notes.batches, notes.epochs, notes.ends)
    assert heard[0] == heard[3]
    assert [batch for batch, _ in heard[3][0]] == [0, 1, 2] * 2
    last_of_epoch = heard[3][0][2][1]
    assert last_of_epoch == {name: heard[3][1][0][1][name] for name in ("loss", "accuracy")}


def test_no_test_hook_is_called_without_validation_data(train, data):
    notes = Notes()
    train(SGD, data, workers=0, epochs=1, loop="train_on_batch", callbacks=[notes])
    assert notes.tests == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_callback_that_raises_stops_the_run_and_is_named(train, data, workers):
    with pytest.raises(TrainingFailedError, match="ZeroDivisionError") as caught:
        train(SGD, data, workers=workers, callbacks=[Failing()])
    assert caught.value.step == 2  # the two steps before it are done
    assert caught.value.worker == 0
    assert "test_callback_relay.py" in str(caught.value)
    assert "in divide" in str(caught.value)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.skipif(TENSORBOARD, reason="the package tensorboard is installed")
def test_tensorboard_without_its_package_is_refused_before_the_run():
    with pytest.raises(ConfigurationError, match="pip install tensorboard"):
        check_callbacks([keras.callbacks.TensorBoard("board")])


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (lambda: keras.callbacks.BackupAndRestore("backup"), "BackupAndRestore is refused: it restores one process"),
        (lambda: print, "callbacks holds .*print.*takes keras.callbacks.Callback objects"),
        (lambda: Notes, "callbacks holds .*Notes"),
    ],
)
def test_callbacks_that_cannot_work_are_refused_by_name(callback, words):
    with pytest.raises(ConfigurationError, match=words):
        check_callbacks([callback()])


def test_only_callbacks_that_act_between_steps_cost_a_control_message_per_step():
    quiet = [
        keras.callbacks.EarlyStopping(),
        keras.callbacks.CSVLogger("log.csv"),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.1),
        keras.callbacks.ReduceLROnPlateau(),
        keras.callbacks.ModelCheckpoint("x.keras"),
        keras.callbacks.TensorBoard("board"),
        keras.callbacks.LambdaCallback(on_epoch_end=print),
    ]
    acting = [
        Notes(),
        StopAt("on_train_batch_begin"),
        keras.callbacks.ModelCheckpoint("x.keras", save_freq=3),
        keras.callbacks.TensorBoard("board", update_freq="batch"),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.LambdaCallback(on_train_batch_end=print),
    ]
    assert not has_batch_hooks(quiet)
    for callback in acting:
        assert has_batch_hooks([callback]), callback


class OldNames(Callback):
    def on_batch_end(self, batch, logs=None):
        pass


NO_MODEL = SimpleNamespace(model=keras.Sequential(), metrics=[], state=[], generators=[], components=None)
JOB = SimpleNamespace(settings=SimpleNamespace(seed=1))


def test_the_relay_passes_on_the_hooks_that_a_callback_has_and_no_others():
    callbacks = [keras.callbacks.LambdaCallback(on_test_begin=print), OldNames()]
    member = SimpleNamespace(is_chief=False)
    relay = CallbackRelay(callbacks, NO_MODEL, None, member=member, job=JOB, position=None, files=None, times=None)
    for hook in ("on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_test_begin", "on_test_end"):
        relay.run(hook, 0)
    assert relay.remembered == ("on_train_batch_end", "on_test_begin")


@pytest.mark.parametrize("batch_hooks", [False, True])
def test_keras_is_given_hooks_around_steps_only_if_a_callback_acts_there(batch_hooks):
    hooks = SessionHooks(SimpleNamespace(relay=SimpleNamespace(batch_hooks=batch_hooks)))
    assert is_default(hooks.on_train_batch_begin) is not batch_hooks
    assert is_default(hooks.on_train_batch_end) is not batch_hooks


class CarriesItself(Callback):
    """Has state of its own, and no on_train_begin."""

    def __init__(self):
        super().__init__()
        self.seen = ["made"]

    def get_state(self):
        return {"seen": self.seen}

    def set_state(self, state):
        self.seen = state["seen"]

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(f"epoch {epoch}")
        logs["num_seen"] = len(self.seen)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_of_a_callback_without_on_train_begin_is_its_own(train, data, workers):
    result = train(SGD, data, workers=workers, epochs=3, callbacks=[CarriesItself()])
    assert result.history["num_seen"] == [2.0, 3.0, 4.0]


class ShrinksAfterValidation(Callback):
    def on_test_end(self, logs=None):
        self.model.set_weights([0.5 * weights for weights in self.model.get_weights()])

    def on_epoch_end(self, epoch, logs=None):
        pass


@pytest.mark.parametrize(
    "loop", ["fit", *(pytest.param(loop, marks=pytest.mark.slow) for loop in ("train_on_batch", "custom"))]
)
def test_what_a_validation_hook_changes_is_changed_on_all_workers(train, loop):
    arguments = {"validation_data": dense_data(rows=23, seed=1), "loop": loop}
    alone, several = (
        fingerprint(train(normalised, dense_data(), workers=workers, callbacks=[ShrinksAfterValidation()], **arguments))
        for workers in (0, 2)
    )
    assert several == alone
    assert alone != fingerprint(train(normalised, dense_data(), workers=0, **arguments)), "nothing was changed"
