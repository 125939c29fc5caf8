"""A script on a laptop whose trainer has the address of a cluster: its calls come back as if they had run here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from heliostat.data import write_dataset

from ..trainer.faults import events_of
from .conftest import open_gates, outcome
from .laptop import call, commands_in, heliostat, links_left, parts_of
from .machines import AT_GATEWAY, HEAD, LAPTOP
from .run_folder import assert_same_files, assert_whole

pytestmark = [pytest.mark.reach, pytest.mark.slow]

PAUSED = 75
OTHER_PYTHON = "/usr/bin/python3"


def runs_on_the_head(machines):
    """Run folders that calls have on the head's disk."""
    return [path.parent for path in (machines.disk(HEAD) / "home" / "heliostat").rglob("run.json")]


@pytest.fixture(autouse=True)
def nothing_of_it_on_the_head(machines):
    """The head's own copy of the data is out of the way."""
    data = machines.disk(HEAD) / "data"
    data.rename(data.with_name("data-elsewhere"))
    yield
    data.with_name("data-elsewhere").rename(data)


def test_calls_come_back_as_if_they_had_run_here(machines, undisturbed, told, timed):
    before = runs_on_the_head(machines)
    running = call(machines, "--run-dir=runs/called", "--files", "--passes")
    text = told(running)
    assert running.wait() == 0
    timed(parts_of(running))
    assert outcome(text)["stored"] == undisturbed[0]
    folder = machines.disk(LAPTOP) / "work" / "runs" / "called"
    assert_whole(folder, undisturbed[1], num_workers=3)
    assert_same_files(folder, undisturbed[1])
    assert runs_on_the_head(machines) == before, "a trainer that was closed has left its run folder on the cluster"
    assert not links_left(machines)


def test_all_forms_of_data_go_up(machines, undisturbed, told):
    kinds = ("view", "parquet", "arrays", "stream")
    found = outcome(told(call(machines, "--run-dir=runs/kinds", "--kinds", *kinds)))
    assert list(found) == list(kinds)
    for kind in kinds:
        assert found[kind]["sha256"] == undisturbed[0]["sha256"], kind
        assert found[kind]["history"] == undisturbed[0]["history"], kind


def test_a_second_fit_goes_on_from_the_first(machines, undisturbed, told):
    """Three fits of one epoch compute what one of three does."""
    found = outcome(told(call(machines, "--run-dir=runs/thrice", "--fits=3", "--epochs=1", "--passes")))["stored"]
    for name in ("sha256", "evaluate", "predict"):
        assert found[name] == undisturbed[0][name]
    folders = [machines.disk(LAPTOP) / "work" / "runs" / f"thrice{end}" for end in ("", "-2", "-3")]
    assert all((folder / "model.keras").exists() for folder in folders)


def test_the_run_outlives_the_laptop_and_the_same_script_takes_its_result(machines, undisturbed, told):
    options = ("--run-dir=runs/left", "--pace=1")
    running = call(machines, *options)
    running.wait_for("epoch 1/3")
    machines.crash(LAPTOP)
    assert running.wait() != 0
    again = call(machines, *options)
    again.wait_for("epoch ")
    open_gates(machines)
    text = told(again, "attached")
    assert outcome(text)["stored"]["sha256"] == undisturbed[0]["sha256"]
    assert outcome(text)["stored"]["history"] == undisturbed[0]["history"]
    folder = machines.disk(LAPTOP) / "work" / "runs" / "left"
    assert_whole(folder, undisturbed[1], num_workers=3)
    assert not events_of(folder, "resumed"), "it was begun again instead of being attached to"


def test_ctrl_c_detaches_and_stop_pauses_and_the_same_script_goes_on(machines, undisturbed, told):
    options, run = ("--run-dir=runs/stopped", "--pace=3"), "runs/stopped"
    first = call(machines, *options)
    first.wait_for("epoch 1/3")
    first.interrupt()
    text = told(first, "Ctrl-C")
    assert commands_in(text, run) >= {"attach", "stop"}
    attached = call(machines, *options)
    attached.wait_for("epoch ")
    told(heliostat(machines, "stop", run), "stop")
    told(attached, "stopped")
    assert attached.wait() == PAUSED
    text = told(call(machines, "--run-dir=runs/stopped"), "again")
    assert outcome(text)["stored"]["sha256"] == undisturbed[0]["sha256"]
    assert events_of(machines.disk(LAPTOP) / "work" / "runs" / "stopped", "resumed")


def failed(machines, told, *arguments, **env):
    """What a script is told whose call fails."""
    running = call(machines, "--run-dir=runs/failed", *arguments, **env)
    text = told(running)
    assert running.wait() == 1, text
    return text


def test_an_exception_that_cannot_be_pickled(machines, told):
    text = failed(machines, told, "--trouble")
    assert "the user's own trouble" in text
    assert "Odd" in text
    assert "on_epoch_begin" in text
    assert "train" in text


def test_a_module_that_the_cluster_lacks(machines, told):
    only = machines.disk(LAPTOP) / "only"
    only.mkdir(exist_ok=True)
    (only / "onlyhere.py").write_text("def model(model):\n    return model\n")
    text = failed(machines, told, "--needy", PYTHONPATH="/tmp/only")
    assert "onlyhere" in text
    assert "a word of the user's model" not in text


def test_data_too_large_to_travel(machines, told):
    folder = machines.disk(LAPTOP) / "vast"
    shutil.copytree(machines.disk(LAPTOP) / "data" / "valid", folder / "valid")
    x = np.random.default_rng(0).random((9_000_000, 8), dtype="float32")
    write_dataset(folder / "stored", {"x": x, "y": x[:, 0]})
    try:
        text = failed(machines, told, "--data=/tmp/vast")
    finally:
        shutil.rmtree(folder)
    assert "256 MB" in text
    assert "upload" in text


def test_another_patch_of_the_same_python_will_do(machines, undisturbed, told):
    versions = [
        subprocess.run([each, "-V"], capture_output=True, text=True, check=False).stdout
        for each in (sys.executable, OTHER_PYTHON)
    ]
    if len(set(versions)) == 1 or versions[0].split(".")[:2] != versions[1].split(".")[:2]:
        pytest.skip(f"{OTHER_PYTHON} is no other patch of this Python's minor version")
    packages = ":".join(each for each in sys.path if each.endswith(("site-packages", "/ns")))
    options = ("-u", "train.py", "--epochs=3", "--run-dir=runs/patch", f"--address={AT_GATEWAY}")
    running = machines.start(LAPTOP, OTHER_PYTHON, *options, PYTHONPATH=packages)
    assert outcome(told(running))["stored"]["sha256"] == undisturbed[0]["sha256"]


def test_the_handle_is_there_before_the_job(machines, told):
    """A laptop that is cut off while it asks for the job knows afterwards where to look."""
    running = call(machines, "--run-dir=runs/early", "--pace=1")
    path = machines.disk(LAPTOP) / "work" / "runs" / "early" / "submitted.json"
    while not path.exists():
        assert not running.is_over, running.text[-6000:]
    assert json.loads(path.read_text())["submission_id"]
    open_gates(machines)
    told(running)
    assert running.wait() == 0
