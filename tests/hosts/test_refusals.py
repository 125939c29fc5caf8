"""What a cluster cannot do, or must not: said before the model is built, with host, cause and remedy."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import heliostat.trainer
import pytest

from ..slow import SLOW
from .conftest import outcome
from .machines import HEAD, LAPTOP, RAY_PORT, address, host
from .run_folder import is_at_the_gate

pytestmark = [pytest.mark.reach, pytest.mark.slow]

AT_HEAD = f"{address(HEAD)}:{RAY_PORT}"
OTHER_PYTHON = "/usr/bin/python3"


def refused(machines, told, *options, at=HEAD, **env):
    """What a script on a machine of the cluster is told, whose start fails without leaving a run folder."""
    before = set((machines.disk(at) / "work").iterdir())
    running = machines.python(at, "train.py", "--address=auto", *options, **env)
    text = told(running)
    assert running.wait() == 1, text[-6000:]
    assert set((machines.disk(at) / "work").iterdir()) == before, "a start that failed left something"
    assert "a word of the user's model" not in text
    return text


def test_a_wrong_token(machines, told):
    text = refused(machines, told, RAY_AUTH_TOKEN="f" * 64)
    assert "token" in text.splitlines()[-1].lower()


def test_no_token(machines, told):
    text = refused(machines, told, HOME="/tmp/nobody")
    assert "auth_token" in text
    assert ".ray" in text


def test_another_version_of_heliostat_on_a_machine(machines, told):
    source = Path(heliostat.trainer.__file__).resolve().parents[1]
    copy = machines.disk("c") / "other" / "heliostat"
    for name in ("cluster", "data", "trainer"):
        shutil.copytree(source / name, copy / name, dirs_exist_ok=True)
    with (copy / "trainer" / "jobs.py").open("a") as file:
        file.write("# another version\n")
    machines.restart("c", PYTHONPATH="/tmp/other")
    try:
        text = refused(machines, told)
    finally:
        machines.restart("c")
    assert host("c") in text
    assert "heliostat" in text.lower()
    assert host("b") not in text.splitlines()[-1]


def test_another_python(machines, told):
    versions = [
        subprocess.run([each, "-V"], capture_output=True, text=True, check=False).stdout
        for each in (sys.executable, OTHER_PYTHON)
    ]
    if len(set(versions)) == 1 or versions[0].split(".")[:2] != versions[1].split(".")[:2]:
        pytest.skip(f"{OTHER_PYTHON} is no other patch of this Python's minor version")
    packages = ":".join(each for each in sys.path if each.endswith(("site-packages", "/ns")))
    running = machines.start(HEAD, OTHER_PYTHON, "-u", "train.py", "--address=auto", PYTHONPATH=packages)
    text = told(running)
    assert versions[0].split()[1] in text
    assert versions[1].split()[1] in text
    assert "ray start --head" not in text


def test_fewer_microbatches_than_replicas(machines, told):
    text = refused(machines, told, "--microbatches=2")
    assert "num_microbatches" in text


def test_gpus_where_there_are_none(machines, told):
    text = refused(machines, told, "--device=gpu")
    assert "GPU" in text.splitlines()[-1]


def test_a_firewall_between_two_workers(machines, told):
    machines.cut("b", "c")
    try:
        text = refused(machines, told, "--run-dir=/tmp/walled")
    finally:
        machines.join("b", "c")
    assert host("b") in text
    assert host("c") in text
    assert "firewall" in text
    assert not (machines.disk(HEAD) / "walled").exists()


def test_room_that_is_not_there(machines, told):
    text = refused(machines, told, "--workers=7", f"--start-timeout={round(30 * SLOW)}")
    assert "CPU" in text


def test_two_that_wait_for_room_do_not_starve_each_other(machines, undisturbed, told):
    options = ("train.py", "--workers=4", "--min-workers=4", "--epochs=3", "--address=auto", "--gate=1")
    one = machines.python(HEAD, *options, "--run-dir=/tmp/one")
    other = machines.python(HEAD, *options, "--run-dir=/tmp/other-one")
    both = (one, other)
    folders = [machines.disk(HEAD) / name for name in ("one", "other-one")]
    winner = both[first_at_the_gate(both, folders)]
    (waiting,) = (each for each in both if each is not winner)
    waiting.wait_for("CPU")
    for name in machines.names:
        (machines.disk(name) / "gate").touch()
    for running, what in ((winner, "first"), (waiting, "waits")):
        text = told(running, what)
        assert outcome(text)["stored"]["sha256"] == undisturbed[0]["sha256"]


def first_at_the_gate(commands, folders):
    """The number of the first of some commands whose callbacks wait, as the logs in their run folders tell."""
    until_s = time.monotonic() + 240 * SLOW
    while time.monotonic() < until_s:
        for running, folder in zip(commands, folders, strict=True):
            assert not running.is_over, running.text[-6000:]
            if is_at_the_gate(folder):
                return folders.index(folder)
        time.sleep(0.1)
    raise AssertionError([each.text[-3000:] for each in commands])


def test_the_laptop_is_no_machine_of_the_cluster(machines, told):
    """Nothing is between them, but Ray's driver must run on a node."""
    machines.join(LAPTOP, HEAD)
    try:
        running = machines.python(LAPTOP, "train.py", f"--address={AT_HEAD}")
        text = told(running)
    finally:
        machines.cut(LAPTOP, HEAD)
    assert running.wait() == 1
    assert "runs no node on this machine" in text
    assert "heliostat submit" in text
