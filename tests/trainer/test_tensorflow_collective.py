"""Gradients carried by TensorFlow's collectives: real workers, which die in the middle; the bits of one process."""

from __future__ import annotations

import time

import keras
import pytest
import tensorflow as tf
from heliostat.data import open_dataset, write_dataset
from heliostat.trainer import RuntimeSetupError, Trainer
from heliostat.trainer.collectives import tensorflow_collective
from heliostat.trainer.collectives.carrying import Carrier
from heliostat.trainer.collectives.tensorflow_cluster import TensorFlowCluster
from heliostat.trainer.config import TrainerConfig
from heliostat.trainer.driver.workers import Workers
from heliostat.trainer.engine.feed import Feed
from keras import layers

from .conftest import dense_data
from .faults import Faults, Order, assert_gone, each_row_once, events_of, outcome

SIZE, ROWS = 3, 71
JOB = {"global_batch_size": 16, "verbose": 0, "record_rows": True}


def wide():
    """Its gradient is long enough to be carried; its moving averages and metrics are not."""
    model = keras.Sequential(
        [
            layers.Dense(2048, activation="relu"),
            layers.BatchNormalization(momentum=0.9),
            layers.Dropout(0.3),
            layers.Dense(5, activation="softmax"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def in_workers(form_s=60.0, echo=False, adds=False, **attributes):
    """A `build_model` that builds the same, in processes whose clusters are given these properties.

    With `echo` an all-to-all returns what it is given, as TensorFlow's does over NCCL with one GPU per process.
    """

    def build():
        tensorflow_collective.FORM_S = form_s
        if not hasattr(Carrier, "usual"):
            Carrier.usual = Carrier._all_to_all
        Carrier._all_to_all = (lambda self, tensor: tensor) if echo else Carrier.usual
        for name, value in {"adds": adds, **attributes}.items():
            setattr(TensorFlowCluster, name, property(lambda self, value=value: value))
        return wide()

    return build


@pytest.fixture(scope="module")
def three_workers(ray_here):
    workers = Workers(TrainerConfig(workers=SIZE, all_reduce="tensorflow"))
    yield workers
    pids = [info.pid for info in workers.seen.values()]
    workers.close()
    assert_gone(pids)


@pytest.fixture
def check(three_workers, train, tmp_path):
    """check(orders, **arguments) -> the result of a run with faults, which equals one in this process."""

    def run(orders, wire_dtype=None, build=None, data=None, **arguments):
        data = dense_data() if data is None else data
        faults = Faults(tmp_path / "faults", tmp_path / "run", SIZE)
        trainer = Trainer(
            faults.build(build or in_workers()),
            workers=SIZE,
            num_microbatches=4,
            seed=7,
            run_dir=tmp_path / "run",
            wire_dtype=wire_dtype,
            all_reduce="tensorflow",
        )
        trainer._workers = three_workers
        faults.order(*orders)
        result = trainer.fit(data, **JOB | arguments)
        faults.check()
        got = outcome(result)
        each_row_once(got["rows"], ROWS)
        assert got == outcome(train(wide, data, workers=0, wire_dtype=wire_dtype, **JOB | arguments))
        lost = sorted(each["worker"] for each in events_of(result.run_dir, "lost"))
        assert lost == sorted(each["worker"] for each in faults.fired())

    return run


@pytest.mark.faults
def test_workers_die_between_the_two_halves_of_a_sum(check):
    check(
        [
            Order(point="carrying", who="other"),
            Order(point="carrying", who="chief", wave=1),
            Order(point="reduce", who="any", wave=1, at_once=True),
        ],
        epochs=40,
    )


@pytest.mark.slow
@pytest.mark.faults
def test_sums_may_be_made_on_the_device_as_on_gpus(check):
    check([Order(point="carrying", who="any")], build=in_workers(adds=True), epochs=10)


@pytest.mark.faults
def test_an_all_to_all_that_does_not_deliver_is_found_out(check):
    check([Order(point="carrying", who="any")], build=in_workers(echo=True), epochs=10)


def watched():
    """Its processes raise if rows are being read ahead when the cluster changes."""
    reading = []
    usual_gather, usual_join = Feed._gather, TensorFlowCluster.join

    def gather(self, step, numbers):
        reading.append(step)
        found = usual_gather(self, step, numbers)
        reading.remove(step)
        return found

    def join(self, members, leader):
        if reading:
            raise RuntimeError("rows are read while the cluster changes")
        usual_join(self, members, leader)

    if not hasattr(TensorFlowCluster, "watched"):
        Feed._gather, TensorFlowCluster.join, TensorFlowCluster.watched = gather, join, True
    return in_workers()()


@pytest.mark.slow
@pytest.mark.faults
def test_a_group_does_not_form_while_rows_are_read_ahead(check, tmp_path):
    """Reading may be TensorFlow's work, and a thread inside it when its cluster changes would end the process."""

    def slowly(rows):
        time.sleep(0.05)
        return rows["x"]

    x, y = dense_data()
    write_dataset(tmp_path / "rows", {"x": x, "y": y})
    data = open_dataset(tmp_path / "rows").map(slowly, ["x"], "x")
    orders = [Order(point="carrying", who="other"), Order(point="carrying", who="any", wave=1)]
    check(orders, build=watched, data=data, epochs=6)


@pytest.mark.slow
@pytest.mark.faults
def test_a_cluster_that_cannot_be_reached_ends_the_run_with_advice(three_workers, tmp_path):
    trainer = Trainer(in_workers(port=1, form_s=1.0), workers=SIZE, run_dir=tmp_path / "run", all_reduce="tensorflow")
    trainer._workers = three_workers
    with pytest.raises(RuntimeSetupError, match=r"3 times in a row .* at last with: not done within 1 s\. Look"):
        trainer.fit(dense_data(), **JOB)


@pytest.mark.engine
def test_it_is_refused_where_tensorflow_runs_already():
    tf.zeros(())
    with pytest.raises(RuntimeSetupError, match="already runs in this process"):
        TensorFlowCluster.start("CPU:0")


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("wire_dtype", [None, "bfloat16"])
def test_a_worker_that_stands_still_in_the_middle_of_a_sum_is_replaced(check, wire_dtype):
    check([Order(point="carrying", who="other", action="stop")], wire_dtype, epochs=20)
