"""Calls in the calling thread: the bits and the errors of TensorFlow's own calls."""

from __future__ import annotations

import dataclasses
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.trainer import TrainingFailedError
from heliostat.trainer.engine.per_replica import ONE_AT_A_TIME, USUAL, InlineCall, PerReplica
from heliostat.trainer.engine.runtime import set_up
from heliostat.trainer.worker import worker

from ..conftest import dense_data, fingerprint, text_data
from ..models import attention, chapter, linear, normalised, recurrent

pytestmark = pytest.mark.engine


def traced(function, *examples):
    return tf.function(function, autograph=False).get_concrete_function(*examples)


@pytest.fixture
def one_at_a_time(monkeypatch):
    """Workers made inside compute one operation at a time, as in a process with one thread; returns their calls."""
    called = []
    original = InlineCall.__call__

    def noted(self, *arguments):
        called.append(self)
        return original(self, *arguments)

    monkeypatch.setattr(InlineCall, "__call__", noted)
    monkeypatch.setattr(
        worker, "set_up", lambda **arguments: dataclasses.replace(set_up(**arguments), one_at_a_time=True)
    )
    return called


@pytest.mark.parametrize(
    ("build", "make_data"),
    [
        (chapter, text_data),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in ((normalised, dense_data), (attention, text_data), (recurrent, text_data))
        ),
    ],
)
def test_a_run_has_the_same_bits_with_calls_of_either_kind(train, request, build, make_data):
    arguments = {"workers": 0, "validation_data": make_data(rows=23, seed=1), "epochs": 1}
    usual = fingerprint(train(build, make_data(), **arguments))
    called = request.getfixturevalue("one_at_a_time")
    assert fingerprint(train(build, make_data(), **arguments)) == usual
    outputs = {len(call.function.outputs) for call in called}
    assert {0, 3} <= outputs, "neither a step nor an update was called inline"


def test_operations_run_in_the_calling_thread():
    def where(x):
        return tf.numpy_function(lambda _: np.int64(threading.get_ident()), [x], tf.int64)

    (found,) = InlineCall(traced(where, tf.zeros(())))(tf.zeros(()))
    assert int(found) == threading.get_ident()


@pytest.mark.parametrize("count", [2, 3])
def test_loops_and_branches_are_left_to_the_usual_executor(count):
    def turned(x):
        _, y = tf.while_loop(lambda i, _: i < count, lambda i, y: (i + 1, -y), (0, x))
        return tf.cond(tf.reduce_sum(y) > 0, lambda: y + 1, lambda: y - 1)

    x = tf.constant([1.0, 2.0])
    function = traced(turned, x)
    call = InlineCall(function)
    for _ in range(2):
        (found,) = call(x)
        np.testing.assert_array_equal(found, function(x))
        assert call.executor == USUAL
    plain = InlineCall(traced(lambda x: x + 1, x))
    plain(x)
    assert plain.executor == ONE_AT_A_TIME


def test_other_threads_go_on_meanwhile():
    beats, over = [], threading.Event()

    def beat():
        while not over.wait(0.0005):
            beats.append(1)

    def long(x):
        for _ in range(20):
            x = tf.linalg.matmul(x, x) * 1e-3
        return x

    x = tf.ones((1000, 1000))
    call = InlineCall(traced(long, x))
    thread = threading.Thread(target=beat)
    thread.start()
    before = len(beats)
    call(x)
    during = len(beats) - before
    over.set()
    thread.join()
    assert during > 5


class LooksUp(keras.layers.Layer):
    def call(self, x):
        return tf.gather(tf.ones((3, 4)), tf.cast(x[:, 0] * 0 + 7, tf.int32))


def test_an_error_says_where_in_the_model_it_happened(train, one_at_a_time):
    def build():
        model = keras.Sequential([keras.Input((12,)), LooksUp(), keras.layers.Dense(5, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    with pytest.raises((TrainingFailedError, tf.errors.InvalidArgumentError)) as caught:
        train(build, dense_data(), workers=0, epochs=1)
    text = str(caught.value.__cause__ or caught.value)
    assert one_at_a_time
    assert "indices[0] = 7 is not in [0, 3)" in text
    assert "test_per_replica.py" in text


def test_an_error_of_an_update_is_raised_at_once():
    variable = tf.Variable(0.0)

    def count(x):
        variable.assign_add(1.0)
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x > 0), [x])]):
            return tf.identity(x)

    call = InlineCall(traced(count, tf.ones(2)))
    with pytest.raises(tf.errors.InvalidArgumentError):
        call(tf.constant([-1.0, 1.0]))
    assert float(variable) <= 1.0, "it was called again"


def test_workers_with_several_threads_or_devices_compute_the_usual_way(train, request, monkeypatch):
    found = []
    original = PerReplica.__init__

    def noted(self, *arguments, **named):
        original(self, *arguments, **named)
        found.append(self.inline)

    monkeypatch.setattr(PerReplica, "__init__", noted)
    train(linear(), dense_data(), workers=0, epochs=1)
    request.getfixturevalue("one_at_a_time")
    train(linear(), dense_data(), workers=0, replicas=2, epochs=1)
    assert found == [None, None]
