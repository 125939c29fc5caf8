"""Real fits with trackers: what they get, and that no tracker changes, fails or holds up a run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import urllib.request
import warnings

import numpy as np
import pytest
from heliostat.trainer import RunPausedError, Tracker, Trainer
from heliostat.trainer.trackers import trackers as trackers_module
from heliostat.trainer.trackers.tracker import FOLDER

from .test_tensorboard import curve

pytestmark = pytest.mark.engine
X = np.linspace(0, 1, 48, dtype="float32").reshape(16, 3)
ARGUMENTS = {"batch_size": 8, "epochs": 2, "verbose": 0}


def build_model():
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


class Told(Tracker):
    def __init__(self, pauses_after: int = -1) -> None:
        self.told: list[object] = []
        self._pauses_after = pauses_after

    def begin(self, path, record):
        self.told.append(("begin", path.name, record["identity"]["seed"]))

    def epoch(self, record, epochs, seconds):
        self.told.append((record.epoch, record.logs["loss"]))
        if record.epoch == self._pauses_after:
            os.kill(os.getpid(), signal.SIGTERM)

    def end(self, record):
        self.told.append(record["state"])

    def close(self) -> None:
        self.told.append("closed")


@contextlib.contextmanager
def silent_server():
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_trackers_are_told_of_fits_and_of_nothing_else(tmp_path):
    told = Told()
    run_dir = tmp_path / "run"
    with Trainer(build_model, workers=0, run_dir=run_dir, tensorboard=True, metrics_port=0, trackers=[told]) as trainer:
        first = trainer.fit(X, X[:, :1], **ARGUMENTS)
        assert told.told == [("begin", "run", 0), *enumerate(first.history["loss"]), "finished"]
        trainer.evaluate(X, X[:, :1])
        trainer.predict(X)
        assert len(told.told) == 4
        with urllib.request.urlopen(trainer._runs._audience.metrics_url) as answer:
            text = answer.read().decode()
        assert 'heliostat_run_info{run="run"' in text
        assert 'heliostat_run_state{state="finished"} 1.0' in text
        second = trainer.fit(X, X[:, :1], **ARGUMENTS)
        assert told.told[4:] == [("begin", "run-2", 0), *enumerate(second.history["loss"]), "finished"]
    assert told.told[-1] == "closed"
    for result in (first, second):
        losses = curve(result.run_dir / FOLDER / "tensorboard" / "train", "epoch_loss")
        assert losses == [(number, round(loss, 4)) for number, loss in enumerate(result.history["loss"])]


def test_a_run_that_was_paused_goes_on_in_the_same_files(tmp_path):
    paused, finished = Told(pauses_after=1), Told()
    place = {"workers": 0, "run_dir": tmp_path / "run", "tensorboard": True}
    with Trainer(build_model, **place, trackers=[paused]) as trainer, pytest.raises(RunPausedError):
        trainer.fit(X, X[:, :1], batch_size=8, epochs=100_000, verbose=0)
    assert paused.told[-2:] == ["paused", "closed"]
    epochs = len(paused.told) - 3
    with Trainer(build_model, **place, trackers=[finished]) as trainer:
        result = trainer.fit(X, X[:, :1], batch_size=8, epochs=epochs + 3, verbose=0)
    losses = curve(tmp_path / "run" / FOLDER / "tensorboard" / "train", "epoch_loss")
    assert losses == [(number, round(loss, 4)) for number, loss in enumerate(result.history["loss"])]
    assert finished.told[0] == paused.told[0]


def test_a_server_that_never_answers_changes_no_bit_and_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers_module, "PATIENCE_S", 0.2)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # so that its thread ends soon after
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with Trainer(build_model, workers=0, run_dir=tmp_path / "alone") as trainer:
        alone = trainer.fit(X, X[:, :1], **ARGUMENTS)
    place = {"workers": 0, "run_dir": tmp_path / "run"}
    with silent_server() as host, Trainer(build_model, **place, mlflow=f"http://me:s3cret@{host}") as trainer:
        said = rf"MLflow at http://\*\*\*@{host} lacks the beginning, the end, 2 epochs"
        with pytest.warns(RuntimeWarning, match=said):
            tracked = trainer.fit(X, X[:, :1], **ARGUMENTS)
    assert tracked.sha256 == alone.sha256
    assert tracked.history == alone.history
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert [path for path in files if b"s3cret" in path.read_bytes()] == []


def test_a_tracker_that_raises_fails_no_run_and_is_said_once(tmp_path, capsys):
    class Broken(Tracker):
        def epoch(self, record, epochs, seconds):
            raise ZeroDivisionError

    with Trainer(build_model, workers=0, run_dir=tmp_path / "run", trackers=[Broken()]) as trainer:
        with warnings.catch_warnings(action="error", category=RuntimeWarning):
            trainer.fit(X, X[:, :1], batch_size=8, epochs=2, verbose=2)
    lines = [line for line in capsys.readouterr().out.splitlines() if "Broken" in line]
    assert lines == [
        "warning: Broken has not taken an epoch: ZeroDivisionError. Training goes on",
        "warning: Broken lacks 2 epochs of this run; the run folder has all",
    ]


def test_a_closed_trainer_that_is_used_again_tracks_again(tmp_path):
    told = Told()
    trainer = Trainer(build_model, workers=0, run_dir=tmp_path / "run", trackers=[told], metrics_port="127.0.0.1:0")
    trainer.close()
    trainer.fit(X, X[:, :1], **ARGUMENTS)
    trainer.close()
    assert [each for each in told.told if isinstance(each, str)] == ["closed", "finished", "closed"]
