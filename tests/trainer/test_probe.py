"""The probe before the first step: what is refused, what is said and recorded, and that it leaves no trace."""

from __future__ import annotations

import json
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.trainer import RunPausedError, UnsupportedStepError
from heliostat.trainer.engine.state import state_bytes
from keras import layers, ops

from .conftest import dense_data, use_floats
from .faults import events_of
from .helpers import local_trainer
from .models import linear, normalised
from .probed import built_for, look_at

pytestmark = pytest.mark.engine

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6))
Y = np.tanh(X.sum(1, keepdims=True))
IMAGES = (Y > 0).astype(float)


def fit(build_model, tmp_path, data=(X, Y), *, workers=0, num_microbatches=2, **arguments):
    with local_trainer(build_model, tmp_path, workers=workers, num_microbatches=num_microbatches) as trainer:
        return trainer.fit(data, **{"global_batch_size": 16, "verbose": 0, "probe": True} | arguments)


def record_of(result):
    return json.loads((result.run_dir / "run.json").read_text())


def probes_of(result):
    return events_of(result.run_dir, "probed")


def model_of(loss, *more, metrics=(), activation=None, kind=keras.Model):
    """A function that builds a dense model with one output and these layers before it (functions that make them)."""

    def build():
        use_floats("float64")
        inputs = keras.Input((6,))
        between = inputs
        for make in more:
            between = make()(between)
        model = kind(inputs, layers.Dense(1, activation=activation, kernel_initializer="ones")(between))
        model.compile(keras.optimizers.SGD(0.05), loss, metrics=list(metrics))
        return model

    return build


def total_square(y, out):
    return ops.sum(ops.square(y - out))


class Clipping(keras.Model):
    def train_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, self.trainable_variables), 0.5)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"mine": loss}


class Counting(layers.Layer):
    """Counts the rows that it has seen."""

    def __init__(self, dtype_of_count):
        super().__init__()
        self.kind = dtype_of_count

    def build(self, shape):
        self.seen = self.add_weight(shape=(), dtype=self.kind, initializer="zeros", trainable=False, name="seen")

    def call(self, x):
        self.seen.assign_add(ops.cast(ops.shape(x)[0], self.kind))
        return x


class Queue(layers.Layer):
    """Keeps the last rows."""

    def build(self, shape):
        self.last = self.add_weight(shape=(4, 6), initializer="zeros", trainable=False, name="last")

    def call(self, x):
        self.last.assign(ops.concatenate([x, self.last])[:4])
        return x


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (model_of(total_square), ("'sgd' applies is 2 times as large", "a sum over rows", "reduction")),
        (model_of("mse", kind=Clipping), ("clipped", "clipnorm", "global_mean")),
        (model_of("mse", lambda: Counting("float64")), ("counting/seen' is no mean", "global_sum", "aggregation")),
        (model_of("mse", Queue), ("queue/last' is no mean", "global_sum", "num_microbatches=1", "probe=False")),
    ],
    ids=["sum", "clipped", "counts", "queue"],
)
def test_what_microbatches_cannot_compute_is_refused_before_the_first_step(tmp_path, build, words):
    with pytest.raises(UnsupportedStepError, match="does not fit microbatches") as caught:
        fit(build, tmp_path)
    assert all(word in str(caught.value) for word in words)
    assert "first_step" not in (tmp_path / "run" / "events.jsonl").read_text()


def test_two_workers_refuse_alike(tmp_path):
    with pytest.raises(UnsupportedStepError, match="a sum over rows"):
        fit(model_of(total_square), tmp_path, workers=2)


@pytest.mark.parametrize("arguments", [{"probe": False}, {"num_microbatches": 1}], ids=["left_out", "one_microbatch"])
def test_it_is_left_out_where_it_is_not_wanted_or_has_no_use(tmp_path, arguments):
    result = fit(model_of(total_square), tmp_path, **arguments)
    assert probes_of(result) == []
    assert "probe" not in record_of(result)["start_s"]["worker"]


def test_a_loss_and_a_metric_of_the_whole_batch_are_said_once_with_both_values_and_recorded(tmp_path, capfd):
    def agreement(y, out):
        return ops.sum(y * out) / ops.sum(y + out)

    build = model_of("dice", activation="sigmoid", metrics=[agreement])
    result = fit(build, tmp_path, (X, IMAGES), validation_data=(X, IMAGES), epochs=2, verbose=2)
    shown = capfd.readouterr().out
    recorded = record_of(result)["probe"]
    training, validation = recorded["notes"]
    assert all(shown.count(note) == 1 for note in (training, validation))
    for note, step in ((training, "training step"), (validation, "validation step")):
        assert all(
            word in note for word in ("the loss (dice) is", "the metric 'agreement' is", step, "num_microbatches=1")
        )
    assert "16 rows at once" in training
    assert 0 < recorded["seconds"] <= record_of(result)["start_s"]["worker"]["probe"] + 0.1


def valid_by_sum(model, x, y):
    return {"mine": ops.sum(ops.square(y - model(x)))}


def test_steps_of_the_custom_loop_are_looked_at(tmp_path):
    with pytest.raises(UnsupportedStepError, match=r"validation step does not fit .* number 'mine' is 2 times"):
        fit(model_of("mse"), tmp_path, validation_data=(X, Y), loop="custom", valid_step=valid_by_sum)


@pytest.mark.slow
def test_nothing_has_changed_and_the_run_is_the_same(tmp_path):
    data = dense_data()
    runs = [fit(normalised, tmp_path / str(probe), data, probe=probe, epochs=2) for probe in (True, False)]
    assert probes_of(runs[0])[0]["notes"] == []
    assert runs[0].sha256 == runs[1].sha256
    assert runs[0].history == runs[1].history


def test_a_look_assigns_nothing(tmp_path):
    x, y = dense_data()
    built = built_for(normalised, x, y)
    variables = [*built.model.variables, *built.optimizer.variables, *(m.variable for m in built.metrics)]
    variables += [generator.state for generator in built.generators]
    np.random.seed(3)
    drawn, before, state = (
        np.random.get_state()[1].tolist(),
        [v.numpy().tobytes() for v in variables],
        state_bytes(built),
    )
    applies, draws = keras.optimizers.Optimizer.apply, keras.random.normal((4, 2), seed=1).numpy()
    assert look_at(built, x, y) == ()
    assert [v.numpy().tobytes() for v in variables] == before
    assert all(np.array_equal(one, other) for one, other in zip(state_bytes(built), state, strict=True))
    assert np.random.get_state()[1].tolist() == drawn
    assert keras.optimizers.Optimizer.apply is applies
    assert np.array_equal(keras.random.normal((4, 2), seed=1).numpy(), draws)
    assert not tf.config.functions_run_eagerly()


class PausesOnce(keras.callbacks.Callback):
    has_paused = False

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1 and not PausesOnce.has_paused:
            PausesOnce.has_paused = True
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_that_goes_on_is_not_looked_at_again(tmp_path):
    arguments = {"epochs": 3, "callbacks": [PausesOnce()]}
    with pytest.raises(RunPausedError, match="SIGTERM"):
        fit(linear(), tmp_path, dense_data(), **arguments)
    result = fit(linear(), tmp_path, dense_data(), **arguments)
    assert ["probe" in each["seconds"] for each in events_of(result.run_dir, "first_step")] == [True, False]
    assert len(probes_of(result)) == 1
