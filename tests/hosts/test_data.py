"""Data that only the driver's machine has: every form of it is trained on by machines that share no disk with it."""

from __future__ import annotations

import json
import sys

import pytest

from .conftest import outcome
from .machines import HEAD, host

pytestmark = [pytest.mark.reach, pytest.mark.slow]

KINDS = ("stored", "view", "parquet", "tfrecord", "arrays", "stream")


def test_data_on_the_drivers_disk_alone_give_the_result_of_one_machine(machines, undisturbed, told):
    command = (sys.executable, "train.py", "--run-dir=/tmp/kinds", "--epochs=3", "--passes", "--kinds", *KINDS)
    found = outcome(told(machines.submit("kinds", *command)))
    assert list(found) == list(KINDS)
    for kind in KINDS:
        assert found[kind] == undisturbed[0], kind
    folder = machines.disk(HEAD) / "kinds"
    record = json.loads((folder / "run.json").read_text())
    assert {each["host"] for each in record["workers"]} == {host(name) for name in "abc"}
    for worker in (0, 1, 2):
        assert "a word of the user's model" in (folder / "logs" / f"worker-{worker}.log").read_text()
    for name in "bc":
        disk = machines.disk(name)
        assert not (disk / "data").exists()
        assert not (disk / "kinds").exists()
        cached = disk / "home" / ".cache" / "heliostat"
        assert any(cached.rglob("*.arrow")), f"{host(name)} has fetched nothing"


def test_a_cluster_is_joined_by_a_script_that_is_no_job(machines, undisturbed, told):
    """On a machine of the cluster: what lies beside the script goes along."""
    running = machines.python("b", "train.py", "--address=auto", "--run-dir=/tmp/joined", "--epochs=3", "--data=/tmp/d")
    text = told(running)
    assert outcome(text)["stored"]["sha256"] == undisturbed[0]["sha256"]
    assert (machines.disk("b") / "joined" / "model.keras").exists()
    assert f"the disk of {host('b')} feeds 2 other machines, once each" in text


def test_a_plan_names_the_machines_and_leaves_nothing_on_them(machines, told):
    disks = [machines.disk(name) for name in "abc"]
    before = [set(disk.iterdir()) for disk in disks]
    command = ("train.py", "--address=auto", "--run-dir=/tmp/planned", "--epochs=3", "--data=/tmp/d")
    running = machines.python("b", *command, HELIOSTAT_PLAN="1")
    text = told(running)
    assert running.wait() == 0
    (plan,) = (line for line in text.splitlines() if line.startswith("plan: "))
    assert plan.startswith("plan: 3 workers on ")
    assert all(host(name) in plan for name in "abc")
    assert "in /tmp/d/" in text
    assert f"; the disk of {host('b')} feeds 2 other machines, once each" in text
    assert "each worker holds about: weights " in text
    assert text.splitlines()[-1] == "this was a plan: nothing was computed, and the script ends here"
    new = [path.name for disk, had in zip(disks, before, strict=True) for path in set(disk.iterdir()) - had]
    assert not new


@pytest.fixture(autouse=True)
def script_on_another_node(machines):
    machines.put("b", *(machines.disk(HEAD) / "work").glob("*.py"))
    machines.put("b", *(machines.disk(HEAD) / "data").iterdir(), to="d")
