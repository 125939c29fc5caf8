"""A run folder of the format before (records 2, checkpoints 1), as that version wrote it: it is read, and goes on.

`run_of_format_2.json` holds its files as text. That run failed after the first of two epochs, in a callback that has a
state with arrays, and that adds a number to the logs which JSON lacks.
"""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

import keras
import numpy as np
import pytest
from heliostat.trainer.checkpoints.store import CheckpointStore
from heliostat.trainer.driver.run_folder import read_epochs, read_events, read_record
from heliostat.trainer.events import CheckpointCommitted

from ..helpers import local_trainer

pytestmark = pytest.mark.engine

JOB = {"epochs": 2, "global_batch_size": 4, "verbose": 0, "record_rows": True}


class Best(keras.callbacks.Callback):
    """Has a state with arrays, and adds to the logs."""

    def __init__(self):
        super().__init__()
        self.seen, self.got = [], None

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(epoch)
        logs["odd"] = float("nan")
        logs["seen"] = float(len(self.seen))

    def get_state(self):
        return {"seen": np.array(self.seen), "last": np.float32(0.5), "$note": ["text", None]}

    def set_state(self, state):
        self.got = state
        self.seen = [int(each) for each in state["seen"]]


def small():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
    model.compile(
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def small_then():
    """With the first weights of that version, in which a generator of Heliostat's took the first number of the seed."""
    random.randint(1, int(1e9))
    return small()


def rows():
    return (np.arange(21, dtype=np.float32) % 5).reshape(7, 3), np.arange(7) % 2


@pytest.fixture
def old_run(tmp_path):
    files = json.loads(Path(__file__).with_name("run_of_format_2.json").read_text())
    for name, content in files.items():
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(content["base64"]) if isinstance(content, dict) else content.encode())
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    del record["model"]  # its hash of the layers depends on the version of Keras
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    return tmp_path / "run"


def test_its_files_are_read(old_run):
    record = read_record(old_run)
    assert (record["format_version"], record["state"]) == (3, "failed")
    assert record["identity"]["gradient_dtype"] is None
    (epoch,), (checkpoint,) = read_epochs(old_run), read_events(old_run)[2:]
    assert list(epoch.logs) == ["loss", "accuracy", "odd", "seen"]
    assert np.isnan(epoch.logs["odd"])
    assert isinstance(checkpoint, CheckpointCommitted)
    manifest, tensors = CheckpointStore(old_run / "checkpoints").load(checkpoint.name)
    assert manifest.identity == record["identity"]
    assert tensors["callbacks/callback/0/0"].tolist() == [0]


def test_it_goes_on_to_the_same_result(old_run, tmp_path):
    callback = Best()
    with local_trainer(small, tmp_path, num_microbatches=2) as trainer:
        result = trainer.fit(rows(), callbacks=[callback], **JOB)
    (tmp_path / "again").mkdir()
    with local_trainer(small_then, tmp_path / "again", num_microbatches=2) as trainer:
        expected = trainer.fit(rows(), callbacks=[Best()], **JOB)
    assert callback.got["$note"] == ["text", None]
    assert (callback.got["last"].dtype, callback.got["last"]) == (np.float32, 0.5)
    assert json.dumps(result.history) == json.dumps(expected.history)
    assert (result.sha256, [each.row_ids for each in result.epochs]) == (
        expected.sha256,
        [each.row_ids for each in expected.epochs],
    )
    assert read_record(old_run)["format_version"] == 3
    assert [each.epoch for each in read_epochs(old_run)] == [0, 1]
    assert [each.event for each in read_events(old_run)][:4] == ["formed", "first_step", "checkpoint", "resumed"]
