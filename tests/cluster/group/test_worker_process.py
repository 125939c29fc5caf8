"""A worker hosts one object on one thread, and its step outlives its process."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading

import pytest
from heliostat.cluster.group import worker_process
from heliostat.cluster.group.liveness import Activity
from heliostat.cluster.group.mailbox import Mailbox
from heliostat.cluster.group.messages import TaskEnded, TaskEvent, TaskRequest
from heliostat.cluster.group.worker_process import (
    Mark,
    StepMark,
    WorkerKilled,
    WorkerProcess,
    failure_of,
    take_mark,
    thread_name,
)
from heliostat.cluster.spec import GroupSpec

SCRIPT = """
import os, signal, sys
from heliostat.cluster.group.worker_process import StepMark
mark = StepMark(sys.argv[1])
for step in range(12346):
    mark.note(step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_last_step_of_a_killed_process_is_known(tmp_path):
    log_path = str(tmp_path / "worker-3.log")
    done = subprocess.run([sys.executable, "-c", SCRIPT, log_path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert take_mark(log_path) == Mark(step=12345)
    assert list(tmp_path.iterdir()) == []


def test_no_step_and_no_mark_are_no_step(tmp_path):
    log_path = str(tmp_path / "worker-3.log")
    assert take_mark(log_path) == take_mark(None) == Mark()
    mark = StepMark(log_path)
    assert take_mark(log_path) == Mark()
    mark = StepMark(log_path)
    mark.note(7)
    mark.note(None)
    assert take_mark(log_path) == Mark()
    mark.close()


@pytest.mark.parametrize("status", [0, 3, -1, 256 + 7])
def test_an_exit_of_the_process_own_is_known_beside_its_step(tmp_path, status):
    log_path = str(tmp_path / "worker-3.log")
    mark = StepMark(log_path)
    mark.note(7)
    mark.note_exit(status)
    assert take_mark(log_path) == Mark(step=7, exit_status=status & 0xFF)
    mark.close()
    assert list(tmp_path.iterdir()) == []


def test_no_step_waits_for_the_run_folders_disk(tmp_path):
    mark = StepMark(str(tmp_path / "no such folder" / "worker-3.log"))
    mark.note(7)
    mark.close()


def test_an_exit_of_the_process_own_is_known_on_another_machine(tmp_path, monkeypatch):
    log_path = str(tmp_path / "worker-3.log")
    mark = StepMark(log_path)
    mark.note(7)
    mark.note_exit(3)
    (tmp_path / "its memory").mkdir()
    monkeypatch.setattr(worker_process, "MEMORY_FOLDER", str(tmp_path / "its memory"))
    assert take_mark(log_path) == Mark(step=7, exit_status=3)
    mark.note_exit(3)
    StepMark(log_path).close()
    assert take_mark(log_path) == Mark(), "that was of an earlier worker of this number"


def test_a_mark_that_nobody_took_goes_when_another_run_begins(tmp_path, monkeypatch):
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr(worker_process, "MEMORY_FOLDER", str(memory))
    held, left = (StepMark(str(tmp_path / run / "worker-0.log")) for run in ("held", "left"))
    left._map.close()  # as the end of its process does
    same = StepMark(str(tmp_path / "left" / "worker-1.log"))
    assert len(list(memory.iterdir())) == 3, "the driver of that run may still read it"
    other = StepMark(str(tmp_path / "other" / "worker-0.log"))
    assert len(list(memory.iterdir())) == 3
    assert take_mark(str(tmp_path / "left" / "worker-0.log")) == Mark()
    for mark in (held, same, other):
        mark.close()
    assert list(memory.iterdir()) == []


def test_a_task_that_ends_leaves_no_mark(tmp_path):
    mark = StepMark(str(tmp_path / "worker-0.log"))
    mark.note(1)
    mark.close()
    assert list(tmp_path.iterdir()) == []


class Hosted:
    def __init__(self):
        self.made_on = threading.current_thread().name

    def where(self, job, member):
        member.send(job)
        return self.made_on, threading.current_thread().name

    def ask(self, job, member):
        return member.request(job)

    def fail(self, job, member):
        member.step = 4
        raise job


@pytest.fixture
def inbox():
    return queue.SimpleQueue()


@pytest.fixture
def process(inbox):
    made = WorkerProcess(lambda slot: Hosted(), GroupSpec(num_workers=1), Mailbox(3, inbox.put))
    made.listen("127.0.0.1")
    yield made
    made.close()
    made.join(10.0)


def test_all_is_called_on_the_thread_of_the_worker_and_events_come_before_the_end(process, inbox):
    process.begin("where", "a job")
    assert inbox.get(timeout=30) == TaskEvent(worker=3, content="a job")
    assert inbox.get(timeout=30) == TaskEnded(worker=3, result=(thread_name(3), thread_name(3)))
    assert process.heartbeat() is None, "there is no task"


def test_a_request_is_answered(process, inbox):
    process.begin("ask", "what?")
    request = inbox.get(timeout=30)
    assert isinstance(request, TaskRequest)
    assert process.heartbeat().activity is Activity.AWAIT_DRIVER
    process.answer(request.number, "that")
    assert inbox.get(timeout=30).result == "that"


def test_what_is_closed_ends_its_wait(process, inbox):
    process.begin("ask", "what?")
    inbox.get(timeout=30)
    process.close("it is not needed any more")
    assert inbox.get(timeout=30).failure.reason == "MailboxClosed: it is not needed any more"


@pytest.mark.parametrize(
    ("error", "kind"), [(ValueError("no"), "raised"), (SystemExit(3), "raised"), (WorkerKilled("by a test"), "died")]
)
def test_an_error_of_a_task_is_described(process, inbox, error, kind):
    process.begin("fail", error)
    failure = inbox.get(timeout=30).failure
    assert (failure.worker, failure.kind) == (3, kind)
    if kind == "raised":
        assert (failure.step, failure.error) == (4, error)
        assert "test_worker_process.py" in failure.where


def test_what_the_factory_raises_is_raised_where_the_worker_is_made(inbox):
    def make(slot):
        raise KeyError("no such model")

    with pytest.raises(KeyError, match="no such model") as raised:
        WorkerProcess(make, GroupSpec(num_workers=1), Mailbox(0, inbox.put))
    assert failure_of(raised.value, 0, None).kind == "raised"
