"""What the log of a job has told, and how a job has ended, without a cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest
from heliostat.cluster.head.api import Head, Job
from heliostat.scripts.commands.submit import _going_on
from heliostat.trainer.driver.display import Display
from heliostat.trainer.events import EpochRecord
from heliostat.trainer.remote.follow import Told, _Follower, exit_status_of, outcome_of
from heliostat.trainer.remote.handle import Handle
from heliostat.trainer.remote.links import FileMark
from heliostat.trainer.remote.wire import Done, EpochDone, Failed, Files, FolderOpened, Message, Said, to_line

FAILED = Failed(stage="script", kind="ValueError", message="no")
PAUSED = Failed(stage="script", kind="RunPausedError", message="paused", exit_status=75)


def take(told: Told, message: Message, printed: str = "") -> None:
    assert told.take(printed + to_line(message).rstrip("\n")) == (printed, message)


def files(link: str, **names: str) -> Files:
    marks = {name: FileMark(size=1, digest=digest) for name, digest in names.items()}
    return Files(path="/runs/a", node_id="n", link=link, files=marks)


def test_what_the_user_prints_is_no_message_and_counts_as_a_line():
    told = Told()
    assert told.take("hello") == ("hello", None)
    take(told, Said(text="x"), "no newline before it")
    assert told == Told(num_lines=2)


def test_what_is_said_of_folders_is_kept_in_their_order():
    told, first, second = Told(), FolderOpened(path="/b", host="h"), FolderOpened(path="/a", host="h", link="l-2")
    for message in (first, second):
        take(told, message)
    assert list(told.folders.values()) == [first, second]


def test_files_of_one_link_add_up_and_another_listing_replaces_them():
    told = Told()
    take(told, files("l-1", one="1"))
    take(told, files("l-1", two="2"))
    assert told.files["/runs/a"] == files("l-1", one="1", two="2")
    take(told, files("l-2", three="3"))
    assert told.files["/runs/a"] == files("l-2", three="3")


def test_the_last_epoch_and_the_end_are_kept():
    told = Told()
    record = EpochRecord(epoch=1, logs={"loss": 0.5}, rows=8, rows_by_worker={}, seconds_by_worker={}, time=1.0)
    take(told, EpochDone(record=record, epochs=3, seconds=2.0))
    take(told, FAILED)
    take(told, Done(value={"a": 1}))
    assert told.epoch is not None
    assert (told.epoch.record, told.failed, told.done) == (record, FAILED, Done(value={"a": 1}))


@pytest.mark.parametrize(
    ("state", "exit_code", "failed", "status"),
    [
        ("SUCCEEDED", 0, None, 0),
        ("FAILED", 1, FAILED, 1),
        ("STOPPED", None, PAUSED, 75),
        ("FAILED", 75, PAUSED, 75),  # by max_time_s
        ("FAILED", 7, None, 7),
        ("FAILED", -9, None, 137),
        ("FAILED", None, None, 1),  # the machine is gone
        ("STOPPED", None, None, 143),
        ("STOPPED", -9, None, 137),  # it did not end in time
    ],
)
def test_exit_statuses_are_those_of_the_script_on_this_machine(state, exit_code, failed, status):
    assert exit_status_of(state, exit_code, failed) == status


@pytest.mark.parametrize(
    ("state", "exit_code", "told", "killed"),
    [
        ("FAILED", -9, Told(), True),
        ("FAILED", None, Told(), True),
        ("FAILED", 7, Told(), False),
        ("FAILED", -9, Told(done=Done()), False),
        ("FAILED", 1, Told(failed=FAILED), False),
        ("STOPPED", None, Told(), False),
    ],
)
def test_a_driver_that_ended_without_a_word_was_killed(state, exit_code, told, killed):
    job = Job(submission_id="j", state=state, message="m", exit_code=exit_code, metadata={})
    assert outcome_of(job, told).is_killed == killed


def test_a_job_that_was_stopped_when_it_had_done_all_has_succeeded():
    job = Job(submission_id="j", state="STOPPED", message="m", metadata={})
    done, paused = (outcome_of(job, Told(done=Done(value=1))), outcome_of(job, Told(failed=PAUSED)))
    assert (done.state, done.exit_status, done.done) == ("SUCCEEDED", 0, Done(value=1))
    assert (paused.state, paused.exit_status) == ("STOPPED", 75)


def followed(handle: Handle, *paths: str) -> Handle:
    """What is known of a job when it has opened these run folders."""
    noted = [handle]
    follower = _Follower(Head(handle.address), handle, Display(), noted.append)
    for path in paths:
        follower._take(to_line(FolderOpened(path=path, host="h")).rstrip("\n"))
    return noted[-1]


def test_a_script_that_is_submitted_again_and_again_goes_on_with_the_fit_in_which_it_was():
    """The first fit of the second job has a new folder, which must not be taken for where the run goes on."""
    first = followed(Handle(address="http://a:8265", submission_id="1", what="script"), "/a", "/b")
    assert (first.last_run, first.fit) == ("/b", 2)
    second = followed(replace(first, submission_id="2"), "/c", "/b")
    assert (second.runs, second.last_run, second.fit) == (("/a", "/b", "/c"), "/b", 2)
    third = followed(replace(second, submission_id="3"))
    assert _going_on(third, Display()) == {"HELIOSTAT_RUN_DIR": "/b", "HELIOSTAT_FIT": "2"}
