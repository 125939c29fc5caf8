"""One run folder, one driver: real processes that hold, lose and take its lease."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import keras
import pytest
from heliostat.data import DatasetError
from heliostat.trainer import ConfigurationError, Trainer
from heliostat.trainer.driver import lease
from heliostat.trainer.driver.lease import EXPIRES_S, LEASE_FILE, Lease, is_free
from heliostat.trainer.driver.run_folder import RunFolder, read_events
from heliostat.trainer.driver.run_paths import make_new, new_run_path
from heliostat.trainer.errors import LeaseHeldError, LeaseLostError, StorageError

from ...scripts.child import environment
from ..conftest import dense_data
from ..helpers import local_trainer
from ..models import linear

LIMIT_S = 60
# Holds the lease of a folder; at each line of its input it looks whether it still does, and says so.
HOLDS = """
import sys
from pathlib import Path
from heliostat.trainer.driver.lease import Lease
from heliostat.trainer.errors import LeaseLostError
with Lease(Path(sys.argv[1]), take_over=sys.argv[2:] == ["take over"]) as held:
    print("held", flush=True)
    for _ in sys.stdin:
        try:
            held.check()
            print("still held", flush=True)
        except LeaseLostError as error:
            print(error, flush=True)
"""


@contextlib.contextmanager
def holder(folder, *arguments):
    """Another process that holds the lease of a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        with process:  # closes its pipes, and waits for it
            pass


def ask(process):
    """Whether the process still holds the lease, in its words."""
    process.stdin.write("?\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def stop(process):
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def touched_long_ago(folder):
    """As if nobody had touched the lease for long; who holds it is stopped, or will not touch it for seconds."""
    then = time.time() - EXPIRES_S - 100
    os.utime(folder / LEASE_FILE, (then, then))


def test_the_second_of_two_programs_is_refused_and_told_who_holds_the_folder(tmp_path):
    with holder(tmp_path) as process:
        for take_over in (False, True):
            with pytest.raises(
                LeaseHeldError, match=rf"in use by process {process.pid} on \S+ since 20\d\d-"
            ) as raised:
                Lease(tmp_path, take_over=take_over).__enter__()
        assert "give another run_dir" in str(raised.value)
        assert ask(process) == "still held"
        assert RunFolder(tmp_path, resume=True).record, "to look needs no lease"
        process.stdin.close()
        assert process.wait(LIMIT_S) == 0
    assert not (tmp_path / LEASE_FILE).exists()
    with Lease(tmp_path, take_over=False) as held:
        held.check()
    assert list(tmp_path.iterdir()) == [tmp_path / "logs"]


def test_threads_of_one_program_are_two_drivers(tmp_path):
    with Lease(tmp_path, take_over=False):
        with pytest.raises(LeaseHeldError, match=f"process {os.getpid()}"):
            Lease(tmp_path, take_over=True).__enter__()


def test_what_a_driver_that_was_killed_held_is_free_at_once(tmp_path):
    with holder(tmp_path) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie is as dead
        with Lease(tmp_path, take_over=False) as held:
            held.check()


def test_a_driver_that_stands_still_loses_its_lease_only_on_demand_and_stops_when_it_wakes_up(tmp_path):
    with holder(tmp_path) as process:
        stop(process)
        touched_long_ago(tmp_path)
        with pytest.raises(LeaseHeldError, match=r"sign of life 40\d s ago.*fit\(take_over=True\)"):
            Lease(tmp_path, take_over=False).__enter__()
        with Lease(tmp_path, take_over=True) as held:
            process.send_signal(signal.SIGCONT)
            assert f"was taken over by process {os.getpid()} on" in ask(process)
            held.check()
            with pytest.raises(LeaseHeldError):
                Lease(tmp_path, take_over=True).__enter__()
            process.stdin.close()
            assert process.wait(LIMIT_S) == 0
            held.check()  # its end has not given back what is not its own


def wait_until(condition):
    until_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def left_by(folder, **changes):
    """The lease of a driver that ended without giving it back."""
    with holder(folder) as process:
        process.kill()
        process.wait(LIMIT_S)
        found = json.loads((folder / LEASE_FILE).read_text()) | changes
    (folder / LEASE_FILE).write_text(json.dumps(found))


def test_a_driver_of_another_machine_is_believed_dead_only_on_demand_and_after_minutes(tmp_path):
    """Whose lock may not be seen here."""
    left_by(tmp_path, boot="another", host="far-away\x1b[2J")
    for take_over in (False, True):
        with pytest.raises(LeaseHeldError, match=r"on far-away\\x1b\[2J since.*silent for 300 s"):
            Lease(tmp_path, take_over=take_over).__enter__()
    touched_long_ago(tmp_path)
    with pytest.raises(LeaseHeldError, match=r"fit\(take_over=True\)"):
        Lease(tmp_path, take_over=False).__enter__()
    with Lease(tmp_path, take_over=True) as held:
        held.check()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', "[" * 60_000])
def test_a_lease_that_was_left_half_written_is_free(tmp_path, content):
    (tmp_path / LEASE_FILE).write_text(content)
    with Lease(tmp_path, take_over=False) as held:
        held.check()


def test_a_process_id_that_is_used_again_is_another_process(tmp_path):
    left_by(tmp_path, pid=os.getpid())
    with Lease(tmp_path, take_over=False):
        pass


def test_without_locks_processes_of_this_machine_still_know_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "_lock", lambda file: "none here")
    with holder(tmp_path) as process:
        with pytest.raises(LeaseHeldError, match=f"process {process.pid}"):
            Lease(tmp_path, take_over=True).__enter__()
        process.kill()
        process.wait(LIMIT_S)
        with Lease(tmp_path, take_over=False) as held, Lease(tmp_path / "..", take_over=False):
            held.check()


@pytest.mark.parametrize("is_another", [True, False])
def test_a_lease_that_is_given_back_while_one_looks_at_it_is_looked_at_again(tmp_path, monkeypatch, is_another):
    locks = []

    def lock(file):
        if not locks:
            (tmp_path / LEASE_FILE).unlink()
            if is_another:
                (tmp_path / LEASE_FILE).touch()
        locks.append(file)
        return flock(file)

    flock = lease._lock
    monkeypatch.setattr(lease, "_lock", lock)
    with Lease(tmp_path, take_over=False) as held:
        held.check()
    assert len(locks) == 2


def test_who_may_take_what():
    own = lease._this_driver()
    elsewhere = replace(own, id="x", boot="another")
    other_container = replace(own, id="x", pid_space="another")
    long_s, short_s = EXPIRES_S + 1, EXPIRES_S - 1

    def free(holder, lock, ended, silent_s, take_over=True):
        return is_free(holder, own, lock, ended, silent_s, take_over=take_over)

    assert free(elsewhere, "ours", None, long_s)
    assert not free(elsewhere, "ours", None, short_s)
    assert not free(elsewhere, "ours", None, long_s, take_over=False)
    assert free(other_container, "ours", None, short_s, take_over=False), "all containers of a machine see one lock"
    assert not free(other_container, "none here", None, short_s)
    assert not free(own, "theirs", False, short_s)
    assert free(own, "theirs", True, short_s, take_over=False), "a child of a dead driver may have its lock open"
    assert not free(None, "theirs", None, short_s)


def test_a_lease_is_touched_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "TOUCH_EVERY_S", 0.01)
    with Lease(tmp_path, take_over=False):
        touched_long_ago(tmp_path)
        wait_until(lambda: time.time() - (tmp_path / LEASE_FILE).stat().st_mtime < EXPIRES_S)


def test_a_lease_whose_file_was_deleted_is_left_again(tmp_path):
    with Lease(tmp_path, take_over=False) as held:
        (tmp_path / LEASE_FILE).unlink()
        held.check()
        with pytest.raises(LeaseHeldError):
            Lease(tmp_path, take_over=True).__enter__()
        (tmp_path / LEASE_FILE).unlink()
        with holder(tmp_path), pytest.raises(LeaseLostError):
            held.check()


def test_a_folder_that_takes_no_lease_is_named(tmp_path):
    (tmp_path / LEASE_FILE).mkdir()
    with pytest.raises(StorageError, match=r"driver\.lease' cannot be written: Is a directory"):
        Lease(tmp_path, take_over=False).__enter__()


def test_a_folder_whose_start_failed_goes_again_if_it_was_new(tmp_path):
    def start(path, is_new):
        folder = RunFolder(path, resume=True, is_new=is_new)
        with folder.held(take_over=False):
            (folder.path / "data").mkdir()
            raise KeyError

    def fail(path, is_new=False):
        with pytest.raises(KeyError):
            start(path, is_new)

    fail(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    fail(tmp_path / "old")
    assert (tmp_path / "old").exists()
    (tmp_path / "runs" / "made").mkdir(parents=True)
    fail(tmp_path / "runs" / "made", is_new=True)
    assert not (tmp_path / "runs").exists()
    RunFolder(tmp_path / "run", resume=True).update(state="paused")
    fail(tmp_path / "run")
    assert (tmp_path / "run" / "run.json").exists()


def test_who_comes_second_takes_nothing_from_who_was_faster(tmp_path):
    late = RunFolder(tmp_path / "run", resume=True)
    (late.path / "data").mkdir()
    with holder(late.path), pytest.raises(LeaseHeldError):
        late.held(take_over=False).__enter__()
    assert (late.path / "data").exists()


def test_two_programs_that_name_their_runs_alike_get_two_folders(tmp_path):
    path = new_run_path("model", tmp_path / "runs")
    assert [make_new(path), make_new(path)] == [path, path.with_name(f"{path.name}-2")]
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Not a directory"):
        make_new(tmp_path / "file" / "run")


@pytest.mark.engine
def test_a_run_whose_folder_was_taken_over_stops_and_writes_nothing_more(tmp_path):
    run = tmp_path / "run"
    written = {}

    class IsTaken(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch != 1:
                return
            wait_until(lambda: any(each.event == "checkpoint" for each in read_events(run)))
            touched_long_ago(run)
            stack.enter_context(holder(run, "take over"))
            written.update((path, path.read_bytes()) for path in run.rglob("*") if path.is_file())

    job = {"epochs": 50, "global_batch_size": 16, "verbose": 0}
    with contextlib.ExitStack() as stack, local_trainer(linear(), tmp_path) as trainer:
        with pytest.raises(LeaseLostError, match=r"taken over by process \d+"):
            trainer.fit(dense_data(), callbacks=[IsTaken()], **job)
        left = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        assert {path: left.get(path) for path in written} == written
        assert {path.name for path in left.keys() - written.keys()} <= {"state.safetensors"}, "a worker's, uncommitted"
        with local_trainer(linear(), tmp_path) as second, pytest.raises(LeaseHeldError):
            second.fit(dense_data(), **job)
    hashes = []
    for place in (tmp_path, tmp_path / "whole"):  # the other one is dead now
        with local_trainer(linear(), place) as trainer:
            hashes.append(trainer.fit(dense_data(), **job | {"epochs": 3}).sha256)
    assert hashes[0] == hashes[1]


@pytest.mark.engine
@pytest.mark.parametrize("named", [True, False])
def test_a_start_that_fails_leaves_no_folder(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    x, y = dense_data()
    with Trainer(linear(), workers=0, run_dir="run" if named else None) as trainer:
        for data, valid in (("nowhere", None), ((x, y), "nowhere"), ((x, y), (x,)), ((x, y), lambda: 7)):
            with pytest.raises((ConfigurationError, DatasetError)):
                trainer.fit(data, validation_data=valid, verbose=0)
            assert [each for each in tmp_path.rglob("*") if each != tmp_path / "runs"] == []
