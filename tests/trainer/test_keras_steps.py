"""What a step of Keras's `fit` gets and returns, as people write it, against plain Keras in float64."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.trainer.columns import Columns
from heliostat.trainer.errors import UnsupportedStepError
from keras import layers, ops

from .conftest import use_floats
from .one_device import fitted, same_history

pytestmark = pytest.mark.engine

ROWS, BATCH = 22, 8  # the last batch is a short one
RNG = np.random.default_rng(3)
X = RNG.normal(size=(ROWS, 6))
Y = (np.tanh(X.sum(1, keepdims=True)) > 0).astype("float64")
WEIGHTS = RNG.uniform(0.5, 2, ROWS)


class Flexible(keras.metrics.BinaryAccuracy):
    """A subclass that adds no state and hands on what it has changed."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(y_true, ops.sigmoid(y_pred), sample_weight)


class Pair(keras.metrics.Metric):
    """A metric made of two of Keras's."""

    def __init__(self, name="pair"):
        super().__init__(name=name)
        self.hits, self.sizes = keras.metrics.Precision(thresholds=0.3), [keras.metrics.Mean(), keras.metrics.Sum()]

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.hits.update_state(y_true, ops.sigmoid(y_pred))
        for each in self.sizes:
            each.update_state(ops.abs(y_pred))

    def result(self):
        return {"hits": self.hits.result(), "ratio": self.sizes[0].result() / self.sizes[1].result()}


class Stepper(keras.Model):
    """Learns by its compiled loss; subclasses say what it is given and returns."""

    def learn(self, x, y, sample_weight=None):
        with tf.GradientTape() as tape:
            out = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=out, sample_weight=sample_weight)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return loss, out


class Nested(Stepper):
    """Results of all metrics, compiled ones as a dict among them, and one made of two."""

    def train_step(self, data):
        x, y = data
        loss, out = self.learn(x, y)
        for metric in self.metrics:
            metric.update_state(loss, sample_weight=ops.shape(x)[0]) if metric.name == "loss" else None
            metric.update_state(y, out) if metric.name == "compile_metrics" else None
        found = {m.name: m.result() for m in self.metrics}
        precision, recall = found["compile_metrics"]["precision"], found["compile_metrics"]["recall"]
        return found | {"f1": 2 * precision * recall / (precision + recall + 1e-9), "more": {"rate": 0.25}}


class Trackers(Stepper):
    """Trackers of its own, listed by `metrics`; their results under other names, the learning rate, a vector."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.curves = {"curve": keras.metrics.AUC(num_thresholds=20, name="curve")}

    @property
    def metrics(self):
        return [self.loss_tracker, self.curves["curve"]]

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        loss, out = self.learn(x, y, sample_weight)
        self.loss_tracker.update_state(loss)  # counts a batch once, the short one as well
        self.curves["curve"].update_state(y, ops.sigmoid(out))
        return {
            "mine": self.loss_tracker.result(),
            "auc_percent": self.curves["curve"].result() * 100,
            "lr": self.optimizer.learning_rate,
            "steps": self.optimizer.iterations,
        }


class OwnLoss(Stepper):
    """Only `compute_loss` and `compute_metrics` are its own."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.counted = keras.metrics.Mean(name="counted")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return ops.mean(ops.square(y - y_pred))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        found = super().compute_metrics(x, y, y_pred, sample_weight)
        self.counted.update_state(ops.abs(y - y_pred))
        found["counted"] = self.counted.result()
        return found


def halved():
    return keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5)


def model_of(kind, metrics=None, rate=lambda: 0.05):
    def build():
        use_floats("float64")
        inputs = keras.Input((6,))
        hidden = layers.Dense(4, activation="tanh", kernel_initializer=keras.initializers.GlorotUniform(1))(inputs)
        model = kind(inputs, layers.Dense(1, kernel_initializer="ones")(hidden))
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate()), loss, metrics=None if metrics is None else metrics())
        return model

    return build


def precision_and_recall():
    return [keras.metrics.Precision(thresholds=0.3, name="precision"), keras.metrics.Recall(name="recall")]


@pytest.mark.parametrize(
    ("build", "weighted"),
    [
        pytest.param(model_of(Nested, precision_and_recall), False, marks=pytest.mark.slow),
        (model_of(Trackers, rate=halved), True),
        pytest.param(model_of(OwnLoss, lambda: ["mae", Flexible(), Pair()]), False, marks=pytest.mark.slow),
    ],
    ids=["nested", "trackers", "own-loss"],
)
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_steps_give_the_history_of_plain_keras(train, build, weighted, workers):
    use_floats("float64")
    plain, _ = fitted(build, X, Y, sample_weight=WEIGHTS if weighted else None, batch_size=BATCH, epochs=3)
    data, more = ((X, Y, WEIGHTS), {"sample_weight": "w"}) if weighted else ((X, Y), {})
    result = train(
        build, data, workers=workers, num_microbatches=3, global_batch_size=BATCH, epochs=3, shuffle=False, **more
    )
    same_history(result.history, plain, rtol=1e-9)


def test_data_is_what_keras_packs():
    one, many, named = Columns(), Columns(inputs=["a", "b"]), Columns(targets=None, in_tuple=True)
    assert one.packed(1, None, None) == 1
    assert one.packed(1, 2, None) == (1, 2)
    assert one.packed(1, None, 3) == (1, None, 3)
    assert many.packed([1, 2], {"c": 3}, 4) == ((1, 2), {"c": 3}, 4)
    assert many.packed([1, 2], None, None) == ((1, 2),)
    assert named.packed(1, None, None) == (1,)


class Unlisted(Trackers):
    """Forgets one of its trackers, and keeps one metric twice."""

    metrics = property(lambda self: [self.loss_tracker, self.loss_tracker])


@pytest.mark.slow
def test_a_metric_that_is_not_listed_begins_anew_and_that_is_said(train):
    use_floats("float64")
    arguments = {"workers": 0, "num_microbatches": 2, "epochs": 2, "global_batch_size": ROWS, "shuffle": False}
    result, listed = (train(model_of(kind), (X, Y), **arguments) for kind in (Unlisted, Trackers))
    assert result.history == listed.history
    (note,) = json.loads((result.run_dir / "run.json").read_text())["notes"]
    assert "does not list (curve) begin anew in every epoch" in note


class Listing(Stepper):
    """Returns what is no log."""

    def train_step(self, data):
        loss, out = self.learn(*data)
        return {"loss": loss, "found": self.wanted(out)}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (lambda out: out, r"returned 'found' with the shape \(None, 1\)"),
        (lambda out: "good", "'found' as string; logs are numbers"),
        (lambda out: object(), "'found' as object, which is no number"),
    ],
)
def test_what_is_no_number_of_the_batch_is_refused_by_name(train, wanted, words):
    class Wrong(Listing):
        pass

    Wrong.wanted = staticmethod(wanted)
    with pytest.raises(UnsupportedStepError, match=words):
        train(model_of(Wrong), (X, Y), workers=0, num_microbatches=1, epochs=1)
