"""Wrong arguments for trackers, and packages that are missing, are found when the trainer is made."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import fields

import pytest
from heliostat.trainer import ConfigurationError, Tracker, Trainer
from heliostat.trainer.driver.display import Display
from heliostat.trainer.environment import hand_to_driver
from heliostat.trainer.trackers import wanted as wanted_module
from heliostat.trainer.trackers.trackers import Watched
from heliostat.trainer.trackers.wanted import TrackersWanted
from heliostat.trainer.trainer_config import TrainerConfig


def build_model():
    raise AssertionError("nobody needs the model")


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("tensorboard", 3, "tensorboard=3; it takes True, False or a path."),
        ("tensorboard", "", "tensorboard=''; it takes True, False or a path."),
        ("tensorboard", "gs://bucket/logs", "is a URI; it takes a path of a disk"),
        ("mlflow", "news", "mlflow='news' is no URI; it takes one such as 'http://10.0.0.1:5000'"),
        ("mlflow", None, "mlflow=None; it takes True, False or the URI of a server."),
        ("wandb", 1.5, "wandb=1.5; it takes True, False or a project."),
        ("metrics_port", 70000, "metrics_port=70000; it takes a port (0 to 65535"),
        ("metrics_port", True, "metrics_port=True; it takes a port"),
        ("metrics_port", "9100", "metrics_port='9100'; it takes a port"),
        ("metrics_port", "host:http", "metrics_port='host:http'; it takes a port"),
        ("metrics_port", 1.5, "metrics_port=1.5; it takes a port"),
        ("trackers", Tracker(), "it takes a list of them."),
        ("trackers", [print], "trackers= has one of type builtin_function_or_method; it takes objects of subclasses"),
    ],
)
def test_a_wrong_argument_is_named(argument, value, said):
    with pytest.raises(ConfigurationError) as caught:
        Trainer(build_model, workers=0, **{argument: value})
    assert said in str(caught.value)


@pytest.mark.parametrize(("argument", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow-skinny")])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(argument, package, monkeypatch):
    monkeypatch.setattr(wanted_module, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError) as caught:
        Trainer(build_model, workers=0, **{argument: "http://host" if argument == "mlflow" else True})
    assert f"needs the package {package}, which is not installed here" in str(caught.value)
    assert f"pip install 'heliostat[{argument}]'" in str(caught.value)


def test_mlflow_needs_an_address_from_somewhere(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigurationError, match="MLFLOW_TRACKING_URI names, and it is not set"):
        Trainer(build_model, workers=0, mlflow=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    Trainer(build_model, workers=0, mlflow=True).close()


def test_a_port_that_is_taken_is_said_and_a_closed_trainer_frees_its_own():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"metrics_port={port} cannot be used on 127.0.0.1: Address alr"):
            Trainer(build_model, workers=0, metrics_port=f"127.0.0.1:{port}")
    threads = set(threading.enumerate())
    first = Trainer(build_model, workers=0, metrics_port=f"127.0.0.1:{port}")
    with pytest.raises(ConfigurationError, match="another trainer"):
        Trainer(build_model, workers=0, metrics_port=f"127.0.0.1:{port}")
    first.close()
    Trainer(build_model, workers=0, metrics_port=f"127.0.0.1:{port}").close()
    assert set(threading.enumerate()) <= threads


def test_a_trainer_that_nobody_refers_to_frees_its_port():
    trainer = Trainer(build_model, workers=0, metrics_port="127.0.0.1:0")
    url = trainer._runs._audience.metrics_url
    port = int(url.rpartition(":")[2].partition("/")[0])
    socket.create_connection(("127.0.0.1", port)).close()
    del trainer
    while True:  # as long as the thread that frees it needs
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        break


def test_what_a_call_takes_to_a_cluster_is_plain():
    wanted = TrackersWanted(tensorboard=True, mlflow="http://host:5000", wandb="team/news", metrics_port=9100)
    assert TrackersWanted(**wanted.plain()) == wanted
    with pytest.raises(ConfigurationError, match="trackers= are objects of this process"):
        Trainer(build_model, address="http://10.255.0.1:8265", trackers=[Tracker()])
    with pytest.raises(ConfigurationError, match="tensorboard='logs' names a folder here"):
        Trainer(build_model, address="http://10.255.0.1:8265", tensorboard="logs")


def test_a_watched_screen_shows_all_that_a_screen_does():
    methods = {name for kind in Display.__mro__[:-1] for name in vars(kind) if not name.startswith("_")}
    assert methods <= set(vars(Watched))


def test_credentials_go_to_the_driver_of_a_job_and_not_to_its_workers(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "before")  # so that it is put back
    given = {"pip": ["scipy"], "env_vars": {"WANDB_API_KEY": "secret", "MLFLOW_TRACKING_TOKEN": "t", "DEBUG": "1"}}
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "before")
    assert hand_to_driver(given) == {"pip": ["scipy"], "env_vars": {"DEBUG": "1"}}
    assert (os.environ["WANDB_API_KEY"], os.environ["MLFLOW_TRACKING_TOKEN"]) == ("secret", "t")
    assert hand_to_driver(None) is None
    assert hand_to_driver({"pip": ["scipy"]}) == {"pip": ["scipy"]}


def test_nothing_of_trackers_is_among_the_settings_that_workers_get():
    assert {each.name for each in fields(TrackersWanted)} & {each.name for each in fields(TrainerConfig)} == set()
