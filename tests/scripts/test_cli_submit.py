"""`heliostat submit`, and what follows it, against a real head: its jobs, logs, signals and files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from heliostat.cluster.errors import NoAnswerError, NoSuchJobError
from heliostat.cluster.head.api import Head
from heliostat.scripts.cli import main
from heliostat.scripts.commands import submit as submitting
from heliostat.scripts.commands.local_runs import look
from heliostat.scripts.commands.submit import earlier_handle
from heliostat.scripts.errors import ScriptError
from heliostat.trainer.driver.display import Display
from heliostat.trainer.driver.run_folder import RunFolder, read_epochs, read_record
from heliostat.trainer.remote.handle import HANDLE_FILE, Handle
from heliostat.trainer.remote.job_wanted import JobWanted
from heliostat.trainer.remote.links import marks_of

from ..slow import SLOW
from ..trainer.relay import Relay
from .child import COMMAND, environment, interruptible

# Run folders without a training: what a driver writes and tells.
FOLDERS = """
import sys
from contextlib import closing
from pathlib import Path
from heliostat.trainer.driver.run_folder import RunFolder
from heliostat.trainer.driver.run_paths import run_dir_of
from heliostat.trainer.remote.wire import display_for

print("data:", Path("rows.csv").read_text().strip(), "arguments:", sys.argv[1:])
with closing(display_for("auto")) as display:
    for name in sys.argv[2:]:
        folder = RunFolder(run_dir_of(name), resume=True)
        folder.update(state="finished", epochs_done=0, seconds=1.0, sha256={})
        (folder.checkpoints / "000001").mkdir(parents=True, exist_ok=True)
        (folder.checkpoints / "000001" / "state").write_bytes(bytes(range(256)) * 20_000)
        (folder.path / "empty").touch()
        display.run_folder(folder.path)
        display.say("made it")
sys.exit(int(sys.argv[1]))
"""
NO_PLAN = "there is nothing to plan."
TRAIN = """
import sys, time
import keras
import numpy as np
from heliostat.trainer import Trainer

class Slow(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        time.sleep(0.5)

def build():
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model

if __name__ == "__main__":
    x = np.arange(96, dtype="float32").reshape(32, 3) / 96
    print("the script begins")
    with Trainer(build, workers=0, num_microbatches=2, threads_per_worker=1) as trainer:
        trainer.fit((x, x[:, :1]), epochs=int(sys.argv[1]), global_batch_size=8, callbacks=[Slow()])
    print("the script ends")
"""


def heliostat(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="heliostat")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def said(*arguments: object, status: int = 0) -> str:
    result = heliostat(*arguments)
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture
def script(tmp_path, monkeypatch):
    """script(source) -> the name of a script in the current directory, with data beside it."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "rows.csv").write_text("1,2\n")

    def write(source: str) -> str:
        (work / "train.py").write_text(source)
        return "train.py"

    return write


@pytest.fixture
def followed(head):
    """followed(command, ...) -> a process of `heliostat` whose output can be waited for; its jobs end with the test."""
    processes: list[Followed] = []
    yield lambda *arguments: processes.append(Followed(arguments)) or processes[-1]
    for each in processes:
        each.process.kill()
        each.process.communicate()
    for path in Path().glob(f"runs/*/{HANDLE_FILE}"):
        with suppress(NoSuchJobError):
            name = Handle.read(path.parent).submission_id
            Head(head.address).stop(name)
            wait_until(lambda name=name: Head(head.address).job(name).is_over)


class Followed:
    """A process of `heliostat`."""

    def __init__(self, arguments: tuple[object, ...]) -> None:
        command = [*COMMAND, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdout=-1, stderr=-1, text=True, env=environment(), preexec_fn=interruptible
        )
        self.lines: list[str] = []

    def until(self, beginning: str) -> None:
        """Read until a line begins like this."""
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith(beginning):
                return
        raise AssertionError(f"no line begins with {beginning!r}: {self.lines} {self.process.stderr.read()}")

    def end(self) -> tuple[int, str]:
        """Its exit status, and what it printed on standard error."""
        rest, errors = self.process.communicate(timeout=120)
        self.lines += rest.splitlines()
        return self.process.returncode, errors


def wait_until(is_so) -> None:
    until_s = time.monotonic() + 60 * SLOW
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.2)


def files_in(folder: Path) -> dict[str, object]:
    return {name: mark for name, mark in marks_of(folder).items() if name != HANDLE_FILE}


# -- without a cluster ------------------------------------------------------------------------------------------------


def test_an_address_that_is_none_of_a_job_server_is_a_mistake_in_usage(script, monkeypatch):
    monkeypatch.delenv("HELIOSTAT_ADDRESS", raising=False)
    assert "http://HEAD:8265; there is none" in said("submit", script("pass"), status=2)
    assert "'10.0.0.1:6379' is none" in said("submit", script("pass"), "--address", "10.0.0.1:6379", status=2)


def test_where_nobody_answers_nothing_is_left_here(script):
    text = said("submit", script("pass"), "--address", "http://127.0.0.1:9", status=1)
    assert "does not answer at http://127.0.0.1:9" in text
    assert sorted(os.listdir()) == ["rows.csv", "train.py"]


def test_a_run_of_this_machine_is_not_submitted_over_and_has_nothing_to_fetch(script, tmp_path):
    RunFolder(tmp_path / "run", resume=False).update(state="finished", epochs_done=0, seconds=1.0, sha256={})
    assert "nothing to fetch" in said("fetch", tmp_path / "run", status=1)
    assert look(tmp_path / "run").run.state == "finished"


def test_ctrl_c_before_there_is_a_second_job_does_not_say_that_it_goes_on(script, monkeypatch):
    earlier = Handle(address="http://127.0.0.1:9", submission_id="j", what="script", script="train.py", ended="FAILED")
    earlier.write(Path("run"))
    wanted = submitting.Submission(
        script=Path(script("pass")), arguments=(), address=earlier.address, run_dir=Path("run")
    )

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(submitting, "submit_shipment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        submitting._submitted(wanted, Head(earlier.address), "2.60", Display())
    assert Handle.read(Path("run")) == earlier


def test_a_script_that_is_a_link_is_sent_under_the_name_that_it_has_in_the_folder_that_is_sent(script, monkeypatch):
    Path("link").mkdir()
    Path("link/other.py").symlink_to(Path(script("pass")).absolute())
    sent = []
    monkeypatch.setattr(submitting, "submit_shipment", lambda *given: sent.append(given[2]))
    wanted = submitting.Submission(script=Path("link/other.py"), arguments=(), address="http://127.0.0.1:9")
    submitting._submitted(wanted, Head(wanted.address), "2.60", Display())
    assert JobWanted.from_text(sent[0].argument(())).script == "train.py"


def test_resume_of_a_submitted_run_says_how(tmp_path):
    handle = Handle(address="http://a:8265", submission_id="j", what="script", script="x/train.py")
    handle.write(tmp_path)
    RunFolder(tmp_path, resume=True).update(state="paused")
    text = said("resume", tmp_path, status=1)
    assert f"heliostat submit x/train.py --address http://a:8265 --run-dir {tmp_path}" in text


def test_a_cluster_that_does_not_answer_is_told_with_what_is_known(script, tmp_path):
    handle = Handle(address="http://127.0.0.1:9", submission_id="j", what="script", script="train.py", runs=("/there",))
    replace(handle, ended="FAILED", exit_status=1).write(tmp_path / "ended")
    handle.write(tmp_path / "run")
    state, *more = said("status", tmp_path / "ended").splitlines()
    assert state.startswith(f"{tmp_path / 'ended'}: not known: it had failed when it was last heard of. The job server")
    assert more[-2:] == ["run folder /there", f"next: heliostat fetch {tmp_path / 'ended'}"]
    for command in ("attach", "logs", "stop", "fetch"):
        assert "does not answer at http://127.0.0.1:9" in said(command, tmp_path / "run", status=1)
    with pytest.raises(NoAnswerError) as caught:
        earlier_handle(tmp_path / "run", Path("train.py"))
    assert "Give another --run-dir" in str(caught.value.__notes__)


def test_a_folder_of_another_run_is_not_taken(script, tmp_path):
    handle = Handle(address="http://127.0.0.1:9", submission_id="j", what="script", script="x/train.py", ended="FAILED")
    handle.write(tmp_path)
    assert earlier_handle(tmp_path, Path("y/train.py")) == handle
    for folder, made_by in (
        (tmp_path, "x/train.py"),
        (tmp_path / "call", "a notebook"),
        (tmp_path / "run", "this machine"),
    ):
        with suppress(FileExistsError):
            folder.mkdir()
        if made_by == "a notebook":
            replace(handle, what="call", script="").write(folder)
        if made_by == "this machine":
            RunFolder(folder, resume=False).update(state="finished")
        with pytest.raises(ScriptError, match=f"holds a run of {made_by}.*Give another --run-dir"):
            earlier_handle(folder, Path("other.py"))


# -- with one ---------------------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_a_script_runs_there_as_here_and_its_run_folders_come_here(head, script):
    """Data, arguments, prints and exit status; every file; what is here is not fetched again, another run is left."""
    other = RunFolder(Path("runs/here-2"), resume=False)
    other.update(state="finished")
    submit = ("submit", script(FOLDERS), "--address", head.address, "--run-dir", "runs/here", "--", "0")
    text = said(*submit, "one", "two")
    assert "data: 1,2 arguments: ['0', 'one', 'two']\n" in text
    assert text.count("made it\n") == 2
    for name, here in (("one", "here"), ("two", "here-3")):
        there = head.folder / "heliostat" / "train" / name
        assert files_in(Path("runs", here)) == files_in(there)
        assert len(files_in(there)) == 3
    assert read_record(other.path) == other.record
    handle = Handle.read(Path("runs/here"))
    assert (handle.ended, handle.exit_status, len(handle.runs)) == ("SUCCEEDED", 0, 2)
    assert "submitted.json" not in str(handle.runs)
    assert "holds all 3 files already" in said("fetch", "runs/here")
    state, job, *_, what_next = said("status", "runs/here").splitlines()
    assert state.startswith("runs/here: succeeded ")
    assert job == f"job {handle.submission_id} at {head.address}"
    assert what_next == "next: heliostat fetch runs/here"
    assert json.loads(said("status", "runs/here", "--json"))["job"]["state"] == "SUCCEEDED"
    assert "made it" in said("logs", "runs/here")
    assert "Nothing is to stop" in said("stop", "runs/here", status=1)
    assert not list(Path().rglob("*.fetching"))


@pytest.mark.ray
@pytest.mark.slow
def test_folders_that_changed_lost_their_links_or_are_gone(head, script):
    said("submit", script(FOLDERS), "--address", head.address, "--run-dir", "runs/a", "--", "3", "x/run", status=3)
    there = head.folder / "heliostat" / "train" / "x" / "run"
    state = Path("checkpoints", "000001", "state")
    (there / state).write_bytes(bytes(5_120_000))
    (Path("runs/a") / state).unlink()
    text = said("fetch", "runs/a")
    assert "asking the cluster what is in" in text
    assert (Path("runs/a") / state).read_bytes() == bytes(5_120_000)
    for link in head.logs.glob("heliostat-*"):
        if link.is_symlink():
            link.unlink()
    Path("runs/a/empty").unlink()
    said("fetch", "runs/a")
    assert files_in(Path("runs/a")) == files_in(there)
    handle = Handle.read(Path("runs/a"))
    replace(handle, submission_id="of-an-earlier-session").write(Path("runs/a"))
    Path("runs/a/empty").unlink()
    said("fetch", "runs/a")
    assert files_in(Path("runs/a")) == files_in(there)
    handle.write(Path("runs/a"))
    shutil.rmtree(there)
    Path("runs/a/empty").unlink()
    assert "somebody has deleted it" in said("fetch", "runs/a", status=1)
    assert not Path("runs/a/empty").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_a_plan_is_told_and_nothing_is_trained_or_kept(head, script):
    text = said("submit", script(TRAIN), "--address", head.address, "--plan", "--", 400)
    assert "2 files, " in text
    assert re.search(r"^job \S*train-\S+ at \S+ makes the plan, and trains nothing$", text, re.MULTILINE)
    assert "plan: this process, with 1 CPU replica and 1 thread; 400 epochs of 4 steps; global batch 8" in text
    assert "the script begins" in text
    assert "\nthe script ends\n" not in text
    text = said("submit", script("print('done')"), "--address", head.address, "--plan", status=1)
    assert text.splitlines()[-2:] == [
        "done",
        "Error: train.py ended and called no fit, evaluate or predict: " + NO_PLAN,
    ]
    assert sorted(os.listdir()) == ["rows.csv", "train.py"]
    assert not (head.folder / "heliostat").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_failures_look_as_on_this_machine(head, script):
    at = ("--address", head.address)
    text = said("submit", script("def f():\n    return {}['key']\nprint('x')\nf()\n"), *at, status=1)
    assert "line 2, in f" in text
    assert text.rstrip().endswith("KeyError: 'key'")
    assert "runpy" not in text
    ours = "from heliostat.trainer import ConfigurationError\nraise ConfigurationError('it is wrong')\n"
    assert said("submit", script(ours), *at, status=1).rstrip().endswith("Error: it is wrong")
    assert "Traceback" not in said("submit", script(ours), *at, status=1)
    kill = "import os, signal\nprint('now', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    text = said("submit", script(kill), *at, status=137)
    assert "The driver of the job has ended without a word" in text
    assert "last available logs" not in text
    runs = sorted(Path("runs").iterdir())
    assert len(runs) == 4
    assert all("no run folder" in said("fetch", run, status=1) for run in runs)


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_is_left_stopped_fetched_and_goes_on(head, script, followed):
    """Ctrl-C, a second submission, attach, fetch while it runs, stop, an edit, and the same command again."""
    submit = ("submit", script(TRAIN), "--address", head.address, "--run-dir", "runs/a", "--")
    first = followed(*submit, 400)
    first.until("epoch 2/400")
    first.process.send_signal(signal.SIGINT)
    status, errors = first.end()
    assert (status, errors.splitlines()[1]) == (130, "  heliostat attach runs/a")
    assert "Traceback" not in errors

    text = said(*submit, 400, status=1)
    assert "lives: heliostat attach runs/a" in text
    watching = followed("attach", "runs/a")
    watching.until("epoch 1/400")
    assert "running for " in said("status", "runs/a")
    text = said("fetch", "runs/a")
    assert "fetched " in text
    num_epochs = len(read_epochs(Path("runs/a")))
    assert num_epochs >= 2
    assert read_record(Path("runs/a"))["state"] == "running"

    text = said("stop", "runs/a")
    assert "The run was paused: it was asked to by SIGTERM" in text
    status, errors = watching.end()
    assert status == 75
    assert "The same heliostat submit with --run-dir runs/a goes on" in errors
    assert read_record(Path("runs/a"))["state"] == "paused"
    assert len(read_epochs(Path("runs/a"))) > num_epochs
    there = Path(Handle.read(Path("runs/a")).runs[0])
    assert {name: files_in(Path("runs/a"))[name] for name in files_in(there)} == files_in(there)

    reached = len(read_epochs(Path("runs/a")))
    script(TRAIN.replace("the script ends", "the edited script ends"))
    text = said(*submit, reached + 2)
    assert f"epoch {reached + 1}/{reached + 2}" in text
    assert f"epoch {reached}/{reached + 2}" not in text
    assert "the edited script ends" in text
    assert read_record(Path("runs/a"))["state"] == "finished"
    assert Path("runs/a/model.keras").is_file()
    assert Handle.read(Path("runs/a")).runs == (str(there),)


@pytest.mark.ray
@pytest.mark.slow
def test_a_driver_that_is_killed_is_told_from_the_status_and_its_folder_comes(head, script, followed):
    going = followed("submit", script(TRAIN), "--address", head.address, "--run-dir", "runs/a", "--", 400)
    going.until("epoch 2/400")
    name = Handle.read(Path("runs/a")).submission_id
    (driver,) = [
        each for each in head.drivers() if "in_job" in " ".join(each.cmdline()) and name in str(each.cmdline())
    ]
    driver.kill()
    status, errors = going.end()
    assert status == 137, (going.lines, errors)
    assert "ended without a word" in errors
    assert len(read_epochs(Path("runs/a"))) >= 2


@pytest.mark.ray
@pytest.mark.slow
def test_a_log_of_which_the_connection_is_cut_is_shown_whole_and_once(head, script, followed):
    source = "import time\nfor n in range(60):\n    print('line', n, flush=True)\n    time.sleep(0.25)\n"
    host, _, port = head.address.removeprefix("http://").partition(":")
    with closing(Relay((host, int(port)))) as relay:
        address = "http://{}:{}".format(*relay.address)
        going = followed("submit", script(source), "--address", address, "--run-dir", "runs/a")
        for number in (3, 20, 30):
            going.until(f"line {number}\n")
            relay.refuses = number == 30
            assert relay.end_connections() > 0
        going.until(f"{address} has not answered for 1")
        relay.refuses = False
        status, errors = going.end()
    assert status == 0, errors
    assert [line for line in going.lines if line.startswith("line ")] == [f"line {number}" for number in range(60)]
