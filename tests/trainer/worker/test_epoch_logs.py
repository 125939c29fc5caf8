"""What callbacks put into an epoch's logs is kept as Keras keeps it, or left out with a word; the run goes on."""

from __future__ import annotations

import json
import math

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from heliostat.trainer.checkpoints.store import CheckpointStore
from heliostat.trainer.worker.epoch_logs import MAX_NUMBERS, plain_logs

from ..conftest import dense_data, written_epochs
from ..faults import events_of
from ..models import linear

pytestmark = pytest.mark.engine


class Confusion(keras.callbacks.Callback):
    """Puts a confusion matrix into the logs, and an object."""

    def on_epoch_end(self, epoch, logs=None):
        logs["confusion"] = np.arange(4).reshape(2, 2) + epoch
        logs["drift"] = tf.constant(0.5)
        logs["figure"] = object()


class Later(keras.callbacks.Callback):
    """Hears what the callback before it has put there, and replaces a number by something that is none."""

    def on_epoch_end(self, epoch, logs=None):
        logs["again"] = logs["confusion"].sum()
        logs["accuracy"] = {1, 2}


@pytest.mark.parametrize("workers", [0, 2])
def test_arrays_are_kept_as_lists_and_objects_are_left_out_with_a_warning(train, workers, capfd):
    result = train(linear(), dense_data(37), workers=workers, epochs=3, callbacks=[Confusion(), Later()], verbose=2)
    assert result.history["confusion"] == [[[0, 1], [2, 3]], [[1, 2], [3, 4]], [[2, 3], [4, 5]]]
    assert result.history["drift"] == [0.5] * 3
    assert result.history["again"] == [6, 10, 14]
    assert set(result.history) == {"loss", "confusion", "drift", "again"}
    assert [each["logs"]["confusion"] for each in written_epochs(result)] == result.history["confusion"]
    said = capfd.readouterr().out
    for callback, what, key in (("Confusion", "a object", "figure"), ("Later", "a set", "accuracy")):
        assert said.count(f"the callback {callback} puts {what} into the logs of an epoch, under '{key}'") == 1
    assert {each["key"] for each in events_of(result.run_dir, "log_left_out")} == {"figure", "accuracy"}
    store = CheckpointStore(str(result.run_dir / "checkpoints"))
    assert [store.manifest(name).epoch for name in store.names()][-1] == 3


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (3, 3),
        (True, True),
        (None, None),
        ("text", "text"),
        (np.float32(0.25), 0.25),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (ml_dtypes.bfloat16(0.5), 0.5),
        (np.array(2), 2),
        (lambda: tf.constant([1.5, math.inf]), [1.5, math.inf]),
        ((1, np.float64(2.0)), [1, 2.0]),
        ({"a": np.ones(2, np.float16)}, {"a": [1.0, 1.0]}),
    ],
)
def test_what_is_kept(value, kept):
    found, left_out = plain_logs({"it": value() if callable(value) else value})
    assert (found, left_out) == ({"it": kept}, {})
    assert type(found["it"]) is type(kept)
    json.dumps(found)


@pytest.mark.parametrize(
    ("logs", "left_out"),
    [
        ({"it": np.array([None])}, {"it": "an array of object"}),
        ({"it": [1, {"a": print}]}, {"it": "a builtin_function_or_method (at [1]['a'])"}),
        ({"it": np.zeros(MAX_NUMBERS + 1)}, {"it": "a ndarray of 100,001 values, and at most 100,000 are kept"}),
        ({"it": 1 << 9000}, {"it": "a int"}),
        ({3: 1.0}, {"3": "under a key that is a int"}),
    ],
)
def test_what_is_left_out_is_described(logs, left_out):
    assert plain_logs({"loss": 1.0, **logs}) == ({"loss": 1.0}, left_out)


def test_a_list_that_holds_itself_is_left_out():
    one: list = []
    one.append(one)
    assert "nested more than 8 deep" in plain_logs({"it": one})[1]["it"]
