"""MLflow's own server gets what a run records, once, through pauses and through an end of the server in between."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from heliostat.trainer import RunPausedError, Tracker, Trainer
from heliostat.trainer.trackers import trackers as trackers_module

from ...slow import SLOW
from .servers import START_S, free_port, mlflow_server

pytestmark = [pytest.mark.engine, pytest.mark.slow]
X = np.linspace(0, 1, 48, dtype="float32").reshape(16, 3)


def build_model():
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), free_port()) as address:
        yield address


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """All is sent, however slow this machine is."""
    monkeypatch.setattr(trackers_module, "PATIENCE_S", START_S * SLOW)


@pytest.fixture
def client(server):
    from mlflow import MlflowClient

    return MlflowClient(server)


def runs_in(client, experiment: str) -> list:
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def curve(client, run, name: str) -> list[tuple[int, float]]:
    return [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]


def test_a_fit_is_a_run_there(server, client, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "news")
    with Trainer(build_model, workers=0, run_dir=tmp_path / "first", mlflow=server) as trainer:
        result = trainer.fit(X, X[:, :1], batch_size=8, epochs=3, validation_split=0.25, verbose=2)
    (run,) = runs_in(client, "news")
    for name in ("loss", "mae", "val_loss", "val_mae"):
        assert curve(client, run, name) == list(enumerate(result.history[name]))
    assert curve(client, run, "samples_per_s")[-1][0] == 2
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert (run.data.params["global_batch_size"], run.data.params["seed"]) == ("8", "0")
    assert run.data.params["data.train.rows"] == "12"
    assert run.data.tags["heliostat.state"] == "finished"
    assert run.data.tags["heliostat.checkpoint"].startswith("checkpoint 000003-")
    shares = [name for name in run.data.metrics if name.startswith("system/workers/0/") and name.endswith("_share")]
    assert "system/workers/0/compute_share" in shares
    assert 0 < sum(run.data.metrics[name] for name in shares) == pytest.approx(1.0)
    said = capsys.readouterr().out
    assert f"MLflow: {server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}\n" in said
    assert said.count("/runs/") == 1


def test_a_run_that_goes_on_is_the_same_run_there(server, client, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "paused")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    place = {"workers": 0, "run_dir": tmp_path / "run", "mlflow": True}
    with Trainer(build_model, **place) as trainer, pytest.raises(RunPausedError):
        trainer.fit(X, X[:, :1], batch_size=8, epochs=100_000, verbose=0, max_time_s=3.0)
    (before,) = runs_in(client, "paused")
    assert (before.info.status, before.data.tags["heliostat.state"]) == ("KILLED", "paused")
    epochs = int(curve(client, before, "loss")[-1][0]) + 3
    with Trainer(build_model, **place) as trainer:
        result = trainer.fit(X, X[:, :1], batch_size=8, epochs=epochs, verbose=0)
    (after,) = runs_in(client, "paused")
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")
    assert curve(client, after, "loss") == list(enumerate(result.history["loss"]))
    assert (after.data.params["epochs"], after.data.tags["heliostat.epochs"]) == ("100000", str(epochs))


def test_a_server_that_comes_back_gets_all_of_it(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    port, folder = free_port(), tmp_path / "server"
    folder.mkdir()

    class Starter(Tracker):
        """Starts the server when the run has ended, and keeps it until the trainer is closed."""

        def begin(self, path, record):
            self.server = contextlib.ExitStack()

        def end(self, record):
            self.server.enter_context(mlflow_server(folder, port))

    starter, address = Starter(), f"http://127.0.0.1:{port}"
    with Trainer(build_model, workers=0, run_dir=tmp_path / "run", mlflow=address, trackers=[starter]) as trainer:
        with pytest.warns(RuntimeWarning, match="does not answer") as said:
            result = trainer.fit(X, X[:, :1], batch_size=8, epochs=3, verbose=0)
        with starter.server:
            client = MlflowClient(address)
            (run,) = client.search_runs(["0"])
            assert curve(client, run, "loss") == list(enumerate(result.history["loss"]))
            assert run.info.status == "FINISHED"
    assert len([each for each in said if "MLflow" in str(each.message) and "warning" in str(each.message)]) == 1


def test_an_address_that_is_no_mlflow_is_one_warning(server, tmp_path):
    with Trainer(build_model, workers=0, run_dir=tmp_path / "run", mlflow=f"{server}/nothing") as trainer:
        with pytest.warns(RuntimeWarning, match="has not taken the run: .*404.* Training goes on without it"):
            trainer.fit(X, X[:, :1], batch_size=8, epochs=2, verbose=0)
