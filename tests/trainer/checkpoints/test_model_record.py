"""A model is held against what a run folder says of it; another Keras may have words that the record lacks."""

from __future__ import annotations

from pathlib import Path

import pytest
from heliostat.trainer import ConfigurationError
from heliostat.trainer.checkpoints.model_record import ModelRecord

FOLDER = Path("runs/one")


def dense(units, **more):
    return {"class_name": "Dense", "config": {"units": units, **more}}


def settings(*layers, loss="mse", weight="float32 (3, 8)", **optimizer):
    return {
        "optimizer": {"class_name": "SGD", "config": {"learning_rate": 0.1, **optimizer}},
        "loss": loss,
        "config": {"layers": list(layers)},
        "state": {"00000.dense/kernel": weight},
    }


BEFORE = ModelRecord(settings=settings(dense(8)), keras="3.1")


def test_what_only_another_keras_knows_is_left_out_and_told():
    now = settings(dense(8, fused=True, packing={"kind": "plain"}), foreach=True)
    with pytest.raises(ConfigurationError, match="fused"):
        BEFORE.check({}, now, FOLDER, "3.1")
    assert BEFORE.not_compared(now, "3.1") == ""
    BEFORE.check({}, now, FOLDER, "3.2")
    told = "optimizer.foreach, layers[0].fused, layers[0].packing.kind"
    assert BEFORE.not_compared(now, "3.2").endswith(f"Keras 3.1 and 3.2 knows are not compared: {told}")
    newer = ModelRecord(settings=now, keras="3.2")
    newer.check({}, settings(dense(8)), FOLDER, "3.1")
    assert newer.not_compared(settings(dense(8)), "3.1").endswith(told)


@pytest.mark.parametrize(
    ("now", "named"),
    [
        (settings(dense(9, fused=True)), "units"),
        (settings(dense(8), dense(8)), r"layers\[1\]"),
        (settings(), r"layers\[0\]"),
        (settings(dense(8), loss={"class_name": "Huber"}), "loss"),
        (settings(dense(8)) | {"state": {"00000.dense/kernel": "float32 (3, 8)", "00001.x": "float32 ()"}}, "00001"),
    ],
)
def test_another_model_is_refused_whatever_keras_tells_it(now, named):
    with pytest.raises(ConfigurationError, match=named):
        BEFORE.check({}, now, FOLDER, "3.2")


def of_two_optimizers(rate):
    """As a GAN has them, of which the compiled one is none."""
    found = settings(dense(8))
    del found["optimizer"]
    adam = {"class_name": "Adam", "config": {"learning_rate": rate}}
    return found | {"optimizers": [adam, adam | {"config": {"learning_rate": 0.5}}]}


def test_every_optimizer_of_a_step_is_compared():
    record = ModelRecord(settings=of_two_optimizers(0.1), keras="3.1")
    record.check({}, of_two_optimizers(0.1), FOLDER, "3.1")
    with pytest.raises(ConfigurationError, match=r"optimizers\[0\]\.learning_rate"):
        record.check({}, of_two_optimizers(0.2), FOLDER, "3.1")


def test_a_pass_does_not_know_the_optimizers_and_still_compares_the_rest():
    record = ModelRecord(settings=of_two_optimizers(0.1), keras="3.1")
    here = settings(dense(8))
    del here["optimizer"], here["state"]
    record.check({}, here, FOLDER, "3.1")
    with pytest.raises(ConfigurationError, match="loss"):
        record.check({}, here | {"loss": "mae"}, FOLDER, "3.1")
