"""Models with habits of their own: what they do stays exact for any number of workers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.trainer.checkpoints.store import CheckpointStore
from keras import layers, ops

from .conftest import dense_data, fingerprint

pytestmark = pytest.mark.engine

SPARSE = "sparse_categorical_crossentropy"


class OwnStep(keras.Model):
    """Overrides `train_step` and returns logs of its own; one more metric is its attribute."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = layers.Dense(8, activation="relu"), layers.Dense(5)
        self.entropy = keras.metrics.Mean("entropy")

    def call(self, x, training=False):
        return self.out(self.hidden(x))

    @tf.function
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            logits = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=logits)
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables, strict=True)
        )
        chances = ops.softmax(logits)
        self.entropy.update_state(-ops.sum(chances * ops.log(chances), axis=-1))
        largest = ops.max(logits)
        return {"crossentropy": loss, "entropy": self.entropy.result(), "largest": ops.cast(largest > 0, "float32")}


def own_step():
    model = OwnStep()
    model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


class Activity(layers.Layer):
    """Adds a loss, and counts its calls in an integer and in a moving average."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="calls")
        self.average = self.add_weight(shape=(), initializer="zeros", trainable=False, name="average")

    def call(self, x, training=False):
        self.add_loss(0.01 * ops.mean(ops.square(x)))
        if training:
            self.calls.assign_add(1)
            self.average.assign(0.5 * self.average + 0.5 * ops.mean(x))
        return x


class RowCounter(layers.Layer):
    """An integer that becomes another on another microbatch."""

    def build(self, shape):
        self.rows = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="rows")

    def call(self, x):
        self.rows.assign_add(ops.shape(x)[0])
        return x


def habits():
    """A frozen layer, a shared layer, regularizers, an added loss, a counter, a constraint."""
    x = keras.Input((12,))
    shared = layers.Dense(12, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.01), name="shared")
    frozen = layers.Dense(12, trainable=False, name="frozen")
    h = Activity(name="activity")(shared(frozen(shared(x))))
    out = layers.Dense(5, activation="softmax", activity_regularizer="l1", kernel_constraint="unit_norm")(h)
    model = keras.Model(x, out)
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9), loss=SPARSE, metrics=["accuracy"])
    return model


def mixed(policy, scale=None):
    def build():
        model = keras.Sequential(
            [
                layers.Dense(8, activation="relu", dtype=policy),
                layers.BatchNormalization(dtype=policy),
                layers.Dense(5, activation="softmax", dtype="float32"),
            ]
        )
        optimizer = keras.optimizers.Adam(1e-2)
        if scale is not None:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=scale)
        model.compile(optimizer=optimizer, loss=SPARSE, metrics=["accuracy"])
        return model

    return build


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (own_step, {"crossentropy", "entropy", "largest", "val_loss", "val_entropy"}),  # what its train_step returns
        (habits, {"loss", "accuracy", "val_loss", "val_accuracy"}),
    ],
    ids=["own_step", "habits"],
)
def test_models_with_habits_give_the_same_bits_and_their_own_logs(train, build, names):
    data = dense_data(rows=37)
    reference = train(build, data, workers=0, validation_data=data)
    for workers, replicas in ((3, 1), (1, 2)):
        result = train(build, data, workers=workers, replicas=replicas, validation_data=data)
        assert fingerprint(result) == fingerprint(reference)
    assert set(reference.history) == names
    assert reference.history.get("largest", [1.0, 1.0]) == [1.0, 1.0]


def test_habits_equal_plain_keras_after_one_step(train):
    x, y = dense_data(rows=16)
    start = habits()
    weights = start.get_weights()
    result = train(habits, (x, y), workers=2, epochs=1, shuffle=False, initial_weights=weights, num_microbatches=2)
    start.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    found = result.model(custom_objects={"Activity": Activity})
    pairs = zip(found.weights, start.weights, strict=True)
    for ours, plain in pairs:
        if ours.name != "calls":
            np.testing.assert_allclose(ours.numpy(), plain.numpy(), rtol=1e-4, atol=2e-6, err_msg=ours.path)
    layer = found.get_layer("activity")
    assert int(layer.calls.numpy()) == 1  # once per step, on however many microbatches
    assert np.array_equal(found.get_layer("frozen").kernel.numpy(), start.get_layer("frozen").kernel.numpy())
    assert not np.array_equal(found.get_layer("shared").kernel.numpy(), weights[0])


def test_integer_state_that_depends_on_the_rows_is_refused(train):
    def build():
        model = keras.Sequential([RowCounter(), layers.Dense(5, activation="softmax")])
        model.compile(loss=SPARSE)
        return model

    with pytest.raises(Exception, match=r"Integer state of the model .*rows.* became different") as caught:
        train(build, dense_data(rows=7), workers=0)
    assert type(caught.value).__name__ == "WorkersDisagreeError"


@pytest.mark.parametrize(("policy", "scale"), [("mixed_bfloat16", None), ("mixed_float16", 2.0**40)])
def test_mixed_precision_gives_the_same_bits(train, policy, scale):
    data = dense_data(rows=37)
    build = mixed(policy, scale)
    reference = train(build, data, workers=0)
    result = train(build, data, workers=3)
    assert fingerprint(result) == fingerprint(reference)
    assert np.isfinite(result.history["loss"]).all()
    if scale == 2.0**40:  # float16 overflows at first: those steps are left out, and the scale is halved
        assert result.model().optimizer.dynamic_scale.numpy() < scale


@pytest.mark.parametrize("workers", [0, 2])
def test_the_dtype_policy_of_the_users_thread_reaches_workers_of_this_process(train, workers):
    seen = []

    def build():
        seen.append(keras.config.dtype_policy().name)
        model = keras.Sequential([layers.Dense(5, activation="softmax")])
        model.compile("sgd", SPARSE)
        return model

    keras.config.set_dtype_policy("mixed_bfloat16")  # the fixture `float32_again` takes it back
    train(build, dense_data(rows=7), workers=workers, epochs=1)
    assert set(seen) == {"mixed_bfloat16"}


def test_several_steps_per_execution_are_said_to_count_as_one_and_change_nothing(train, capfd):
    def build(asked):
        def build_model():
            model = keras.Sequential([layers.Dense(5, activation="softmax")])
            model.compile("adam", SPARSE, steps_per_execution=asked)
            return model

        return build_model

    data = dense_data(rows=37)
    reference = train(build(1), data, workers=0, verbose=2)
    assert "steps_per_execution" not in capfd.readouterr().out
    result = train(build(3), data, workers=2, verbose=2)
    assert fingerprint(result) == fingerprint(reference)
    assert capfd.readouterr().out.count("steps_per_execution=3 counts as 1") == 1


def named(frozen, normalisation):
    def build():
        model = keras.Sequential(
            [
                layers.Dense(8, name=frozen, trainable=False),
                layers.BatchNormalization(name=normalisation),
                layers.Dropout(0.3),
                layers.Dense(5, activation="softmax"),
            ]
        )
        model.compile("adam", loss="sparse_categorical_crossentropy")
        return model

    return build


def test_a_layer_may_be_called_as_keras_calls_its_seeds(train):
    usual = train(named("frozen", "normalisation"), dense_data(37), workers=2)
    result = train(named("seed_generator", "my_seed_generator"), dense_data(37), workers=2)
    assert fingerprint(result) == fingerprint(usual)
    store = CheckpointStore(str(result.run_dir / "checkpoints"))
    names = [entry.name for entry in store.manifest(store.names()[-1]).tensors]
    for wanted in ("seed_generator/kernel", "my_seed_generator/moving_mean"):
        assert any(name.endswith(wanted) for name in names), names
