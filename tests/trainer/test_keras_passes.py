"""`evaluate`, `predict` and the model with Keras's arguments; float64 against plain Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from heliostat.data import DatasetExistsError
from heliostat.trainer import ConfigurationError
from keras import layers

from .conftest import use_floats
from .helpers import local_trainer
from .models import linear
from .test_keras_arguments import CLASSES, ROWS, WEIGHTS, X, Y, classifier

pytestmark = pytest.mark.engine


class Seen(keras.callbacks.Callback):
    """Notes hooks with their logs."""

    def __init__(self):
        super().__init__()
        self.hooks = []

    def on_test_begin(self, logs=None):
        self.hooks.append(("test begins", self.params["steps"], self.model.count_params()))

    def on_test_end(self, logs=None):
        self.hooks.append(("test ends", dict(logs)))

    def on_predict_begin(self, logs=None):
        self.hooks.append(("predict begins", self.params["steps"]))

    def on_predict_end(self, logs=None):
        self.hooks.append(("predict ends", logs))


class SeenBatches(Seen):
    def on_predict_batch_end(self, batch, logs=None):
        self.hooks.append((batch, logs["outputs"].shape))


@pytest.fixture
def trained(tmp_path):
    """A trainer of two workers after a fit, and plain Keras's model after the same."""
    use_floats("float64")
    model = classifier()()
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    with local_trainer(classifier(), tmp_path, workers=2, num_microbatches=2) as trainer:
        trainer.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
        yield trainer, model


def test_evaluate_and_predict_take_keras_arguments(trained, tmp_path):
    trainer, model = trained
    for arguments in ({}, {"sample_weight": WEIGHTS}, {"batch_size": 5, "steps": 3}, {"steps": 4}):
        want = model.evaluate(X, Y, verbose=0, **arguments)
        np.testing.assert_allclose(trainer.evaluate(X, Y, return_dict=False, **arguments), want, rtol=1e-10)
        assert trainer.evaluate((X, Y), **arguments) == pytest.approx(
            model.evaluate(X, Y, verbose=0, return_dict=True, **arguments), rel=1e-10
        )
    want = model.predict(X, batch_size=5, steps=3, verbose=0)
    assert want.shape == (15, CLASSES)
    np.testing.assert_allclose(trainer.predict(X, batch_size=5, steps=3), want, rtol=1e-10)

    ours, theirs = SeenBatches(), SeenBatches()
    got = trainer.evaluate(X, Y, 8, callbacks=[ours])
    trainer.predict(X, 8, callbacks=ours)
    want = model.evaluate(X, Y, batch_size=8, verbose=0, callbacks=[theirs], return_dict=True)
    model.predict(X, batch_size=8, verbose=0, callbacks=[theirs])
    assert (got, ours.hooks.pop(1)) == (pytest.approx(want), ("test ends", pytest.approx(theirs.hooks.pop(1)[1])))
    assert (ours.hooks, len(ours.hooks)) == (theirs.hooks, 9)

    np.testing.assert_allclose(trainer.model.get_weights()[0], model.get_weights()[0], rtol=1e-10)
    assert trainer.model is trainer.model
    trainer.save(tmp_path / "there" / "model.keras")
    saved = keras.models.load_model(tmp_path / "there" / "model.keras")
    np.testing.assert_allclose(saved.predict(X, verbose=0), trainer.predict(X), rtol=1e-10)
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["model.keras"]

    written = trainer.predict(X, 8, output=tmp_path / "written")
    assert len(written) == ROWS
    rows = next(iter(written.batches(ROWS, shuffle=False)))["prediction"]
    np.testing.assert_array_equal(rows, trainer.predict(X, 8))
    with pytest.raises(DatasetExistsError):
        trainer.predict(X, output=tmp_path / "written")


@pytest.mark.slow
def test_what_a_callback_of_a_pass_may_not_do_is_refused(trained):
    trainer, _ = trained

    class Changes(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            self.model.set_weights([weight + 1 for weight in self.model.get_weights()])

    class Looks(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            pass

    with pytest.raises(ConfigurationError, match="changed weights in on_test_begin"):
        trainer.evaluate(X, Y, callbacks=[Changes()])
    with pytest.raises(ConfigurationError, match="Looks has on_test_batch_end"):
        trainer.evaluate(X, Y, callbacks=[Looks()])
    with pytest.raises(ConfigurationError, match=r"save\('model.h5'\): it takes a path or URI that ends with '.keras'"):
        trainer.save("model.h5")
    with pytest.raises(ConfigurationError, match=r"output=3; it takes the path or URI"):
        trainer.predict(X, output=3)


@pytest.mark.slow
def test_before_any_fit_the_model_is_that_with_which_one_begins(tmp_path):
    with local_trainer(linear(), tmp_path) as trainer:
        new = trainer.model
        new.build(X.shape)
        got = trainer.evaluate(X, Y)
        assert new.evaluate(X, Y, verbose=0) == pytest.approx([got["loss"], got["accuracy"]], rel=1e-5)
        trainer.fit(X, Y, verbose=0)
        assert trainer.model is not new


@pytest.mark.slow
def test_outputs_of_several_parts_are_columns(tmp_path):
    inputs = keras.Input((5,))
    outputs = {"one": layers.Dense(2)(inputs), "more": [layers.Dense(1)(inputs), layers.Dense(3)(inputs)]}

    def build():
        model = keras.models.clone_model(keras.Model(inputs, outputs))
        model.compile("sgd")
        return model

    with local_trainer(build, tmp_path, workers=3, num_microbatches=4) as trainer:
        written = trainer.predict(X, 4, output=tmp_path / "written")
        found, rows = trainer.predict(X, 4), next(iter(written.batches(ROWS, shuffle=False)))
    assert sorted(rows) == ["more.0", "more.1", "one"]
    np.testing.assert_array_equal(rows["one"], found["one"])
    np.testing.assert_array_equal(rows["more.1"], found["more"][1])
