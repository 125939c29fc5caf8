"""Gradients carried by TensorFlow's collectives: real workers, which die in the middle; the bits of one process."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf
from heliostat.trainer import RuntimeSetupError, Trainer, tensorflow_collective
from heliostat.trainer.config import TrainerConfig
from heliostat.trainer.tensorflow_cluster import TensorFlowCluster
from heliostat.trainer.workers import Workers
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


def in_workers(form_s=60.0, **attributes):
    """A `build_model` that builds the same, in processes whose clusters are given these properties."""

    def build():
        tensorflow_collective.FORM_S = form_s
        for name, value in attributes.items():
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

    def run(orders, wire_dtype=None, adds=False, **arguments):
        faults = Faults(tmp_path / "faults", tmp_path / "run", SIZE)
        trainer = Trainer(
            faults.build(in_workers(adds=adds)),
            workers=SIZE,
            num_microbatches=4,
            seed=7,
            run_dir=tmp_path / "run",
            wire_dtype=wire_dtype,
            all_reduce="tensorflow",
        )
        trainer._workers = three_workers
        faults.order(*orders)
        result = trainer.fit(dense_data(), **JOB | arguments)
        faults.check()
        got = outcome(result)
        each_row_once(got["rows"], ROWS)
        assert got == outcome(train(wide, dense_data(), workers=0, wire_dtype=wire_dtype, **JOB | arguments))
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


@pytest.mark.faults
def test_sums_may_be_made_on_the_device_as_on_gpus(check):
    check([Order(point="carrying", who="any")], adds=True, epochs=10)


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
