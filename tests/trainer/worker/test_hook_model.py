"""The model that callbacks see is one device's, and what they change of it is changed on all workers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.trainer.errors import UnsupportedModelChangeError, UnsupportedStepInCallbackError
from keras.callbacks import Callback

from ..conftest import dense_data, fingerprint, use_floats
from ..models import linear
from ..one_device import fitted, same_history, same_weights

pytestmark = pytest.mark.engine

DATA, VALID = dense_data(rows=32), dense_data(rows=23, seed=1)


def build(**settings):
    """A small model in float64."""
    use_floats("float64")
    model = keras.Sequential(
        [keras.Input((12,)), keras.layers.Dense(6, activation="tanh"), keras.layers.Dense(5, activation="softmax")]
    )
    for number, variable in enumerate(model.variables):
        variable.assign(np.random.default_rng(number).normal(size=variable.shape) / 4)
    optimizer = keras.optimizers.Adam(0.05, **settings)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def with_average():
    return build(use_ema=True, ema_momentum=0.5)


def plain(build_model, callbacks, **arguments):
    """What Keras computes on one device."""
    return fitted(build_model, *DATA, epochs=2, batch_size=8, callbacks=callbacks, **arguments)


def same(result, expected):
    history, weights = expected
    same_history(result.history, history)
    same_weights(result.model().get_weights(), weights, rtol=1e-9)


class Looks(Callback):
    """Looks at the model in ways of people's callbacks, and puts what it sees into the logs."""

    def on_epoch_end(self, epoch, logs=None):
        model, (x, y) = self.model, VALID
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(model.compute_loss(y=y, y_pred=model(x, training=False)))
        gradients = tape.gradient(loss, model.trainable_variables)
        logs |= {
            "rate": float(model.optimizer.learning_rate),
            "steps": int(model.optimizer.iterations),
            "norm": float(keras.ops.norm(model.layers[0].kernel)),
            "mean": float(np.mean(model.get_weights()[0])),
            "gradient": float(tf.linalg.global_norm(gradients)),
            "predicted": model.predict(x, verbose=0, batch_size=7)[3, 2],
            **{
                f"own_{name}": v
                for name, v in model.evaluate(*VALID, batch_size=5, verbose=0, return_dict=True).items()
            },
        }


@pytest.mark.parametrize(
    ("workers", "replicas", "loop"),
    [(0, 1, "train_on_batch"), (2, 2, "fit"), pytest.param(1, 1, "custom", marks=pytest.mark.slow)],
)
def test_a_callback_sees_one_devices_model(train, workers, replicas, loop):
    arguments = {"global_batch_size": 8, "shuffle": False, "loop": loop, "num_microbatches": 4}
    result = train(build, DATA, workers=workers, replicas=replicas, callbacks=[Looks()], **arguments)
    same(result, plain(build, [Looks()]))


class Clips(Callback):
    """As in WGAN: clips weights after every batch, by a compiled function; and restarts the momentum once."""

    def on_train_begin(self, logs=None):
        self.clip = tf.function(lambda kernel: kernel.assign(tf.clip_by_value(kernel, -0.3, 0.3)))

    def on_train_batch_end(self, batch, logs=None):
        self.clip(self.model.layers[0].kernel.value)
        if batch == 2:
            for variable in self.model.optimizer.variables[2:]:
                variable.assign(keras.ops.zeros_like(variable))

    def on_train_batch_begin(self, batch, logs=None):
        bias = self.model.layers[1].bias
        bias.assign_add(keras.ops.full_like(bias, 0.01))


def test_weights_changed_around_steps_are_changed_on_all_workers(train):
    arguments = {"global_batch_size": 8, "shuffle": False, "num_microbatches": 2}
    results = [train(build, DATA, workers=workers, callbacks=[Clips()], **arguments) for workers in (0, 2)]
    assert fingerprint(results[1]) == fingerprint(results[0])
    same(results[1], plain(build, [Clips()]))


class Swaps(Callback):
    """Validates with other weights than it trains: halves, by its own hand."""

    def on_test_begin(self, logs=None):
        self.kept = self.model.get_weights()
        self.model.set_weights([each / 2 for each in self.kept])

    def on_test_end(self, logs=None):
        self.model.set_weights(self.kept)
        self.seen = dict(logs)

    def on_epoch_end(self, epoch, logs=None):
        assert {f"val_{name}": value for name, value in self.seen.items()}.items() <= logs.items()


@pytest.mark.parametrize(
    ("build_model", "swaps"),
    [
        (with_average, keras.callbacks.SwapEMAWeights),
        (build, Swaps),
        pytest.param(with_average, lambda: keras.callbacks.SwapEMAWeights(swap_on_epoch=True), marks=pytest.mark.slow),
    ],
)
def test_weights_swapped_for_validation_are_swapped_on_all_workers(train, build_model, swaps):
    arguments = {"global_batch_size": 8, "shuffle": False, "num_microbatches": 2, "validation_data": VALID}
    result = train(build_model, DATA, workers=2, callbacks=[swaps()], **arguments)
    same(result, plain(build_model, [swaps()], validation_data=VALID))


class Calls(Callback):
    def __init__(self, hook, act):
        super().__init__()
        setattr(self, hook, lambda *_: act(self.model))


def applied(model):
    model.optimizer.apply_gradients([(keras.ops.ones_like(each), each) for each in model.trainable_variables])


@pytest.mark.parametrize(
    ("hook", "act", "error", "words"),
    [
        ("on_epoch_end", lambda model: model.train_on_batch(*DATA), UnsupportedStepInCallbackError, "train_on_batch"),
        ("on_train_batch_end", applied, UnsupportedStepInCallbackError, r"apply_gradients\(\) in on_train_batch_end"),
        ("on_epoch_begin", lambda model: model.compile("sgd", "mse"), UnsupportedModelChangeError, "two fits"),
        ("on_epoch_end", lambda model: model.make_train_function(force=True), UnsupportedModelChangeError, "two fits"),
    ],
)
def test_training_in_a_callback_is_refused_by_name(train, hook, act, error, words):
    with pytest.raises(error, match=words):
        train(linear(), DATA, workers=0, callbacks=[Calls(hook, act)])


def test_another_model_may_be_trained_in_a_callback(train):
    def probe(model):
        other = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
        other.compile("sgd", "mse")
        other.fit(model.predict(DATA[0], verbose=0), DATA[1], verbose=0)

    result = train(linear(), DATA, workers=0, callbacks=[Calls("on_epoch_end", probe)])
    assert fingerprint(result) == fingerprint(train(linear(), DATA, workers=0))
