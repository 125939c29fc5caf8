"""A script that a laptop submits to a cluster of which it reaches one port, and what it is told when it goes wrong."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import heliostat.trainer as heliostat_package
import pytest

from ..trainer.faults import events_of
from .conftest import open_gates, outcome
from .laptop import commands_in, heliostat, parts_of, run_on_the_head, submit
from .machines import GATEWAY, HEAD, JOBS_PORT, LAPTOP, RAY_PORT, address
from .run_folder import assert_same_files, assert_whole

pytestmark = [pytest.mark.reach, pytest.mark.slow]

PAUSED, KILLED = 75, 137


@pytest.fixture(scope="module", autouse=True)
def project(made):
    """On the laptop a folder with the script and its data; on no machine of the cluster anything of it."""
    made.put(LAPTOP, *(made.disk(LAPTOP) / "work").glob("*.py"), to="project")
    made.put(LAPTOP, *(made.disk(LAPTOP) / "data" / name for name in ("stored", "valid")), to="project/data")
    return made.disk(LAPTOP) / "project"


def test_the_laptop_reaches_one_port(made):
    """What all else here stands on."""
    made.open()
    tries = ((GATEWAY, JOBS_PORT), (GATEWAY, RAY_PORT), (address(HEAD), JOBS_PORT), (address("b"), RAY_PORT))
    code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
    found = [made.python(LAPTOP, "-c", code, host, str(port)) for host, port in tries]
    assert [each.wait() for each in found] == [0, 1, 1, 1]


def test_a_submitted_script_comes_home_as_the_run_of_one_machine(machines, undisturbed, told, timed):
    running = submit(machines, "/tmp/got/sent", "--run-dir=runs/sent", "--files", "--passes")
    text = told(running)
    assert running.wait() == 0
    timed(parts_of(running))
    assert outcome(text)["stored"] == undisturbed[0]
    folder = machines.disk(LAPTOP) / "got" / "sent"
    assert_whole(folder, undisturbed[1], num_workers=3)
    assert_same_files(folder, undisturbed[1])
    again = heliostat(machines, "fetch", "/tmp/got/sent")
    assert "already" in told(again, "fetched again")


def test_a_submission_is_detached_attached_stopped_fetched_and_goes_on_after_an_edit(machines, undisturbed, told):
    run, options = "/tmp/got/long", ("--run-dir=runs/long", "--files")
    folder, far = machines.disk(LAPTOP) / "got" / "long", run_on_the_head(machines, "runs/long")
    first = submit(machines, run, *options, "--pace=3")
    first.wait_for("epoch 1/3")
    first.interrupt()
    text = told(first, "Ctrl-C")
    assert commands_in(text, run) >= {"status", "attach", "stop", "fetch"}
    assert "Traceback" not in text
    assert (folder / "submitted.json").exists()
    assert "running" in told(heliostat(machines, "status", run), "status").lower()
    twice = submit(machines, run, *options)
    assert "attach" in commands_in(told(twice, "the same while it runs"), run)
    assert twice.wait() not in (0, PAUSED)
    attached = heliostat(machines, "attach", run)
    attached.wait_for("epoch ")
    machines.shut()
    machines.open()
    logs = heliostat(machines, "logs", run, "--worker=1")
    assert "a word of the user's model" in told(logs, "logs")
    assert not attached.is_over
    stop = heliostat(machines, "stop", run)
    told(stop, "stop")
    assert "Traceback" not in told(attached, "attach")
    assert attached.wait() == PAUSED
    paused = events_of(far, "paused")[-1]
    told(heliostat(machines, "fetch", run), "fetch")
    assert (folder / "checkpoints" / paused["checkpoint"] / "manifest.json").exists()
    with (machines.disk(LAPTOP) / "project" / "mylayers.py").open("a") as file:
        file.write("# a remark\n")
    last = submit(machines, run, *options)
    assert outcome(told(last, "again"))["stored"]["sha256"] == undisturbed[0]["sha256"]
    assert events_of(far, "resumed")[-1]["checkpoint"] == paused["checkpoint"]
    assert_whole(folder, undisturbed[1], num_workers=3)
    assert_same_files(folder, undisturbed[1])


def test_the_run_outlives_the_laptop(machines, undisturbed, told):
    run = "/tmp/got/left"
    running = submit(machines, run, "--run-dir=runs/left", "--pace=1")
    running.wait_for("epoch 1/3")
    machines.crash(LAPTOP)
    assert running.wait() != 0
    attached = heliostat(machines, "attach", run)
    attached.wait_for("epoch ")
    open_gates(machines)
    text = told(attached, "back again")
    assert attached.wait() == 0
    assert outcome(text)["stored"]["sha256"] == undisturbed[0]["sha256"]
    told(heliostat(machines, "fetch", run), "fetch")
    assert_whole(machines.disk(LAPTOP) / "got" / "left", undisturbed[1], num_workers=3)


def test_a_driver_that_dies_is_told_and_the_same_command_goes_on(machines, undisturbed, told):
    run, far = "/tmp/got/dead", run_on_the_head(machines, "runs/dead")
    running = submit(machines, run, "--run-dir=runs/dead", "--pace=1")
    running.wait_for("epoch 2/3")  # the first one's checkpoint is there
    machines.kill(HEAD, json.loads((far / "driver.lease").read_text())["pid"])
    text = told(running)
    assert running.wait() == KILLED
    assert "Traceback" not in text
    assert "it was killed" in text
    assert f"--run-dir {run} goes on" in text
    told(heliostat(machines, "fetch", run), "fetch")
    assert (machines.disk(LAPTOP) / "got" / "dead" / "metrics.jsonl").exists()
    open_gates(machines)
    last = submit(machines, run, "--run-dir=runs/dead")
    assert outcome(told(last, "again"))["stored"]["sha256"] == undisturbed[0]["sha256"]


def test_an_error_of_the_users_is_shown_with_his_frame(machines, told):
    running = submit(machines, "/tmp/got/trouble", "--run-dir=runs/trouble", "--trouble")
    text = told(running)
    assert running.wait() == 1
    assert "the user's own trouble" in text
    assert re.search(r'In your code: File ".*train\.py", line \d+, in ', text)
    assert text.count("the user's own trouble") == 1


def test_a_package_that_the_cluster_lacks(machines, told):
    script = machines.disk(LAPTOP) / "project" / "lacks.py"
    script.write_text("import onlyhere\n")
    running = submit(machines, "/tmp/got/lacks", script="/tmp/project/lacks.py")
    text = told(running)
    assert running.wait() == 1
    assert "onlyhere" in text


def test_a_cluster_with_another_heliostat_runs_the_laptops(machines, undisturbed, told):
    source = Path(heliostat_package.__file__).resolve().parents[1]
    for name in "abc":
        copy = machines.disk(name) / "other" / "heliostat"
        for part in ("cluster", "data", "trainer", "scripts"):
            shutil.copytree(source / part, copy / part, dirs_exist_ok=True, ignore=shutil.ignore_patterns("demo"))
        (copy / "trainer" / "trainer.py").write_text("raise ImportError('the Heliostat of the cluster')\n")
    try:
        for name in "abc":
            machines.restart(name, PYTHONPATH="/tmp/other")
        running = submit(machines, "/tmp/got/other", "--run-dir=runs/other")
        assert outcome(told(running))["stored"]["sha256"] == undisturbed[0]["sha256"]
    finally:
        for name in "abc":
            machines.restart(name)


def test_other_ways_on_the_same_machines_give_the_same(machines, undisturbed, told):
    """`ray job submit` on the head, and `heliostat run` on the laptop."""
    job = (sys.executable, "train.py", "--run-dir=/tmp/by-ray", "--epochs=3", "--passes")
    run = ("run", "train.py", "--workers=2", "--run-dir=/tmp/by-run", "--epochs=3", "--passes")
    for running, disk, num_workers in (
        (machines.submit("by-ray", *job), machines.disk(HEAD) / "by-ray", 3),
        (heliostat(machines, *run), machines.disk(LAPTOP) / "by-run", 2),
    ):
        assert outcome(told(running, disk.name))["stored"] == undisturbed[0]
        assert_whole(disk, undisturbed[1], num_workers=num_workers)


def refused(machines, told, *words, status=1, **options):
    """What a submission is told that fails before a job is made: no traceback, no handle that leads nowhere."""
    shutil.rmtree(machines.disk(LAPTOP) / "got" / "refused", ignore_errors=True)
    running = submit(machines, "/tmp/got/refused", **options)
    text = told(running)
    assert running.wait() == status, text
    assert "Traceback" not in text
    assert any(word in text for word in words), text
    assert not (machines.disk(LAPTOP) / "got" / "refused").exists()
    return text


def test_nobody_listens(machines, told):
    refused(machines, told, "does not answer", "no answer", "refused", address=f"http://{GATEWAY}:8266")


def test_a_firewall(machines, told):
    text = refused(machines, told, "does not answer", "no answer", address=f"http://{address(HEAD)}:{JOBS_PORT}")
    assert "firewall" in text


def test_not_the_port_for_jobs(machines, told):
    machines.put(HEAD, machines.disk(LAPTOP) / "project", to=".")
    running = submit(machines, "/tmp/got/refused", address=f"http://{address(HEAD)}:{RAY_PORT}", at=HEAD)
    text = told(running)
    assert running.wait() == 1
    assert str(JOBS_PORT) in text
    assert "Traceback" not in text


def test_a_wrong_token(machines, told):
    assert "token" in refused(machines, told, "token", RAY_AUTH_TOKEN="f" * 64)


def test_no_token(machines, told):
    assert "auth_token" in refused(machines, told, "token", HOME="/tmp/nobody")


TOO_LARGE = [("huge.bin", 101 << 20, "80.0 MB"), ("data/huge.npy", 300 << 20, "heliostat upload")]


@pytest.mark.parametrize(("name", "size", "words"), TOO_LARGE)
def test_a_folder_too_large(machines, told, project, name, size, words):
    path = project / name
    with path.open("wb") as file:
        file.truncate(size)
    try:
        text = refused(machines, told, f"{name} ({size / 1e6:.0f} MB)")
    finally:
        path.unlink()
    assert words in text
