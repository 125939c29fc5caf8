"""Gradients carried by TensorFlow's collectives: real workers, which die in the middle; the bits of one process."""

from __future__ import annotations

import keras
import pytest
from heliostat.trainer import Trainer
from heliostat.trainer.config import TrainerConfig
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

    def run(orders, wire_dtype=None, **arguments):
        faults = Faults(tmp_path / "faults", tmp_path / "run", SIZE)
        trainer = Trainer(
            faults.build(wide),
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


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("wire_dtype", [None, "bfloat16"])
def test_a_worker_that_stands_still_in_the_middle_of_a_sum_is_replaced(check, wire_dtype):
    check([Order(point="carrying", who="other", action="stop")], wire_dtype, epochs=20)
