"""Models as people publish them: without `call()`, made of other models, with a schedule of their own."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.trainer.errors import ModelError
from heliostat.trainer.jobs import WEIGHTS_FILE
from keras import layers, ops

from .conftest import use_floats
from .one_device import largest_difference

pytestmark = pytest.mark.engine

X = np.random.default_rng(5).normal(size=(24, 6))
CUT = {"batch_size": 24, "epochs": 2, "shuffle": False, "verbose": 0}


def net(*units, **named):
    return keras.Sequential([layers.Dense(each, kernel_initializer="ones", **named) for each in units])


class Halves(keras.Model):
    """Has models in its constructor and no `get_config`; its `call()` takes codes, which no step passes."""

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def call(self, codes):
        return self.decoder(codes)

    def train_step(self, x):
        with tf.GradientTape() as tape:
            found = self.decoder(self.encoder(x))
            loss = self.compute_loss(x=x, y=x, y_pred=found)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"mine": loss, **self.compute_metrics(x, x, found)}


class NoCall(Halves):
    """As the GANs of Keras's examples; one player."""

    call = keras.Model.call


class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Has no `get_config`."""

    def __call__(self, step):
        return 0.001 * ops.cast(step + 1, "float64")


def halves(kind):
    def build():
        use_floats("float64")
        model = kind(net(2), net(6))
        model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
        return model

    return build


def own_schedule():
    use_floats("float64")

    class Local(layers.Layer):
        def call(self, x):
            return 2 * x

    model = keras.Sequential([keras.Input((6,)), Local(), layers.Dense(6, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(Warmup()), "mse")
    return model


@pytest.mark.parametrize("kind", [Halves, pytest.param(NoCall, marks=pytest.mark.slow)])
def test_a_model_that_keras_cannot_write_trains_and_its_weights_are_kept(train, kind, capfd):
    plain = halves(kind)()
    history = plain.fit(X, **CUT).history
    result = train(halves(kind), X, workers=0, num_microbatches=2, shuffle=False, global_batch_size=24, verbose=2)
    for name in ("mine", "mae"):
        np.testing.assert_allclose(result.history[name], history[name], rtol=1e-9)
    assert result.model_path.name == WEIGHTS_FILE
    assert capfd.readouterr().out.count("Keras cannot write this model as a file") == 1
    assert WEIGHTS_FILE in json.loads((result.run_dir / "run.json").read_text())["notes"][0]
    found = result.model()
    assert largest_difference(found.get_weights(), plain.get_weights()) < 1e-10
    with pytest.raises(ModelError, match="the function that has made the model is not known here"):
        type(result)(**{**vars_of(result), "build_model": None}).model()


def vars_of(result):
    return {name: getattr(result, name) for name in result.__slots__}


def test_a_model_with_parts_that_keras_cannot_write_is_written_without_them(train):
    plain = own_schedule()
    plain.fit(X, X, **CUT)
    result = train(own_schedule, (X, X), workers=0, num_microbatches=2, shuffle=False, global_batch_size=24)
    assert result.model_path.name == "model.keras"
    found = result.model()  # its layer is of a class that build_model makes
    assert largest_difference(found.get_weights(), plain.get_weights()) < 1e-10


def test_layers_of_which_nobody_knows_the_shapes_are_named(train):
    class Silent(NoCall):
        train_step = keras.Model.train_step

    with pytest.raises(ModelError, match=r"has no call\(\), and nothing says which shapes its layers sequential"):
        train(halves(Silent), X, workers=0)


def test_what_keras_cannot_trace_is_not_said_to_be_the_datas_fault(train):
    def build():
        with keras.RematScope(mode="full"):
            inputs = keras.Input((6,))
            model = keras.Model(inputs, layers.Dense(6)(inputs))
        model.compile("sgd", "mse")
        return model

    with pytest.raises(ValueError, match="custom_gradient"):
        build().fit(X, X, verbose=0)
    with pytest.raises(ModelError, match=r"cannot trace this model(.|\n)*custom_gradient(.|\n)*not at fault"):
        train(build, (X, X), workers=0)
