"""`heliostat status`, `logs`, `attach` and `stop` on run folders of this machine: real leases and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from heliostat.data.format.files import replace_file
from heliostat.scripts.cli import main
from heliostat.scripts.commands.local_runs import Followed, send_signal
from heliostat.scripts.errors import ScriptError
from heliostat.trainer.driver.lease import EXPIRES_S, LEASE_FILE, driver_of
from heliostat.trainer.driver.run_folder import RunFolder, read_events
from heliostat.trainer.events import EpochRecord, FirstStepDone, Resumed, WorkerLost, event_of

from ..slow import SLOW
from .child import COMMAND, environment, interruptible

# What a driver does to its folder, told line by line on its standard input; SIGTERM pauses it.
DRIVER = """
import os, signal, sys
from pathlib import Path
from heliostat.trainer.driver.run_folder import RunFolder
from heliostat.trainer.events import CheckpointCommitted, EpochRecord, FirstStepDone, Paused, WorkerLost

def say(text):
    os.write(1, (text + "\\n").encode())

def pause(*_):
    folder.add_event(Paused(reason="it was asked to by SIGTERM", checkpoint="000002-00000000.g0"))
    folder.update(state="paused", reason="it was asked to by SIGTERM")
    sys.exit(75)

folder = RunFolder(Path(sys.argv[1]), resume=True)
signal.signal(signal.SIGTERM, pause)
with folder.held(take_over=False):
    say("starting")
    for line in sys.stdin:
        match line.split():
            case ["begin"]:
                folder.update(state="running", epochs=3, plan={"workers": 2}, workers=[{"host": "a"}, {"host": "b"}])
                folder.add_event(FirstStepDone(worker=0, seconds={}))
            case ["epoch", number]:
                folder.add_epoch(EpochRecord(
                    epoch=int(number), logs={"loss": 0.5}, rows=8, rows_by_worker={}, seconds_by_worker={}))
            case ["lost"]:
                folder.add_event(WorkerLost(worker=1, host="b", step=7, reason="killed", left=1))
            case [state]:
                folder.update(state=state, epochs_done=3, seconds=5.0, sha256={"weights": "01234567"}, error="why not")
        say(line.strip())
"""


class DriverProcess:
    """A driver, whose folder is to be told what happens to it."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-c", DRIVER, str(folder)]
        self.process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, bufsize=1, env=environment())
        assert self.process.stdout.readline() == "starting\n"

    def __call__(self, *lines: str) -> None:
        for line in lines:
            self.process.stdin.write(f"{line}\n")
            assert self.process.stdout.readline() == f"{line}\n"

    def end(self) -> int:
        self.process.stdin.close()
        return self.process.wait(20)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def driver(folder):
    found = DriverProcess(folder)
    with found.process:
        yield found
        found.process.kill()


@pytest.fixture
def attached(folder):
    """attached() -> a process of `heliostat attach` that has said its first line."""
    processes: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        command = [*COMMAND, "attach", str(folder)]
        process = subprocess.Popen(
            command, stdout=-1, stderr=-1, text=True, env=environment(), preexec_fn=interruptible
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def heliostat(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="heliostat")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def shown(*arguments: object, status: int = 0) -> str:
    result = heliostat(*arguments)
    assert result.exit_code == status, result.output
    return result.output


def test_status_tells_who_drives_a_run_and_what_it_has_reached(folder, driver):
    assert f"starting; driver: process {driver.process.pid} on " in shown("status", folder)
    driver("begin", "epoch 0", "lost")
    state, reached, workers, what_next = shown("status", folder).splitlines()
    assert state.startswith(f"{folder}: running; driver: process {driver.process.pid} on ")
    assert reached == "epoch 1 of 3, loss 0.5"
    assert workers.startswith("2 worker(s), 1 lost; last checkpoint: none; last wrote ")
    assert what_next == f"next: heliostat attach {folder} (or logs, stop)"
    found = json.loads(shown("status", folder, "--json"))
    assert (found["run"]["epochs_done"], found["driver"]["has_ended"]) == (1, False)


def test_status_of_a_run_that_is_over_says_what_came_of_it(folder, driver):
    driver("begin", "epoch 0", "finished")
    driver.end()
    assert "is finished: 3 epoch(s)" in shown("status", folder)


def test_a_driver_that_was_killed_is_told_and_resume_named(folder, driver):
    driver("begin", "epoch 0")
    driver.process.kill()
    driver.process.wait(20)
    assert driver_of(folder).has_ended  # its lease is still there
    said = shown("status", folder)
    assert "its driver has ended without a word" in said
    assert f"heliostat resume {folder}" in said
    assert "ended without a word" in shown("attach", folder, status=1)
    assert "Nothing is to stop" in shown("stop", folder, status=1)


def test_attach_shows_what_was_and_what_comes_each_once_until_the_end(folder, driver, attached):
    driver("begin", "epoch 0")
    watching = attached()
    assert "running; driver" in watching.stdout.readline()
    assert watching.stdout.readline().startswith("epoch 1/3  loss 0.5")
    driver("epoch 1", "lost")
    assert watching.stdout.readline().startswith("epoch 2/3  loss 0.5")
    assert watching.stdout.readline() == "lost worker 1 on b at step 7: killed; 1 left\n"
    driver("epoch 2", "finished")
    driver.end()
    rest, _ = watching.communicate(timeout=20)
    assert rest.startswith("epoch 3/3  loss 0.5")
    assert "is finished" in rest
    assert watching.returncode == 0


def test_attach_tells_programs_in_lines_of_json(folder, driver):
    driver("begin", "epoch 0", "lost", "finished")
    driver.end()
    found = [json.loads(line) for line in shown("attach", folder, "--json").splitlines()]
    assert [each["event"] for each in found if each["event"] != "line"] == [
        "begin",
        "first_step",
        "epoch",
        "lost",
        "end",
    ]
    (lost,) = (each for each in found if each["event"] == "lost")
    assert event_of(lost) == read_events(folder)[-1]
    assert found[-1]["event"] == "line"
    assert "is finished" in " ".join(each["text"] for each in found if each["event"] == "line")


def test_attach_ends_with_the_status_of_the_run(folder, driver):
    driver("begin", "epoch 0", "failed")
    driver.end()
    assert "failed: why not" in shown("attach", folder, status=1)
    RunFolder(folder, resume=True).update(state="paused", reason="Ctrl-C")
    assert "paused: Ctrl-C" in shown("attach", folder, status=75)


def test_ctrl_c_leaves_the_run_alone_and_says_how_to_come_back(folder, driver, attached):
    driver("begin")
    watching = attached()
    assert "running; driver" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    said, errors = watching.communicate(timeout=20)
    assert said == ""
    assert f"The run goes on. To come back to it:\n  heliostat attach {folder}\n" in errors
    assert "Traceback" not in errors
    assert watching.returncode == 130
    driver("epoch 0")  # it goes on


def test_stop_lets_a_run_pause_and_waits_until_it_has(folder, driver):
    driver("begin", "epoch 0")
    said = shown("stop", folder)
    assert f"asked process {driver.process.pid} on " in said
    assert f"{folder}: paused: it was asked to by SIGTERM" in said
    assert f"heliostat resume {folder}" in said
    assert driver.process.wait(20) == 75
    assert not (folder / LEASE_FILE).exists()


def test_a_driver_that_is_not_seen_from_here_is_not_signalled_but_named(folder, driver):
    driver("begin")
    other = json.loads((folder / LEASE_FILE).read_text()) | {"boot": "another", "host": "elsewhere"}
    replace_file(folder / LEASE_FILE, json.dumps(other).encode())
    assert driver_of(folder).has_ended is None
    said = shown("stop", folder, status=1)
    assert f"On elsewhere: heliostat stop {folder}, or kill -TERM {driver.process.pid}." in said
    assert driver.process.poll() is None
    long_ago = os.stat(folder / LEASE_FILE).st_mtime - EXPIRES_S - 60
    os.utime(folder / LEASE_FILE, (long_ago, long_ago))
    assert "ended without a word" in shown("status", folder)


def test_no_other_process_gets_the_signal_of_a_driver_that_is_gone(folder, driver):
    found = driver_of(folder)
    earlier = replace(found, holder=replace(found.holder, process_began=str(int(found.holder.process_began) - 1)))
    with pytest.raises(ScriptError, match="has just ended"):
        send_signal(earlier, folder)
    assert driver.process.poll() is None


def test_logs_are_those_of_all_workers_or_of_one(folder, driver):
    driver.end()
    (folder / "logs").mkdir(exist_ok=True)
    RunFolder(folder, resume=True).update(state="running")
    assert "No worker has printed anything" in shown("logs", folder, status=1)
    for worker in (0, 1, 10):
        (folder / "logs" / f"worker-{worker}.log").write_bytes(b"of %d\xff\n" % worker)
    with_headings = CliRunner().invoke(main, ["logs", str(folder)]).stdout_bytes
    assert with_headings.split(b"\n") == [
        *(b"==> worker-0.log <==", b"of 0\xff", b"==> worker-1.log <==", b"of 1\xff"),
        *(b"==> worker-10.log <==", b"of 10\xff", b""),
    ]
    assert CliRunner().invoke(main, ["logs", str(folder), "--worker", "1"]).stdout_bytes == b"of 1\xff\n"
    assert "no logs of worker 2. It has worker-0.log, worker-1.log" in shown("logs", folder, "--worker", 2, status=1)


@pytest.mark.parametrize("command", ["status", "attach", "stop"])
def test_a_folder_without_a_run_is_none(command, tmp_path):
    assert "no run folder" in shown(command, tmp_path, status=1)
    assert "does not exist" in shown(command, tmp_path / "nothing", status=2)


TRAIN = """
import time
import keras
import numpy as np
from heliostat.trainer import Trainer

class Slow(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        time.sleep(0.2)

def build():
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model

x = np.arange(96, dtype="float32").reshape(32, 3) / 96
with Trainer(build, workers=0, num_microbatches=2, threads_per_worker=1, run_dir="run") as trainer:
    trainer.fit((x, x[:, :1]), epochs=1000, global_batch_size=8, callbacks=[Slow()], verbose=0)
"""


@pytest.mark.engine
@pytest.mark.slow
def test_a_real_run_is_attached_to_and_stopped(folder, attached):
    (folder.parent / "train.py").write_text(TRAIN)
    command = [*COMMAND, "run", "train.py"]
    with subprocess.Popen(command, stderr=-1, text=True, env=environment(), cwd=folder.parent) as running:
        try:
            until_s = time.monotonic() + 120 * SLOW
            while not (folder / "metrics.jsonl").exists():
                assert time.monotonic() < until_s
                assert running.poll() is None
                time.sleep(0.1)
            watching = attached()
            assert f"running; driver: process {running.pid} on " in watching.stdout.readline()
            lines = iter(watching.stdout.readline, "")
            assert next(line for line in lines if line.startswith("epoch ")).startswith("epoch 1/1000  loss ")
            assert "paused: it was asked to by SIGTERM" in shown("stop", folder)
            rest, _ = watching.communicate(timeout=60)
            assert watching.returncode == 75
            assert f"heliostat resume {folder} goes on with it" in rest
            assert running.wait(60) == 75
        finally:
            running.kill()


def epoch(number: int, time_s: float) -> EpochRecord:
    return EpochRecord(epoch=number, logs={}, rows=8, rows_by_worker={}, seconds_by_worker={}, time=time_s)


def test_what_is_computed_again_after_a_restart_is_shown_again_and_old_lines_are_not():
    followed, first = Followed(), [epoch(0, 10.0), epoch(1, 20.0)]
    lost = WorkerLost(worker=1, host="a", step=1, reason="killed", left=0, time=15.0)
    assert followed.news(first, [lost]) == [first[0], lost, first[1]]
    assert followed.news(first, [lost]) == []
    again = epoch(1, 30.0)
    assert followed.news([first[0], again], [lost]) == [again]  # the file was written anew, from an earlier epoch on


def test_a_pause_is_no_part_of_the_epoch_that_follows():
    followed = Followed()
    went_on = Resumed(checkpoint="000001-00000000.g0", epoch=1, step=0, time=100.0)
    steps = [
        FirstStepDone(worker=number, seconds={}, time=time_s) for number, time_s in ((0, 8.0), (0, 110.0), (1, 111.0))
    ]
    happened = [steps[0], epoch(0, 10.0), went_on, steps[1], steps[2], epoch(1, 114.0), epoch(2, 117.0)]
    assert [followed.seconds_of(each) for each in happened] == [0.0, 2.0, 0.0, 0.0, 0.0, 4.0, 3.0]
