"""Callbacks that move to another copy inside a running fit decide and write as if they had never moved."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from heliostat.trainer.checkpoints.values import pack, unpack
from heliostat.trainer.errors import CallbackStateError, ConfigurationError
from heliostat.trainer.worker.callback_state import (
    callback_state,
    prepare_take_over,
    restore_callback,
    state_kind,
)
from keras import callbacks

from ..conftest import dense_data

pytestmark = pytest.mark.engine

EPOCHS, BATCHES, RATE = 12, 4, 1.5
MORE_MOMENTS = [(0, None), (0, 2), (5, None), (EPOCHS - 1, 3)]
HOOKS = [
    f"on_{what}_{when}" for what in ("train", "epoch", "train_batch", "test", "test_batch") for when in ("begin", "end")
]


class Relay(callbacks.Callback):
    """Hands every hook to one copy of a callback, and to the next copy from a moment of the run on."""

    def __init__(self, make, moment, *, carry=True):
        super().__init__()
        self.make, self.moment, self.carry = make, moment, carry
        self.now, self.copies = make(), 1

    def set_model(self, model):
        super().set_model(model)
        self.now.set_model(model)

    def set_params(self, params):
        super().set_params(params)
        self.now.set_params(params)

    def move(self, epoch, batch):
        """Move before the epoch's batch (None: before its begin hooks)."""
        if self.moment == (epoch, batch):
            payload = pack([callback_state(self.now)])
            self.now.on_train_end({}) if isinstance(self.now, callbacks.TensorBoard) else None  # its writer is global
            self.now, self.copies = self.make(), self.copies + 1
            self.now.set_params(self.params)
            self.now.set_model(self.model)
            if self.carry:
                prepare_take_over(self.now)
            self.now.on_train_begin({})
            if self.carry:
                restore_callback(self.now, unpack(payload)[0])


def _hook(name):
    def run(self, *arguments, **named):
        if name == "on_epoch_begin":
            self.epoch = arguments[0]
            self.move(self.epoch, None)
        if name == "on_train_batch_begin":
            self.move(self.epoch, arguments[0])
        getattr(self.now, name)(*arguments, **named)

    return run


for _name in HOOKS:
    setattr(Relay, _name, _hook(_name))


@functools.cache
def network():
    """One model for all runs, so that it is traced once, and the weights each of them begins with."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((12,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(5, activation="softmax")]
    )
    optimizer = keras.optimizers.SGD(RATE)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model, model.get_weights()


def run(make, moment=None, *, carry=True, epochs=EPOCHS):
    """A real fit; returns what it did: history, weights, learning rate, and the last copy with its attributes."""
    model, weights = network()
    model.set_weights(weights)
    model.optimizer.learning_rate = RATE
    model.optimizer.iterations.assign(0)
    x, y = dense_data(rows=64)
    relay = Relay(make, moment, carry=carry)
    data = {"x": x[:32], "y": y[:32], "validation_data": (x[32:], y[32:])}
    history = model.fit(**data, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=[relay])
    assert relay.copies == (1 if moment is None else 2), "the run ended before the callback moved"
    return history.history, model.get_weights(), float(model.optimizer.learning_rate), relay.now


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one[1], other[1], strict=True)) and one[0] == other[0]


def attributes(callback, *leave_out):
    hidden = ("_model", "params", "monitor_op", *leave_out)
    return {name: value for name, value in vars(callback).items() if name not in hidden}


# Moments: before an epoch, and before a batch in the middle of one.
EARLY = [
    lambda: callbacks.EarlyStopping("val_loss", patience=4, min_delta=0.02, restore_best_weights=True),
    lambda: callbacks.EarlyStopping("val_accuracy", patience=4, min_delta=0.01, restore_best_weights=True),
    lambda: callbacks.EarlyStopping("val_loss", patience=4, baseline=0.1, start_from_epoch=1),
]


@pytest.mark.parametrize("make", EARLY)
@pytest.mark.parametrize("batch", [2, pytest.param(None, marks=pytest.mark.slow)])
def test_early_stopping_stops_at_the_same_epoch_with_the_same_weights(make, batch):
    whole = run(make)
    epochs = len(whole[0]["loss"])
    assert 3 < epochs < EPOCHS
    moment = (epochs - 2, batch)
    moved = run(make, moment)
    assert same(moved, whole)
    left, right = attributes(moved[3]), attributes(whole[3])
    for one, other in zip(left.pop("best_weights") or [], right.pop("best_weights") or [], strict=True):
        np.testing.assert_array_equal(one, other)
    assert left == right
    assert not same(run(make, moment, carry=False), whole)


@pytest.mark.slow
def test_reduce_lr_on_plateau_reduces_at_the_same_epochs():
    def make():
        return callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=2, cooldown=3)

    whole = run(make)
    rates = whole[0]["learning_rate"]
    cooling = next(epoch for epoch in range(EPOCHS) if rates[epoch] < RATE)  # the epoch after the first reduction
    assert rates[-1] < RATE / 2, "it never reduces after the cooldown"
    for moment in [(cooling - 1, 2), (cooling, None), (cooling + 1, 2)]:
        moved = run(make, moment)
        assert same(moved, whole)
        assert attributes(moved[3]) == attributes(whole[3])
    assert not same(run(make, (cooling, None), carry=False), whole)


@pytest.mark.parametrize("save_freq", [pytest.param("epoch", marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("batch", [2, pytest.param(None, marks=pytest.mark.slow)])
def test_model_checkpoint_writes_the_same_files(save_freq, batch, tmp_path):
    monitor = "val_accuracy" if save_freq == "epoch" else "loss"

    def go(name, moment, carry=True):
        folder = tmp_path / name
        name = "{epoch:02d}" if save_freq == "epoch" else "{epoch:02d}-{batch:02d}"
        result = run(
            lambda: callbacks.ModelCheckpoint(
                str(folder / f"{name}.weights.h5"),
                monitor,
                save_best_only=save_freq == "epoch",
                save_weights_only=True,
                save_freq=save_freq,
            ),
            moment,
            carry=carry,
        )
        return result, {path.name for path in folder.iterdir()}

    whole, files = go("whole", None)
    worse = next(epoch for epoch in range(EPOCHS) if f"{epoch + 1:02d}.weights.h5" not in files)
    moment = (worse if save_freq == "epoch" else 5, batch)
    moved, moved_files = go("moved", moment)
    assert 1 < len(files) < EPOCHS * BATCHES
    assert moved_files == files
    assert attributes(moved[3], "filepath") == attributes(whole[3], "filepath")
    if save_freq == "epoch" or batch is None:
        assert go("afresh", moment, carry=False)[1] != files
    else:
        with pytest.raises(AttributeError, match="_current_epoch"):
            go("afresh", moment, carry=False)


def test_model_checkpoint_compares_between_batches_at_once(tmp_path):
    """Keras chooses the comparison at an epoch's end; the new copy saves before that."""

    def make():
        return callbacks.ModelCheckpoint(tmp_path / "best.keras", "loss", save_best_only=True, save_freq=4)

    assert run(make, (5, 1))[3].best == run(make)[3].best


@pytest.mark.parametrize("append", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("moment", [(5, 2), *(pytest.param(m, marks=pytest.mark.slow) for m in MORE_MOMENTS)])
def test_csv_logger_writes_the_same_file(append, moment, tmp_path):
    def go(name, moment, carry=True):
        path = tmp_path / name
        if append:
            path.write_text("epoch;before\n0;1\n")
        result = run(lambda: callbacks.CSVLogger(path, ";", append), moment, carry=carry)
        return attributes(result[3], "filename", "writer", "csv_file", "append_header"), path.read_text()

    whole = go("whole", None)
    assert go("moved", moment) == whole
    assert len(whole[1].splitlines()) == EPOCHS + (2 if append else 1)
    if moment[0] and not append:
        assert go("afresh", moment, carry=False)[1] != whole[1]


class ExtraLog(callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["zeta"] = 0.5


def test_csv_logger_keeps_its_columns(tmp_path):
    """Logs that have another name on the new chief fill the columns of the file, not others."""
    first, second = (callbacks.CSVLogger(tmp_path / "log.csv") for _ in range(2))
    first.on_train_begin()
    first.on_epoch_end(0, {"loss": 1.0, "val_loss": 2.0})
    prepare_take_over(second)
    second.on_train_begin()
    restore_callback(second, callback_state(first))
    second.on_epoch_end(1, {"accuracy": 0.5, "loss": 0.5})
    rows = list(csv.DictReader(Path(tmp_path / "log.csv").read_text().splitlines()))
    assert rows == [{"epoch": "0", "loss": "1.0", "val_loss": "2.0"}, {"epoch": "1", "loss": "0.5", "val_loss": "NA"}]
    first.on_train_end()
    second.on_train_end()


@pytest.mark.parametrize("torn", ["", "1,0.2"])
@pytest.mark.parametrize("epochs", [0, 1])
def test_csv_rows_written_after_the_state_was_taken_are_written_once(torn, epochs, tmp_path):
    """The chief died inside on_epoch_end, after its row or in the middle of it: the hook runs again."""
    path = tmp_path / "log.csv"
    dead, successor = (callbacks.CSVLogger(path) for _ in range(2))
    dead.on_train_begin()
    for epoch in range(epochs):
        dead.on_epoch_end(epoch, {"loss": 0.5})
    state = callback_state(dead)
    if torn:
        dead.csv_file.write(torn)
        dead.csv_file.flush()
    else:
        dead.on_epoch_end(epochs, {"loss": 0.25})
    prepare_take_over(successor)
    successor.on_train_begin()
    restore_callback(successor, state)
    successor.on_epoch_end(epochs, {"loss": 0.25})
    rows = path.read_text().split()
    assert rows == ["epoch,loss,val_loss", *["0,0.5,NA"] * epochs, f"{epochs},0.25,NA"]
    for each in (dead, successor):
        each.on_train_end()


def test_csv_take_over_on_a_disk_without_the_file_starts_one_with_a_header(tmp_path):
    first, second = callbacks.CSVLogger(tmp_path / "here.csv"), callbacks.CSVLogger(tmp_path / "there.csv")
    first.on_train_begin()
    first.on_epoch_end(0, {"loss": 0.5})
    prepare_take_over(second)
    second.on_train_begin()
    restore_callback(second, callback_state(first))
    second.on_epoch_end(1, {"loss": 0.25})
    assert Path(tmp_path / "there.csv").read_text().split() == ["epoch,loss,val_loss", "1,0.25,NA"]
    for each in (first, second):
        each.on_train_end()


def events(folder):
    """(writer, tag, step) of all scalars and graphs; values of times are no part of it."""
    found = []
    for path in sorted(folder.rglob("events*")):
        for record in tf.data.TFRecordDataset([str(path)]):
            event = tf.compat.v1.Event.FromString(record.numpy())
            found += [(path.parent.name, "graph", event.step)] if event.graph_def else []
            found += [
                (path.parent.name, value.tag, event.step) for value in event.summary.value if value.tag != "keras"
            ]
    return sorted(found)


@pytest.mark.parametrize("moment", [(2, 1), *(pytest.param(m, marks=pytest.mark.slow) for m in [(2, None), (1, 3)])])
def test_tensorboard_writes_the_same_steps(moment, tmp_path):
    pytest.importorskip("tensorboard")

    def go(name, moment, carry=True):
        def make():
            return callbacks.TensorBoard(tmp_path / name, update_freq=3, write_steps_per_second=True)

        result = run(make, moment, carry=carry, epochs=4)
        names = ("_global_train_batch", "_global_test_batch", "_previous_epoch_iterations")
        return [float(getattr(result[3], each)) for each in names], events(tmp_path / name)

    whole = go("whole", None)
    assert ("train", "batch_steps_per_second", 15) in whole[1]
    assert go("moved", moment) == whole
    if moment[1] is None:
        assert go("afresh", moment, carry=False) != whole


def test_tensorboard_records_every_nth_batch_in_the_batch_it_moved_in(tmp_path):
    pytest.importorskip("tensorboard")
    first, second = (callbacks.TensorBoard(tmp_path / name, update_freq=2, write_graph=False) for name in "ab")
    for each in (first, second):
        each.set_model(network()[0])
    first.on_train_begin()
    first.on_train_batch_begin(0)
    state = callback_state(first)
    first.on_train_end()
    second.on_train_begin()
    restore_callback(second, state)
    second.on_train_batch_end(0, {"loss": 1.0})
    second.on_train_batch_begin(1)
    second.on_train_batch_end(1, {"loss": 2.0})
    second.on_train_end()
    assert events(tmp_path / "b") == [("train", "batch_loss", 2)]


class Counter(callbacks.Callback):
    """A user's callback that carries itself: the learning rate shrinks with every new best of a float32."""

    def __init__(self):
        super().__init__()
        self.best, self.history, self.per_batch = np.float32(np.inf), [], np.zeros((0, 2), np.float32)

    def on_train_batch_end(self, batch, logs=None):
        row = np.array([[batch, logs["loss"]]], np.float32)
        self.per_batch = np.concatenate([self.per_batch, row])

    def on_epoch_end(self, epoch, logs=None):
        loss = np.float32(logs["loss"])
        if loss < self.best:
            self.best = loss
            self.history.append({"epoch": epoch, "loss": loss})
            self.model.optimizer.learning_rate = RATE / (1 + len(self.history))

    def get_state(self):
        return {"best": self.best, "history": self.history, "per_batch": self.per_batch}

    def set_state(self, state):
        self.best, self.history, self.per_batch = state["best"], state["history"], state["per_batch"]


@pytest.mark.parametrize("moment", [(3, 2), pytest.param((3, None), marks=pytest.mark.slow)])
def test_a_users_callback_carries_itself(moment):
    whole, moved = run(Counter), run(Counter, moment)
    assert same(moved, whole)
    np.testing.assert_array_equal(moved[3].per_batch, whole[3].per_batch)
    assert moved[3].history == whole[3].history
    assert type(moved[3].best) is np.float32
    assert not same(run(Counter, moment, carry=False), whole)


def test_the_state_is_a_copy():
    counter = Counter()
    counter.per_batch = np.ones((2, 2), np.float32)
    state = callback_state(counter)
    counter.history.append({"epoch": 9})
    counter.per_batch[:] = 7
    assert state["history"] == []
    assert (state["per_batch"] == 1).all()


class MyStopping(callbacks.EarlyStopping):
    pass


class MySchedule(callbacks.LearningRateScheduler):
    pass


class Counting(callbacks.EarlyStopping):
    def get_state(self):
        return {"wait": self.wait}

    def set_state(self, state):
        self.wait = state["wait"]


class OnlyGets(callbacks.Callback):
    def get_state(self):
        return {}


@pytest.mark.parametrize(
    ("make", "how"),
    [
        (callbacks.EarlyStopping, "keras"),
        (callbacks.ReduceLROnPlateau, "keras"),
        (lambda: callbacks.ModelCheckpoint("a.keras"), "keras"),
        (lambda: callbacks.CSVLogger("a.csv"), "keras"),
        (callbacks.TensorBoard, "keras"),
        (MyStopping, "keras"),
        (Counting, "own"),
        (Counter, "own"),
        (lambda: callbacks.LearningRateScheduler(lambda epoch: 0.1), "none"),
        (callbacks.TerminateOnNaN, "none"),
        (callbacks.LambdaCallback, "none"),
        (callbacks.RemoteMonitor, "none"),
        (callbacks.ProgbarLogger, "none"),
        (callbacks.History, "none"),
        (lambda: MySchedule(lambda epoch: 0.1), "lost"),
        (ExtraLog, "lost"),
        (OnlyGets, "lost"),
    ],
)
def test_how_each_is_carried(make, how):
    one = make()
    assert state_kind(one) == how
    state = callback_state(one)
    assert bool(state) == (how in ("keras", "own"))
    other = make()
    restore_callback(other, unpack(pack([state]))[0])
    assert how == "own" or callback_state(other) == state


def test_best_keeps_the_type_that_comparisons_saw():
    stopping = callbacks.EarlyStopping("loss")
    for best in (0.1, np.float32(0.1), np.float64(0.1), ml_dtypes.bfloat16(0.1), np.array(0.1, np.float32)):
        stopping.best = best
        back = unpack(pack([callback_state(stopping)]))[0]["best"]
        assert type(back) is type(best)
        assert back == best
    stopping.best = tf.constant(0.1, tf.float32)
    back = callback_state(stopping)["best"]
    assert type(back) is np.float32
    assert back == np.float32(0.1)


def test_a_state_of_another_callback_is_refused():
    plateau = callbacks.ReduceLROnPlateau()
    with pytest.raises(
        CallbackStateError, match=r"EarlyStopping is not one of its kind: it has \['cooldown_counter'\]"
    ):
        restore_callback(callbacks.EarlyStopping(), callback_state(plateau))
    with pytest.raises(CallbackStateError, match="TerminateOnNaN"):
        restore_callback(callbacks.TerminateOnNaN(), callback_state(plateau))
    with pytest.raises(CallbackStateError, match="compares by 'pickle'"):
        restore_callback(plateau, {"comparison": "pickle"})


def _itself():
    one: list = []
    one.append(one)
    return {"a": one}


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"a": {"b": [1, object()]}}, r"Fails: state\['a'\]\['b'\]\[1\] is a object"),
        ({"a": (1, 2)}, r"state\['a'\] is a tuple"),
        ({"a": np.array(["x"])}, r"state\['a'\] is a ndarray of <U1"),
        ({"a": np.array([None])}, r"state\['a'\] is a ndarray of object"),
        ({"a": np.str_("x")}, r"state\['a'\] is a str_ of <U1"),
        (lambda: {"a": tf.constant(1.0)}, r"state\['a'\] is a EagerTensor"),
        ({"a": {1: 2}}, r"state\['a'\] is a dict whose keys are not all str"),
        ({"a": 1 << 9000}, r"state\['a'\] is an int of 9001 bits"),
        (_itself(), "or holds itself"),
        ([1], "returned a list"),
        (None, "returned a NoneType"),
    ],
)
def test_a_get_state_that_returns_something_else_is_named(state, where):
    class Fails(callbacks.Callback):
        def get_state(self):
            return state() if callable(state) else state

        def set_state(self, state):
            raise NotImplementedError

    with pytest.raises(ConfigurationError, match=where) as caught:
        callback_state(Fails())
    assert "callback Fails" in str(caught.value)
