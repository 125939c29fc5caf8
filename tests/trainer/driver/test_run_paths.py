"""Where relative paths lie: in the current directory, and within a Ray job in a folder that no edit changes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from heliostat.trainer import Trainer
from heliostat.trainer.driver.asked import asked_address
from heliostat.trainer.driver.run_paths import checkpoint_dir_of, job_line, new_run_path, run_dir_of
from heliostat.trainer.errors import ConfigurationError
from heliostat.trainer.trainer_config import TrainerConfig


@pytest.fixture
def job(monkeypatch, tmp_path):
    """This process as one of a Ray job, whose script is train.py."""
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("HELIOSTAT_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["/tmp/ray/session/_ray_pkg_0123/train.py", "--epochs", "3"])
    return tmp_path / "train"


def test_relative_paths_stay_what_they_are_outside_of_jobs(monkeypatch):
    monkeypatch.setenv("HELIOSTAT_HOME", "/elsewhere")
    assert run_dir_of("runs/one") == Path("runs/one")
    assert new_run_path("model").parent == Path("runs")
    assert checkpoint_dir_of("kept") == Path("kept")
    assert job_line(Path("/elsewhere/train/runs/one")) == ""


def test_relative_paths_of_a_job_lie_in_a_folder_of_the_script(job):
    assert run_dir_of("runs/one") == job / "runs/one"
    assert new_run_path("model").parent == job / "runs"
    assert checkpoint_dir_of("kept") == job / "kept"
    assert f"run folder {job / 'runs/one'} on " in job_line(job / "runs/one")


def test_other_paths_of_a_job_stay_what_they_are(job):
    assert run_dir_of("/mnt/runs/one") == Path("/mnt/runs/one")
    assert run_dir_of("~/one") == Path.home() / "one"
    assert checkpoint_dir_of("s3://bucket/kept") == "s3://bucket/kept"
    assert checkpoint_dir_of(None) is None
    assert job_line(Path("/mnt/runs/one")) == ""


@pytest.mark.parametrize(("argument", "name"), [
    ("./fit model.py", "fit-model"), ("/a/package/__main__.py", "package"), ("-c", "c"), ("", "script"),
])  # fmt: skip
def test_what_the_folder_of_a_script_is_called(job, monkeypatch, argument, name):
    monkeypatch.setattr(sys, "argv", [argument])
    assert run_dir_of("one") == job.parent / name / "one"


def test_without_a_home_it_is_in_the_users(job, monkeypatch):
    monkeypatch.delenv("HELIOSTAT_HOME")
    assert run_dir_of("one") == Path.home() / "heliostat/train/one"


def test_a_home_that_would_be_relative_itself_is_refused(job, monkeypatch):
    monkeypatch.setenv("HELIOSTAT_HOME", "here")
    with pytest.raises(ConfigurationError, match=r"HELIOSTAT_HOME is 'here'; it must be an absolute path\.$"):
        run_dir_of("one")


def test_the_argument_goes_before_the_variable(monkeypatch):
    assert asked_address(TrainerConfig()) is None
    monkeypatch.setenv("HELIOSTAT_ADDRESS", "10.0.0.1:6379")
    asked = asked_address(TrainerConfig())
    assert asked is not None
    assert (asked.address, asked.origin) == ("10.0.0.1:6379", "the environment variable HELIOSTAT_ADDRESS")
    asked = asked_address(TrainerConfig(address="local"))
    assert asked is not None
    assert asked.address == "local"
    assert asked_address(TrainerConfig(workers=0)) is None


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "", 6379])
def test_a_wrong_address_is_told_when_the_trainer_is_made(address, monkeypatch):
    with pytest.raises(ConfigurationError, match=r"address=|from the argument"):
        Trainer(lambda: None, address=address)  # type: ignore[arg-type, return-value]  # a wrong one is given
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    if address and isinstance(address, str):
        asked = asked_address(TrainerConfig(address=address))
        assert asked is not None
        assert asked.address == address, "within a job it is not used"
