"""What callbacks set before the first step is in the traced step, on every worker; what the step reads is followed.

Two workers, of which the chief alone runs callbacks, against plain Keras on one device in float64.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from heliostat.trainer.errors import UnsupportedModelAttributeError
from heliostat.trainer.worker.attributes import Attributes
from keras.callbacks import Callback

from ..conftest import dense_data, fingerprint
from ..helpers import die, local_trainer
from .test_hook_model import DATA, build, plain, same

pytestmark = pytest.mark.engine

SETTINGS = SimpleNamespace(share=0.0)  # beside the model: what the script keeps its settings in
FACTOR = 0.0
JOB = {"global_batch_size": 8, "shuffle": False, "num_microbatches": 2}


class Shared(keras.Model):
    """Its loss reads an attribute of its own, one of an object beside it, and a global."""

    share = 0.0

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss + (self.share + SETTINGS.share + FACTOR) * keras.ops.mean(keras.ops.square(y_pred))


def shared():
    plain_one = build()
    model = Shared(plain_one.inputs, plain_one.outputs)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return model


class SetsBefore(Callback):
    """Sets Python values in each hook before the first step, and once more when it is too late."""

    def on_train_begin(self, logs=None):
        global FACTOR
        self.model.share = 0.5
        FACTOR = 0.25

    def on_epoch_begin(self, epoch, logs=None):
        SETTINGS.share = 1.0 + epoch

    def on_train_batch_begin(self, batch, logs=None):
        self.model.layers[1].activation_share = 3.0
        self.model.share = 0.75


def begin_again():
    global FACTOR
    SETTINGS.share = FACTOR = 0.0


@pytest.fixture
def settings_again():
    yield
    begin_again()


def test_python_values_set_before_the_first_step_are_in_the_trace(train, settings_again, capsys):
    expected = plain(shared, [SetsBefore()])
    results = []
    for workers, loop in ((2, "fit"), (0, "train_on_batch")):
        begin_again()
        results.append(train(shared, DATA, workers=workers, loop=loop, callbacks=[SetsBefore()], verbose=2, **JOB))
        same(results[-1], expected)
    assert fingerprint(results[0]) == fingerprint(results[1])
    assert capsys.readouterr().out.count("a traced step does not see that") == 2, "said once a run"


class Annealed(keras.losses.Loss):
    """Has a variable, as people warm up the KL term of a VAE."""

    def __init__(self, name="annealed"):
        super().__init__(name=name)
        self.share = keras.Variable(0.0, trainable=False)

    def call(self, y_true, y_pred):
        error = keras.losses.sparse_categorical_crossentropy(y_true, y_pred)
        return error + self.share * keras.ops.mean(keras.ops.square(y_pred), -1)


class Slower(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule with a variable."""

    def __init__(self):
        super().__init__()
        self.factor = keras.Variable(1.0, trainable=False)

    def __call__(self, step):
        return 0.1 * self.factor

    def get_config(self):
        return {}


def annealed():
    model = build()
    model.compile(keras.optimizers.SGD(Slower()), Annealed())
    return model


class Anneals(Callback):
    def on_train_begin(self, logs=None):
        self.model.loss.share.assign(0.25)

    def on_epoch_begin(self, epoch, logs=None):
        self.model.loss.share.assign_add(0.25)

    def on_train_batch_end(self, batch, logs=None):
        self.model.optimizer._learning_rate.factor.assign(1.0 / (2 + batch))

    def on_epoch_end(self, epoch, logs=None):
        logs["share"] = float(self.model.loss.share)


def test_variables_of_losses_and_schedules_are_followed(train):
    results = [train(annealed, DATA, workers=workers, callbacks=[Anneals()], **JOB) for workers in (0, 2)]
    assert fingerprint(results[0]) == fingerprint(results[1])
    same(results[1], plain(annealed, [Anneals()]))


class Draws(Callback):
    """Adds noise to the weights: from numpy, from Python, and from Keras's own generator."""

    def on_train_batch_end(self, batch, logs=None):
        bias = self.model.layers[0].bias
        noise = np.random.normal() + random.random()
        bias.assign_add((noise + keras.random.normal(bias.shape, dtype="float64")) / 10)

    def on_epoch_begin(self, epoch, logs=None):
        self.model.drawn = float(np.random.normal())


class Everything(Callback):
    """State of a callback that is carried, beside attributes and variables that are."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.loss.share.assign(self.model.loss.share + np.random.uniform())
        self.model.share_of_epoch = 0.5 * epoch


def everything():
    return [Anneals(), Everything(), Draws()]


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 1, 4, 7])
def test_the_chief_dies_and_a_worker_joins_late(train, at, tmp_path, step):
    undisturbed = fingerprint(train(annealed, DATA, workers=0, epochs=3, callbacks=everything(), **JOB))
    at("compute", step, die, worker=0)
    with local_trainer(annealed, tmp_path, workers=2, num_microbatches=2) as trainer:
        job = {name: value for name, value in JOB.items() if name != "num_microbatches"}
        result = trainer.fit(DATA, epochs=3, verbose=0, callbacks=everything(), **job)
    assert fingerprint(result) == undisturbed


class Replaces(Callback):
    def on_train_begin(self, logs=None):
        self.model.penalty = keras.regularizers.L2(0.1)


def test_what_other_workers_cannot_have_is_refused_by_name(train):
    with pytest.raises(UnsupportedModelAttributeError, match=r"sets .*penalty to a L2 before the first step"):
        train(build, dense_data(rows=8), workers=2, epochs=1, callbacks=[Replaces()])


def test_values_are_found_by_their_paths_in_another_copy_of_the_model():
    def made():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5), keras.layers.Dense(2)])
        model.compile("adam", "mse", metrics=["mae"])
        model.settings = {"shares": [1.0, 2.0], "window": (1, 2)}
        model.value = 1.0  # named as what the path of a variable ends with
        return model, Attributes(model)

    (one, found), (other, there) = made(), made()
    found.note()
    assert found.changes() == {}
    one.layers[0].rate = 0.25
    one.layers[1].trainable = False
    one.optimizer.beta_1 = 0.5
    one.settings["shares"][1] = 3.0
    one.settings["window"] = (2, 3)
    one.kernel_scale = np.arange(3.0)
    one.value = 2.0
    one.predict(np.ones((2, 3)), verbose=0)  # Keras's own attributes are none of these
    there.apply(found.changes())
    assert (other.layers[0].rate, other.optimizer.beta_1, other.value) == (0.25, 0.5, 2.0)
    assert (dict(other.settings)["shares"], dict(other.settings)["window"]) == ([1.0, 3.0], (2, 3))
    assert [len(other.trainable_variables), other.kernel_scale.tolist()] == [0, [0.0, 1.0, 2.0]]
    assert {name.partition("\n")[2] for name in found.changes()} >= {"rate", "beta_1", "kernel_scale"}
