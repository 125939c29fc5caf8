"""The flat update and the update by variable are one computation."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.trainer.engine import layout as layout_module
from heliostat.trainer.engine import update
from heliostat.trainer.engine.flat import pieces_of
from heliostat.trainer.engine.layout import VectorLayout
from heliostat.trainer.engine.tensors import host_view

from ..conftest import dense_data, fingerprint, text_data
from ..models import chapter, linear, normalised

pytestmark = pytest.mark.engine

ELEMENTWISE = {
    "nadam": lambda: keras.optimizers.Nadam(1e-2),
    "adamw": lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.1, amsgrad=True),
    "ema": lambda: keras.optimizers.SGD(1e-2, momentum=0.9, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3),
    "rmsprop": lambda: keras.optimizers.RMSprop(1e-2, momentum=0.5, centered=True),
    "schedule": lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(1e-2, 3, 0.5)),
}


def watch(monkeypatch, *, flat):
    """Note whether the flat update was chosen; with ``flat=False`` choose the other."""
    chosen = []
    original = update.flat_state

    def choose(built, gradients):
        chosen.append(original(built, gradients) if flat else None)
        return chosen[-1]

    monkeypatch.setattr(update, "flat_state", choose)
    return chosen


@pytest.mark.parametrize(
    "name",
    ["nadam", "ema", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adamw", "rmsprop", "schedule"))],
)
def test_one_long_vector_gives_the_bits_of_many_variables(train, monkeypatch, name):
    build, data = linear(optimizer=ELEMENTWISE[name]), dense_data()
    flat = watch(monkeypatch, flat=True)
    long = train(build, data, workers=0)
    assert flat[0] is not None
    watch(monkeypatch, flat=False)
    assert fingerprint(train(build, data, workers=0)) == fingerprint(long)


def test_the_chapters_model_is_updated_flat_with_the_same_bits(train, monkeypatch):
    data = text_data()
    flat = watch(monkeypatch, flat=True)
    long = train(chapter, data, workers=1, replicas=2)
    assert flat[0] is not None
    watch(monkeypatch, flat=False)
    assert fingerprint(train(chapter, data, workers=1, replicas=2)) == fingerprint(long)


@pytest.mark.parametrize("sizes", [(32, 16, 64), (32, 16, 5, 16), (7, 32), (3,), (16,)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pieces_of_a_vector_are_its_elements_in_order(sizes, dtype):
    vector = np.arange(sum(sizes), dtype=dtype)
    pieces = tf.function(lambda long: pieces_of(long, sizes))(tf.constant(vector))
    assert [np.ravel(piece).size for piece in pieces] == list(sizes)
    np.testing.assert_array_equal(np.concatenate([np.ravel(piece) for piece in pieces]), vector)


def test_variables_that_share_a_vectors_memory_change_by_themselves():
    long = tf.Variable(np.arange(48, dtype="float32"))
    variables = [tf.Variable(tf.zeros((16, 1))), tf.Variable(tf.zeros((32,)))]

    @tf.function
    def hand_out():
        for piece, variable in zip(pieces_of(long.read_value(), (16, 32)), variables, strict=True):
            variable.assign(tf.reshape(piece, variable.shape))

    hand_out()
    first, second = (host_view(variable.read_value()) for variable in variables)
    assert second.ctypes.data - first.ctypes.data == 64  # one memory, or the test shows nothing
    variables[0].assign_add(tf.ones((16, 1)))
    variables[1].scatter_nd_update([[0]], [-1.0])
    np.testing.assert_array_equal(long.numpy(), np.arange(48))
    np.testing.assert_array_equal(np.ravel(variables[0]), np.arange(1, 17))
    np.testing.assert_array_equal(variables[1].numpy(), [-1, *range(17, 48)])


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(1e-2, clipnorm=0.1),
        lambda: keras.optimizers.Adam(1e-2, global_clipnorm=0.1),
        lambda: keras.optimizers.Lamb(1e-2),
        lambda: keras.optimizers.Muon(1e-2),
    ],
    ids=["clipnorm", "global_clipnorm", "lamb", "muon"],
)
def test_optimizers_that_look_at_whole_variables_keep_them(train, monkeypatch, optimizer):
    flat = watch(monkeypatch, flat=True)
    train(linear(optimizer=optimizer), dense_data(rows=16), workers=0, epochs=1)
    assert flat == [None]


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(lambda: keras.optimizers.Adam(1e-2, use_ema=True), marks=pytest.mark.slow),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2), 2.0**10, dynamic_growth_steps=2),
    ],
    ids=["ema", "loss scale"],
)
def test_replicas_get_what_they_read_and_no_more_of_the_optimizers_state(train, monkeypatch, optimizer):
    updates = []
    original = update.Update.__init__

    def noted(self, *arguments):
        original(self, *arguments)
        updates.append(self)

    monkeypatch.setattr(update.Update, "__init__", noted)
    watch(monkeypatch, flat=False)
    build, data = linear(optimizer=optimizer), dense_data()
    alone, four = (train(build, data, workers=1, replicas=replicas) for replicas in (1, 4))
    assert fingerprint(four) == fingerprint(alone)
    built = updates[-1]._built
    scalars = [variable for variable in built.optimizer.variables if variable.shape == ()]
    assert len(built.optimizer.variables) >= len(scalars) + 2 * len(built.trainable)
    assigned = [op for op in updates[-1]._update.graph.get_operations() if op.type == "AssignVariableOp"]
    assert len(assigned) == 3 * (len(built.trainable) + len(scalars))


def test_a_callback_that_looks_at_the_optimizer_sees_its_state(train):
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            optimizer = self.model.optimizer
            seen.append((int(optimizer.iterations.numpy()), float(abs(optimizer.variables[2].numpy()).max())))

    train(linear(optimizer=lambda: keras.optimizers.Adam(1e-2)), dense_data(), workers=0, callbacks=[Look()])
    assert [steps for steps, _ in seen] == [5, 10]
    assert all(momentum > 0 for _, momentum in seen)


def test_optimizer_state_changed_by_a_callback_counts(train):
    class Reset(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            for variable in self.model.optimizer.variables[2:]:
                variable.assign(keras.ops.zeros_like(variable))

    build = linear(optimizer=lambda: keras.optimizers.Adam(1e-2))
    plain, one, three = (
        train(build, dense_data(), workers=workers, callbacks=callbacks)
        for workers, callbacks in ((0, []), (0, [Reset()]), (3, [Reset()]))
    )
    assert fingerprint(one) == fingerprint(three)
    assert one.sha256 != plain.sha256


def test_a_callback_between_steps_sees_the_optimizers_state_and_the_metrics_of_the_step(train):
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append((float(abs(self.model.optimizer.variables[2].numpy()).max()), logs["loss"]))
            assert float(self.model.metrics[0].result()) == pytest.approx(logs["loss"])

    train(linear(optimizer=lambda: keras.optimizers.Adam(1e-2)), dense_data(), workers=0, epochs=1, callbacks=[Look()])
    assert len({momentum for momentum, _ in seen}) == 5


class UnregisteredSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that cannot be copied through its configuration."""

    def __call__(self, step):
        return 0.1 / (1.0 + keras.ops.cast(step, "float32"))

    def get_config(self):
        return {}


def test_a_schedule_of_the_users_own_is_used_where_it_is(train, monkeypatch):
    flat = watch(monkeypatch, flat=True)
    build = linear(optimizer=lambda: keras.optimizers.SGD(UnregisteredSchedule()))
    results = [train(build, dense_data(), workers=workers, epochs=1) for workers in (0, 2)]
    assert flat == [None, None, None]
    assert fingerprint(results[0]) == fingerprint(results[1])


@pytest.mark.parametrize("gradient_dtype", [None, "bfloat16"])
@pytest.mark.slow
def test_gradients_in_several_buckets_have_the_bits_of_one(train, request, monkeypatch, gradient_dtype):
    data, arguments = dense_data(), {"gradient_dtype": gradient_dtype, "epochs": 1}
    joined = fingerprint(train(normalised, data, workers=0, **arguments))
    found = []
    original = VectorLayout.rounded

    def noted(self, gradient_dtype):
        found.append(original(self, gradient_dtype))
        return found[-1]

    monkeypatch.setattr(VectorLayout, "rounded", noted)
    monkeypatch.setattr(layout_module, "MAX_MEAN_ELEMENTS", 40)
    for workers, replicas, on_devices in ((0, 1, False), (3, 1, False), (2, 2, False), (1, 2, True), (2, 2, True)):
        if on_devices:  # from here on
            request.getfixturevalue("as_if_gpus")
        result = train(normalised, data, workers=workers, replicas=replicas, **arguments)
        assert fingerprint(result) == joined, f"{workers} x {replicas}"
    averages = ["float32", "float64", "float64"]
    dtypes = [gradient_dtype or "float32"] * 4 + averages  # large, small, large, small
    assert len(found) == 1 + 3 + 2 + 1 + 2
    assert all([dtype.name for dtype, _ in each.buckets] == dtypes for each in found)
