"""Where the calls of a trainer go, what of them is refused, and that nothing is left of one that does not get away."""

from __future__ import annotations

import socket
from contextlib import closing

import numpy as np
import pytest
from heliostat.cluster.errors import NoAnswerError, PlacementError
from heliostat.data import DatasetNotFoundError, write_dataset
from heliostat.trainer import CallDetachedError, ConfigurationError, Trainer
from heliostat.trainer.columns import Columns
from heliostat.trainer.config import FitConfig
from heliostat.trainer.driver.asked import job_server
from heliostat.trainer.driver.runs import FitCall
from heliostat.trainer.environment import Command, KillSchedule, TraceWanted
from heliostat.trainer.remote.enclosed import Rows, rows_of
from heliostat.trainer.remote.guards import check_call, detaching
from heliostat.trainer.remote.handle import Handle
from heliostat.trainer.shortened import QuickWanted, VerifyWanted
from heliostat.trainer.trainer_config import TrainerConfig

SERVER = "http://head:8265"


def build():
    raise AssertionError("nobody builds this model")


@pytest.fixture
def nobody():
    """The address of a port at which nobody listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("address", [SERVER, "https://head:8265/ray", "HTTP://head"])
def test_the_address_of_a_job_server_sends_calls_there(monkeypatch, address):
    for name in ("HELIOSTAT_ADDRESS", "RAY_JOB_ID", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    assert job_server(TrainerConfig(address=address)) == address
    assert job_server(TrainerConfig()) is None
    assert job_server(TrainerConfig(address="10.0.0.1:6379")) is None
    monkeypatch.setenv("HELIOSTAT_ADDRESS", address)
    assert job_server(TrainerConfig()) == address
    assert job_server(TrainerConfig(address="auto")) is None
    assert job_server(TrainerConfig(workers=0)) is None
    monkeypatch.setenv("RAY_JOB_ID", "01000000")  # within a job the run is that job's
    assert job_server(TrainerConfig()) is None
    assert job_server(TrainerConfig(address=address)) is None


def call(**wanted) -> FitCall:
    return FitCall(wanted=FitConfig(**wanted), data="/data", validation_data=None, anew=False, code={})


def test_what_a_run_elsewhere_cannot_do_is_refused(tmp_path):
    check_call(call(checkpoint_dir="s3://bucket/folder"), Command(run_dir=tmp_path))
    with pytest.raises(ConfigurationError, match="is a path of this machine, and the run is on a cluster"):
        check_call(call(checkpoint_dir=tmp_path / "checkpoints"), None)
    for wanted in (
        {"trace": TraceWanted(first=0, last=1)},
        {"kills": KillSchedule(every_s=1, seed=0)},
        {"verify": VerifyWanted(steps=4)},
        {"quick": QuickWanted(steps=2)},
    ):
        with pytest.raises(ConfigurationError, match="replay, trace, chaos, verify-run and run --quick work"):
            check_call(call(), Command(run_dir=tmp_path, **wanted))


@pytest.mark.parametrize("run_dir", ["run", None])
def test_nothing_is_left_of_a_call_that_nobody_answers(tmp_path, monkeypatch, nobody, run_dir):
    monkeypatch.chdir(tmp_path)
    x = np.zeros((4, 2), "float32")
    trainer = Trainer(build, address=nobody, run_dir=run_dir)
    for ask in (lambda: trainer.fit((x, x)), lambda: trainer.evaluate((x, x)), lambda: trainer.predict((x,))):
        with pytest.raises(NoAnswerError, match=nobody) as raised:
            ask()
        assert "stage of the call: pack" in raised.value.__notes__[-1]
    trainer.close()
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_found_before_anybody_is_asked(tmp_path, nobody):
    with Trainer(build, address=nobody, run_dir=tmp_path / "run") as trainer:
        with pytest.raises(ConfigurationError, match="epochs=0"):
            trainer.fit("/data", epochs=0)
        with pytest.raises(ConfigurationError, match="started by each call anew"):
            trainer.resize(2)
        with pytest.raises(ConfigurationError, match="heliostat doctor --address"):
            trainer.measure_links()
        assert trainer.hosts == {}
    with pytest.raises(PlacementError, match="is not the address of a cluster's job server"):
        Trainer(build, address="http://head:port")
    with pytest.raises(ConfigurationError, match="runtime_env"):
        Trainer(build, address=nobody, runtime_env=["pip"])
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_says_how_to_come_back(tmp_path, monkeypatch):
    handle = Handle(address=SERVER, submission_id="job", what="call")
    monkeypatch.chdir(tmp_path)
    for path, named in ((tmp_path / "runs" / "a b", "'runs/a b'"), (tmp_path.parent, str(tmp_path.parent))):
        with pytest.raises(CallDetachedError) as raised:
            with detaching(handle, path):
                raise KeyboardInterrupt
        assert isinstance(raised.value, KeyboardInterrupt)
        assert raised.value.exit_status == 130
        for name in ("attach", "status", "logs", "stop", "fetch"):
            assert f"\n  heliostat {name} {named}" in str(raised.value)


def test_a_path_that_is_not_here_is_the_clusters_own_if_it_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("/nowhere/data", "s3://bucket/data"):
        assert rows_of(name, "train", Columns(), tmp_path) == Rows(named=name)
    with pytest.raises(DatasetNotFoundError, match="nowhere"):
        rows_of("nowhere", "train", Columns(), tmp_path)
    write_dataset("here", {"x": np.arange(3.0), "y": np.arange(3)})
    for name in ("here", str(tmp_path / "here"), tmp_path / "here", (tmp_path / "here").as_uri()):
        found = rows_of(name, "train", Columns(), tmp_path)
        assert found.named is None
        assert found.dataset.folders() <= {str(tmp_path / "here"), *map(str, (tmp_path / "here").iterdir())}
