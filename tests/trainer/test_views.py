"""Datasets with something done to them train like stored ones: the same bits on any number of workers."""

from __future__ import annotations

import threading
import time

import keras
import numpy as np
import pytest
from heliostat.cluster import instruments
from heliostat.cluster.group.worker_process import WorkerKilled
from heliostat.data import mix, open_dataset, row_uniform, write_dataset
from heliostat.trainer import DataError
from heliostat.trainer.driver.run_folder import read_record
from heliostat.trainer.engine.feed import AHEAD_S

from .conftest import dense_data
from .faults import each_row_once, events_of, outcome
from .helpers import local_trainer
from .models import normalised

pytestmark = pytest.mark.engine

ROWS = 71
JOB = {"epochs": 3, "global_batch_size": 16, "verbose": 0, "record_rows": True}


def jittered(rows, seeds):
    return (rows["x"] + 0.1 * row_uniform(seeds, rows["x"].shape[1:])).astype(np.float32)


@pytest.fixture
def stored(tmp_path):
    x, y = dense_data(ROWS)
    return write_dataset(tmp_path / "data", {"x": x, "y": y}, rows_per_shard=13)


def trained(build, folder, dataset, workers, **arguments):
    with local_trainer(build, folder, workers=workers) as trainer:
        return trainer.fit(dataset, **JOB | arguments)


def test_random_changes_of_rows_do_not_depend_on_the_workers(stored, tmp_path):
    dataset = stored.map(jittered, ["x"], "x", random=True)
    alone = outcome(trained(normalised, tmp_path / "0", dataset, 0))
    assert outcome(trained(normalised, tmp_path / "3", dataset, 3)) == alone
    assert outcome(trained(normalised, tmp_path / "plain", stored, 0)) != alone


def test_random_changes_of_rows_are_the_same_after_a_death(stored, tmp_path):
    dataset = stored.map(jittered, ["x"], "x", random=True)
    died = []

    def die(point, step):
        if point == "reduce" and step == 7 and threading.current_thread().name == "heliostat-worker-1":
            died.append(step)
            raise WorkerKilled("test")

    stop = instruments.listen(die)
    try:
        result = trained(normalised, tmp_path / "3", dataset, 3)
    finally:
        stop()
    assert died
    assert len(events_of(result.run_dir, "lost")) == 1
    assert outcome(result) == outcome(trained(normalised, tmp_path / "0", dataset, 0))


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_reading_ahead_changes_nothing(stored, tmp_path, workers):
    """Rows that take long are read by a thread while the step before is computed."""
    read_by = []

    def slowly(rows):
        read_by.append(threading.current_thread().name)
        time.sleep(2 * AHEAD_S)
        return rows["x"]

    slow = stored.map(slowly, ["x"], "x")
    expected = outcome(trained(normalised, tmp_path / "plain", stored, workers, validation_data=stored))
    assert outcome(trained(normalised, tmp_path / "ahead", slow, workers, validation_data=slow)) == expected
    assert sum(name.startswith("heliostat-feed") for name in read_by) > JOB["epochs"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("heliostat-feed")]


@pytest.mark.parametrize("shuffle", ["window:32", pytest.param(False, marks=pytest.mark.slow)])
def test_every_shuffle_takes_each_row_once_on_any_number_of_workers(stored, tmp_path, shuffle):
    alone = outcome(trained(normalised, tmp_path / "0", stored, 0, shuffle=shuffle))
    each_row_once(alone["rows"], ROWS)
    assert outcome(trained(normalised, tmp_path / "2", stored, 2, shuffle=shuffle)) == alone


def test_parts_of_a_split_and_a_mix_train_and_validate(stored, tmp_path):
    train, valid = stored.split(0.8, seed=3)
    mixed = mix([train, valid], weights=[0.7, 0.3], seed=1)
    alone = outcome(trained(normalised, tmp_path / "0", mixed, 0, validation_data=valid))
    assert outcome(trained(normalised, tmp_path / "2", mixed, 2, validation_data=valid)) == alone


def words():
    model = keras.Sequential(
        [
            keras.layers.Embedding(50, 4),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def test_rows_of_different_lengths_are_padded_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    tokens = [rng.integers(1, 50, size=rng.integers(1, 12)) for _ in range(ROWS)]
    dataset = write_dataset(tmp_path / "data", {"x": tokens, "y": rng.integers(0, 5, ROWS)})
    with pytest.raises(DataError, match=r"differ in length \(list\).*dataset.pad"):
        trained(words, tmp_path / "refused", dataset, 0)
    padded = dataset.pad("x", 8)
    alone = outcome(trained(words, tmp_path / "0", padded, 0))
    assert outcome(trained(words, tmp_path / "2", padded, 2)) == alone


def test_damaged_rows_can_be_left_out_and_are_counted(stored, tmp_path):
    shard = stored.path / stored.shards[1].file
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    rest = open_dataset(stored.path, on_corrupt="skip")
    assert len(rest) == ROWS - 13
    alone = trained(normalised, tmp_path / "0", rest, 0)
    assert alone.history["skipped_rows"] == [13] * JOB["epochs"]
    assert read_record(alone.run_dir)["data"]["train"]["skipped_rows"] == 13
    each_row_once(outcome(alone)["rows"], ROWS - 13)
    assert outcome(trained(normalised, tmp_path / "2", rest.take(50), 2)) == outcome(
        trained(normalised, tmp_path / "1", rest.take(50), 0)
    )
