"""Streams with `steps_per_epoch`, endless ones above all, and arrays in parts, against plain Keras in float64."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.data import ShardError
from heliostat.trainer import ConfigurationError, TrainingFailedError

from .conftest import use_floats
from .faults import events_of
from .helpers import die, local_trainer
from .one_device import fitted, same_history

pytestmark = pytest.mark.engine

ROWS, BATCH = 40, 8
X = np.random.default_rng(0).normal(size=(ROWS, 6))
Y = np.tanh(X.sum(1, keepdims=True))
SIGNATURE = (tf.TensorSpec((None, 6), tf.float64), tf.TensorSpec((None, 1), tf.float64))


def linear():
    use_floats("float64")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile("adam", "mse", metrics=["mae"])
    return model


class Source:
    """Batches of the rows, over and over; counts those that were asked for."""

    def __init__(self, most=None, rows=BATCH):
        self.count, self.most, self.rows = 0, most, rows

    def __call__(self):
        number = 0
        while self.most is None or number < self.most:
            places = np.arange(number * self.rows, (number + 1) * self.rows) % ROWS
            self.count += 1
            yield X[places], Y[places]
            number += 1

    @property
    def function(self):
        def batches():
            yield from self()

        return batches


class Batches(keras.utils.PyDataset):
    def __init__(self, number=None):
        super().__init__()
        self.number = number

    @property
    def num_batches(self):
        return self.number

    def __getitem__(self, index):
        places = np.arange(index * BATCH, (index + 1) * BATCH) % ROWS
        return X[places], Y[places]


def tf_data():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)


def from_generator(most=None):
    return tf.data.Dataset.from_generator(Source(most), output_signature=SIGNATURE)


def of_keras(data, epochs, steps, **arguments):
    return fitted(linear, data, steps_per_epoch=steps, epochs=epochs, **arguments)[0]


def of_ours(data, epochs, steps, tmp_path, *, workers=2, **arguments):
    with local_trainer(linear, tmp_path, workers=workers, num_microbatches=2) as trainer:
        arguments = {"global_batch_size": BATCH, "verbose": 0} | arguments
        return trainer.fit(data, steps_per_epoch=steps, epochs=epochs, **arguments)


def stored_batches(run_dir):
    """The batches that the parts in a run folder hold, by the numbers in their names."""
    names = [path.name for path in (run_dir / "data" / "train").iterdir()]
    ranges = sorted(
        tuple(map(int, found.groups())) for name in names if (found := re.match(r"part-(\d+)-(\d+)$", name))
    )
    return [batch for first, end in ranges for batch in range(first, end)]


def test_an_endless_function_is_read_as_far_as_the_run_needs(tmp_path):
    source = Source()
    result = of_ours(source.function, 2, 3, tmp_path)
    assert source.count == 6
    same_history(result.history, of_keras(Source()(), 2, 3))
    assert stored_batches(result.run_dir) == list(range(6))


def test_epochs_of_arrays_go_on_in_the_pass_as_in_keras(tmp_path):
    result = of_ours((X, Y), 4, 3, tmp_path, shuffle=False)
    wanted, _ = fitted(linear, X, Y, batch_size=BATCH, steps_per_epoch=3, epochs=4)
    assert [epoch.rows for epoch in result.epochs] == [24, 16, 24, 16]
    same_history(result.history, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 7], ids=["within a pass", "beyond a pass"])
@pytest.mark.parametrize(
    ("make", "plain"),
    [
        (lambda: Source().function, lambda: Source()()),
        (lambda: lambda: from_generator(), from_generator),
        (from_generator, from_generator),
        (lambda: tf_data().repeat(), lambda: tf_data().repeat()),
        (lambda: from_generator(5).repeat(), lambda: from_generator(5).repeat()),
        (Batches, Batches),
        (tf_data, tf_data),
        (lambda: from_generator(5), tf_data),  # Keras counts a step more where it meets an end that it did not know
        (lambda: Source(5).function, tf_data),
        (lambda: Batches(5), lambda: Batches(5)),
        (lambda: tf_data().repeat(100), lambda: tf_data().repeat(100)),
    ],
    ids=[
        *("function", "function of from_generator", "from_generator", "repeat", "from_generator and repeat"),
        *(
            "PyDataset",
            "finite tf.data",
            "finite from_generator",
            "finite function",
            "finite PyDataset",
            "long tf.data",
        ),
    ],
)
def test_streams_are_read_as_keras_reads_them(make, plain, steps, tmp_path):
    result = of_ours(make(), 3, steps, tmp_path, workers=0)
    same_history(result.history, of_keras(plain(), 3, steps))


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["fit", "train_on_batch", "custom"])
@pytest.mark.parametrize("rows", [5, 8, 20])
def test_batches_are_put_together_anew(rows, loop, tmp_path):
    source = Source(rows=rows)
    result = of_ours(source.function, 2, 5, tmp_path, loop=loop)
    assert source.count == -(-10 * BATCH // rows)
    same_history({"loss": result.history["loss"]}, {"loss": of_keras(Source()(), 2, 5)["loss"]})


class Stops(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise RuntimeError("stopped")


@pytest.mark.slow
def test_a_run_goes_on_with_the_rows_that_are_there_and_then_with_those_that_follow(tmp_path, capfd):
    first, again = Source(), Source()
    with pytest.raises(TrainingFailedError, match="stopped"):
        of_ours(first.function, 5, 100, tmp_path, callbacks=[Stops()])
    assert 200 < len(stored_batches(tmp_path / "run")) < 500
    result = of_ours(again.function, 5, 100, tmp_path, verbose=2)
    assert again.count == 500
    assert "are passed over" in capfd.readouterr().out
    same_history(result.history, of_keras(Source()(), 5, 100))
    more = of_ours(Source().function, 6, 100, tmp_path)
    same_history(more.history, of_keras(Source()(), 6, 100))


@pytest.mark.slow
def test_what_lies_before_the_oldest_checkpoint_is_deleted(tmp_path):
    result = of_ours(Source().function, 10, 20, tmp_path, keep=2)
    same_history(result.history, of_keras(Source()(), 10, 20))
    left = stored_batches(result.run_dir)
    assert left[0] == 0
    assert left[1] > 100
    assert left[-1] == 199


@pytest.mark.slow
@pytest.mark.parametrize(("point", "step"), [("summed", 7), ("validation", None), ("end", None)])
def test_a_worker_dies_while_rows_arrive(at, tmp_path, point, step):
    at(point, step, die, 1)
    source = Source()
    with local_trainer(linear, tmp_path, workers=3, num_microbatches=4) as trainer:
        result = trainer.fit(
            source.function, global_batch_size=BATCH, steps_per_epoch=5, epochs=3, verbose=0, validation_data=(X, Y)
        )
    assert source.count == 15
    wanted = of_keras(Source()(), 3, 5, validation_data=(X, Y), validation_batch_size=ROWS)
    same_history(result.history, wanted)
    assert events_of(result.run_dir, "lost")


class Ends(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


@pytest.mark.slow
def test_a_run_that_is_stopped_keeps_what_it_was_trained_on(tmp_path):
    result = of_ours(Source().function, 50, 4, tmp_path, callbacks=[Ends()])
    assert stored_batches(result.run_dir) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_source_that_fails_ends_the_run_with_its_error(tmp_path):
    def fails():
        for number, batch in enumerate(Source()()):
            if number == 70:
                raise KeyError("the camera")
            yield batch

    with pytest.raises(ShardError, match="the camera") as found:
        of_ours(fails, 10, 10, tmp_path)
    assert isinstance(found.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: tf_data().repeat(), r"repeats for ever.*steps_per_epoch="),
        (Batches, r"repeats for ever.*steps_per_epoch="),
        (lambda: tf_data().unbatch(), r"dataset\.batch\(32\)"),
        (lambda: Source()(), r"fit\(batches\), not fit\(batches\(\)\)"),
    ],
)
def test_streams_that_cannot_be_read_are_refused(tmp_path, data, message):
    with local_trainer(linear, tmp_path) as trainer, pytest.raises(ConfigurationError, match=message):
        trainer.fit(data(), epochs=2, global_batch_size=8, verbose=0)
