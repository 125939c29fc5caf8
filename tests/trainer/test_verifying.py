"""Steps beside plain Keras in float64, as `heliostat verify-run` asks for them: equal, or named with the first step."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.scripts.commands.verify_report import cause
from heliostat.trainer import Trainer
from heliostat.trainer.driver.run_folder import COMPARED_FILE, read_json
from heliostat.trainer.environment import WORKERS, Command
from heliostat.trainer.shortened import VerifyWanted
from heliostat.trainer.step_states import Compared, first_differences

pytestmark = pytest.mark.engine
UNSEEN = Path(__file__).parents[1] / "scripts" / "unseen"
# What is found in each: the name of what differs most, and in which step first.
FAULTS = {
    "small_sum": ("the loss, and with it all gradients, from step 0 on", 3e-6),
    "late_hinge": ("the loss, and with it all gradients, from step 1 on", 0.1),
    "late_sum": ("the loss, and with it all gradients, from step 2 on", 1.0),
    "pairs": ("the loss, and with it the gradients of", 1.0),
    "late_state": ("what the step assigns to sequential/largest/largest, and with it the loss, from step 2 on", 1.0),
}
ROWS = np.random.default_rng(0).normal(size=(48, 5)).astype("float32")
LABELS = (ROWS[:, 0] > 0).astype("int64")


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """asked(run, **fields of `VerifyWanted`) -> what was found of what `run()` trains."""

    def ask(run, **given) -> Compared:
        wanted = VerifyWanted(**{"steps": 4, "num_microbatches": 4, "threads": 1, "plain": True} | given)
        command = Command(run_dir=tmp_path / "out", fit=1, verify=wanted)
        for name, value in {**command.variables(), WORKERS: "0"}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            run()
        assert ended.value.code == 0
        return Compared.from_json(read_json(tmp_path / "out" / COMPARED_FILE))

    return ask


def trained(build_model, x=ROWS, y=LABELS, **given):
    """What trains a model, for `asked`."""

    def run():
        with Trainer(build_model) as trainer:
            trainer.fit(x, y, **{"batch_size": 16, "epochs": 3, "verbose": 0} | given)

    return run


def differing(found: Compared) -> list:
    return first_differences(each for step in found.steps for each in step.differences)


def check_equal(found: Compared, steps: int = 6) -> None:
    """All is equal, in whole epochs of three steps each: at least the four that are asked for."""
    assert [step.step for step in found.steps] == list(range(steps))
    assert differing(found) == []
    assert found.steps[0].precision == "float64"
    assert found.why_not_exact == ""


def small(*layers, optimizer=None, **compiled):
    """A model of these layers, between two dense ones."""

    def build():
        ends = keras.layers.Dense(6, activation="tanh"), keras.layers.Dense(2, activation="softmax")
        model = keras.Sequential([keras.Input((5,)), ends[0], *(make() for make in layers), ends[1]])
        given = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]} | compiled
        model.compile(keras.optimizers.Adam(0.01) if optimizer is None else optimizer(), **given)
        return model

    return build


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "late_sum" else pytest.mark.slow) for n in FAULTS])
def test_a_fault_that_the_start_cannot_see_is_named(name, asked, monkeypatch):
    script = UNSEEN / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(script)])
    found = asked(lambda: runpy.run_path(str(script), run_name="__main__"))
    what, least = FAULTS[name]
    assert cause(differing(found), found.steps[0].num_weights).startswith(what)
    assert max(each.size for each in differing(found)) > least / 10


def test_random_layers_a_short_batch_and_two_epochs_are_as_in_plain_keras(asked):
    """40 rows in batches of 16: the third is short, and the fourth step is of the next epoch."""
    layers = (lambda: keras.layers.Dropout(0.4), lambda: keras.layers.GaussianNoise(0.2))
    check_equal(asked(trained(small(*layers), ROWS[:40], LABELS[:40], callbacks=[Halving()])))


class Halving(keras.callbacks.Callback):
    """Halves the learning rate before each step."""

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = 0.5 * float(self.model.optimizer.learning_rate.numpy())


@pytest.mark.slow
def test_batch_normalization_is_named_as_what_it_is(asked):
    found = asked(trained(small(keras.layers.BatchNormalization)))
    check_equal(found)
    assert found.steps[0].by_design == ("batch_normalization",)


@pytest.mark.slow
def test_an_embedding_under_adam_is_compared_with_dense_gradients(asked):
    def build():
        model = keras.Sequential([keras.layers.Embedding(9, 3), keras.layers.Flatten(), keras.layers.Dense(2)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    check_equal(asked(trained(build, np.random.default_rng(0).integers(0, 9, (48, 4)))))


@pytest.mark.slow
def test_steps_of_ones_own_and_several_metrics(asked):
    def train_step(model, optimizer, x, y):
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = model.compute_loss(x=x, y=y, y_pred=y_pred)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        model.compute_metrics(x, y, y_pred)
        return {"loss": loss, "spread": tf.reduce_mean(tf.abs(y_pred))}

    metrics = ["accuracy", "sparse_categorical_crossentropy"]
    found = asked(trained(small(metrics=metrics), loop="custom", train_step=train_step))
    check_equal(found)
    assert set(found.steps[0].numbers) == {"loss", "spread", *metrics}


OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "clipped": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.1),
    "nadam": lambda: keras.optimizers.Nadam(0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01),
    "averaged": lambda: keras.optimizers.AdamW(0.01, use_ema=True, ema_overwrite_frequency=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_optimizers_keep_is_equal(name, asked):
    check_equal(asked(trained(small(optimizer=OPTIMIZERS[name]), loop="train_on_batch")))


@pytest.mark.slow
def test_a_layer_whose_gradient_is_another_is_named_alone(asked):
    """The gradient of one layer's weights is clipped by the rows of a microbatch: the loss is as it must be."""

    @tf.custom_gradient
    def bounded(x):
        return tf.identity(x), lambda upstream: upstream * tf.cast(tf.shape(x)[0], upstream.dtype) / 16

    class Bounded(keras.layers.Layer):
        def call(self, x):
            return bounded(x)

    found = asked(trained(small(Bounded)))
    what = "the gradients of sequential/dense/kernel, sequential/dense/bias, or their update, and not the loss"
    assert cause(differing(found), found.steps[0].num_weights) == f"{what}, from step 0 on"


@pytest.mark.slow
def test_a_model_that_is_float32_by_itself_is_compared_so_and_it_is_said(asked):
    halves = tf.constant(0.5, tf.float32)

    class Fixed(keras.layers.Layer):
        def call(self, x):
            return x * halves

    found = asked(trained(small(Fixed)))
    assert "float" in found.why_not_exact
    assert (found.steps[0].precision, differing(found)) == ("float32", [])


@pytest.mark.slow
def test_layers_of_another_float_type_are_named(asked):
    found = asked(trained(small(lambda: keras.layers.Dense(4, dtype="float32", name="single"))))
    assert found.steps[0].without_float64 == ("single",)
    assert (found.steps[0].precision, differing(found)) == ("float32", [])


def test_nothing_is_left_of_a_comparison(asked, tmp_path):
    asked(trained(small(), epochs=1), steps=2)
    assert keras.config.floatx() == "float32"
    assert sorted(each for each in os.listdir(tmp_path / "out") if not each.startswith(".")) == [
        "data",
        "logs",
        "run.json",
        "verify.json",
    ]
