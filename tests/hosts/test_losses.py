"""Machines that go and come, jobs that are stopped: nothing of the work is lost, and callbacks' files come home."""

from __future__ import annotations

import json
import sys
import time

import pytest

from ..slow import SLOW
from ..trainer.faults import events_of
from .conftest import open_gates, outcome
from .machines import HEAD, host
from .run_folder import assert_same_files, is_at_the_gate

pytestmark = [pytest.mark.reach, pytest.mark.slow]

WAIT_S = 120 * SLOW


def wait_for(found, running):
    """Wait until a function returns something true, while a command runs; what it returned."""
    until_s = time.monotonic() + WAIT_S
    while not (value := found()):
        assert not running.is_over, running.text[-6000:]
        assert time.monotonic() < until_s, running.text[-6000:]
        time.sleep(0.1)
    return value


class RunSeen:
    """A run in a folder of the head's disk, as its files tell."""

    def __init__(self, machines, name):
        self.folder, self._machines = machines.disk(HEAD) / name, machines

    def events(self, name):
        return events_of(self.folder, name) if (self.folder / "events.jsonl").exists() else []

    def members(self):
        """Numbers of the workers in the present group, by rank."""
        formed = self.events("formed")
        return formed[-1]["workers"] if formed else []

    def host_of(self, worker):
        return next(each["hosts"][str(worker)] for each in self.events("formed") if str(worker) in each["hosts"])

    def pid_of(self, worker):
        record = json.loads((self.folder / "run.json").read_text())
        return next(each["pid"] for each in record["workers"] if each["worker"] == worker)


def test_the_chiefs_machine_is_lost_in_the_middle_of_an_epoch(machines, undisturbed, told):
    command = (sys.executable, "train.py", "--run-dir=/tmp/crashed", "--epochs=3", "--files", "--gate=1")
    running, seen = machines.submit("crashed", *command), RunSeen(machines, "crashed")
    wait_for(lambda: is_at_the_gate(seen.folder), running)  # the log is there while the hook runs
    (chief, *_), lost = seen.members(), []
    if seen.host_of(chief) == host(HEAD):  # the head is the driver's machine: there the process alone dies
        machines.kill(HEAD, seen.pid_of(chief))
        lost.append(chief)
        wait_for(lambda: lost[0] not in seen.members(), running)
        chief = seen.members()[0]
    name = seen.host_of(chief)[-1]
    machines.crash(name)
    lost.append(chief)
    wait_for(lambda: {each["worker"] for each in seen.events("lost")} >= set(lost), running)
    open_gates(machines)
    text = told(running, but=("A worker died or was killed",))
    assert outcome(text)["stored"]["sha256"] == undisturbed[0]["sha256"]
    assert outcome(text)["stored"]["history"] == undisturbed[0]["history"]
    event = next(each for each in seen.events("lost") if each["worker"] == chief)
    assert event["host"] == host(name)
    assert 0 <= event["step"] <= 15, "the last that was heard of a machine that is gone is up to a second old"
    assert f"lost worker {chief} on {host(name)} at step {event['step']}: its machine does not answer any more" in text
    assert "RpcError" not in text
    assert [text.count(f"the diary has epoch {epoch}") for epoch in range(3)] == [1, 1, 1]
    assert_same_files(seen.folder, undisturbed[1])
    for worker in {each for formed in seen.events("formed") for each in formed["workers"]}:
        log = seen.folder / "logs" / f"worker-{worker}.log"
        assert "a word of the user's model" in log.read_text(), f"worker {worker}"


def test_a_machine_that_falls_silent_is_told_as_that(machines, undisturbed, told):
    command = (sys.executable, "train.py", "--run-dir=/tmp/silent", "--epochs=3", "--pace=1", "--address=auto")
    running, seen = machines.python(HEAD, *command[1:]), RunSeen(machines, "silent")
    wait_for(lambda: len(seen.members()) == 3, running)
    worker = next(each for each in seen.members() if seen.host_of(each) != host(HEAD))
    name = seen.host_of(worker)[-1]
    machines.cut(name, *(each for each in machines.names if each != name))
    wait_for(lambda: [each for each in seen.events("lost") if each["worker"] == worker], running)
    open_gates(machines)
    text = told(running)
    assert outcome(text)["stored"]["sha256"] == undisturbed[0]["sha256"]
    assert f"lost worker {worker} on {host(name)}" in text
    assert "RpcError" not in text
    machines.crash(name)  # it does not know that it was given up


def test_keepers_and_the_process_that_serves_the_disk_are_replaced_when_they_die_alone(machines, undisturbed, told):
    command = (sys.executable, "train.py", "--run-dir=/tmp/replaced", "--epochs=3", "--files", "--gate=1")
    running, seen = machines.submit("replaced", *command), RunSeen(machines, "replaced")
    wait_for(lambda: is_at_the_gate(seen.folder), running)
    others = {seen.host_of(each)[-1] for each in seen.members()} - {HEAD}
    assert others
    assert machines.kill_called(HEAD, "ray::ServedDisk") == 1
    assert [machines.kill_called(each, "ray::Keeper") for each in others] == [1] * len(others)
    open_gates(machines)
    text = told(running, but=("A worker died or was killed",))
    assert outcome(text)["stored"] == {key: undisturbed[0][key] for key in ("sha256", "history")}
    assert not seen.events("lost")
    assert_same_files(seen.folder, undisturbed[1])
    for worker in seen.members():
        assert "a word of the user's model" in (seen.folder / "logs" / f"worker-{worker}.log").read_text()


def test_a_machine_that_is_added_joins_the_run(machines, undisturbed, told):
    options = ("--workers=7", "--min-workers=3", "--pace=5", "--epochs=3", "--address=auto", "--run-dir=/tmp/grown")
    running, seen = machines.python(HEAD, "train.py", *options), RunSeen(machines, "grown")
    wait_for(lambda: len(seen.members()) >= 3, running)
    machines.add("d")
    wait_for(lambda: any(seen.host_of(each) == host("d") for each in seen.members()), running)
    open_gates(machines)
    text = told(running)
    assert outcome(text)["stored"]["sha256"] == undisturbed[0]["sha256"]
    machines.remove("d")


def test_a_job_that_was_stopped_goes_on_with_the_same_command_after_an_edit(machines, undisturbed, told):
    command = (sys.executable, "train.py", "--run-dir=runs/news", "--epochs=3", "--files")
    first, seen = machines.submit("first", *command, "--pace=1"), RunSeen(machines, "home/heliostat/train/runs/news")
    wait_for(lambda: (seen.folder / "metrics.jsonl").exists(), first)
    assert machines.stop("first").wait() == 0
    text = told(first, "stopped")
    assert "Traceback" not in text
    paused = seen.events("paused")[-1]
    assert paused["checkpoint"] in text
    assert (seen.folder / "checkpoints" / paused["checkpoint"] / "manifest.json").exists()
    with (machines.disk(HEAD) / "work" / "mylayers.py").open("a") as file:
        file.write("# a remark\n")
    text = told(machines.submit("second", *command), "again")
    assert outcome(text)["stored"]["sha256"] == undisturbed[0]["sha256"]
    assert seen.events("resumed")[-1]["checkpoint"] == paused["checkpoint"]
    assert_same_files(seen.folder, undisturbed[1])
