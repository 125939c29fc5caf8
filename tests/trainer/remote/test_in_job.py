"""What a job does and what it tells, on a real head; and in small, without one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import xxhash
from heliostat.data.errors import DatasetError
from heliostat.trainer import ConfigurationError, LeaseHeldError, RunPausedError, TrainingFailedError
from heliostat.trainer.driver.lease import Lease
from heliostat.trainer.remote import in_job
from heliostat.trainer.remote.in_job import do_in_job, failed
from heliostat.trainer.remote.job_folder import job_folder
from heliostat.trainer.remote.job_wanted import JobWanted
from heliostat.trainer.remote.links import link, linked, prefix_of, remove
from heliostat.trainer.remote.wire import Done, EpochDone, Failed, Files, FolderOpened, Said, StageBegun, parse

from .jobs import new_name, put_data, submit

WANTED = [
    JobWanted(what="script", job="a", script="train.py", arguments=("--x", "it's $HOME"), data=("gcs://1",), workers=0),
    JobWanted(what="script", job="a", script="train.py", plan=True),
    JobWanted(what="list", job="a.b_c-1", run_dirs=("/runs/a b", "/runs/größe")),
    JobWanted(what="remove", job="a", run_dirs=("/runs/a",)),
    JobWanted(what="doctor", job="a"),
]


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: wanted.what)
def test_what_is_wanted_comes_through_a_command_line(wanted):
    assert JobWanted.from_text(wanted.to_text()) == wanted


@pytest.mark.parametrize(
    "fields",
    [
        {"what": "scripts", "job": "a", "script": "train.py"},
        {"what": "script", "job": "a"},
        {"what": "list", "job": "a", "script": "train.py"},
        {"what": "list", "job": "../a", "run_dirs": ("/a",)},
        {"what": "list", "job": "a", "plan": True},
        {"what": "remove", "job": "a", "run_dirs": ("runs/a",)},
        {"what": "script", "job": "a", "script": "train.py", "run_dirs": ("/a", "/b")},
    ],
)
def test_what_does_not_go_together_is_refused(fields):
    with pytest.raises(ConfigurationError, match="No job can do this"):
        JobWanted(**fields)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"what": "list"}'])
def test_a_command_line_of_somebody_else_is_refused(text):
    with pytest.raises(ConfigurationError, match="does not say what a job is to do"):
        JobWanted.from_text(text)


# -- how it ends ------------------------------------------------------------------------------------------------------


@pytest.fixture
def code(tmp_path, monkeypatch):
    """The folder of the user's code, which is the current one and the first that modules are looked for in."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "neighbour.py").write_text("def inner(raised):\n    raise raised\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "neighbour", raising=False)
    yield folder
    sys.modules.pop("neighbour", None)


def raised_by_the_user(error: BaseException) -> BaseException:
    import neighbour

    try:
        neighbour.inner(error)
    except BaseException as caught:
        return caught
    raise AssertionError


def test_an_error_of_the_users_is_told_with_his_frames_and_all_of_the_traceback(code):
    error = raised_by_the_user(ValueError(f"wrong\x1b[31m: {code}/rows"))
    error.__cause__ = KeyError("why")
    told = failed(error, "train", code)
    assert (told.stage, told.kind, told.message, told.exit_status) == ("train", "ValueError", "wrong: rows", 1)
    assert told.frames == ('  File "neighbour.py", line 2, in inner\n    raise raised',)
    assert "KeyError: 'why'" in told.traceback
    assert 'Traceback (most recent call last):\n  File "neighbour.py", line 2' in told.traceback
    assert __file__ not in told.traceback, "what is above the user's code is of no use to him"
    assert (told.is_ours, told.details) == (False, {})


class Odd(Exception):
    """One that cannot be pickled, nor shown as JSON."""

    def __init__(self, lock: object) -> None:
        super().__init__("odd")
        self.lock, self.names, self.path = lock, ("a", 1), Path("/a")


def test_an_error_that_cannot_be_pickled_is_told_with_what_is_plain_in_it(code):
    told = failed(raised_by_the_user(Odd(open)), "script", code)
    assert told.kind == f"{__name__}.Odd"
    assert told.details == {"names": ["a", 1], "path": "/a"}


class Mute(Exception):
    """One that cannot be shown."""

    def __str__(self) -> str:
        return self.missing


def test_an_error_without_a_text_is_told_all_the_same(code):
    told = failed(raised_by_the_user(Mute()), "script", code)
    assert told.message == "Mute, whose text cannot be shown: AttributeError"
    assert "neighbour.py" in told.traceback


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (ConfigurationError("workers=-1"), "heliostat.trainer.errors.settings.ConfigurationError", 1),
        (DatasetError("no dataset"), "heliostat.data.errors.DatasetError", 1),
        (RunPausedError("SIGTERM", Path("/runs/a"), "000001"), "heliostat.trainer.errors.training.RunPausedError", 75),
    ],
)
def test_errors_of_heliostat_are_told_as_such(code, error, kind, status):
    error.add_note("(found by worker 1)")
    told = failed(error, "train", code)
    assert (told.kind, told.exit_status, told.is_ours) == (kind, status, True)
    assert told.message == f"{error}\n(found by worker 1)"
    if status == 75:
        assert told.details == {"reason": "SIGTERM", "run_dir": "/runs/a", "checkpoint": "000001"}


def test_the_traceback_of_a_worker_is_told(code):
    error = TrainingFailedError("raised", "ValueError: x", worker=2, host="beta", step=7, worker_traceback="its frames")
    told = failed(error, "train", code)
    assert told.traceback.endswith("Traceback of worker 2:\nits frames\n")
    assert (told.details["worker"], told.details["step"]) == (2, 7)


@pytest.fixture
def ended(tmp_path, monkeypatch, capsys):
    """ended(act) -> exit status and the messages of a job that does this on a machine whose log folder is tmp_path."""
    from heliostat.cluster.pools.private_api import OwnNode

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv(in_job.EVENTS, "")
    monkeypatch.setattr(in_job.private_api, "own_node", lambda _: OwnNode("0f", tmp_path / "session" / "logs"))
    (tmp_path / "session" / "logs").mkdir(parents=True)

    def run(act, **options):
        before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            status = do_in_job("job", act, **options)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        told = [message for message in map(parse, capsys.readouterr().out.split("\n")) if message is not None]
        assert told[0] == StageBegun(stage="start")
        return status, told[1:]

    return run


def raising(error: BaseException):
    def act(_work):
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (SystemExit(3), 3, "it ended with status 3"),
        (SystemExit(-1), 255, "it ended with status -1"),
        (SystemExit("no data"), 1, "no data"),
        (KeyboardInterrupt(), 130, "KeyboardInterrupt"),
        (ValueError("x"), 1, "x"),
        (RunPausedError("a signal", Path("/a"), None), 75, "The run was paused"),
    ],
)
def test_every_end_is_told_with_its_exit_status(ended, error, status, said):
    found, (told,) = ended(raising(error))
    assert found == told.exit_status == status
    assert told.message.startswith(said)
    assert told.stage == "start"


def test_an_end_that_is_none_is_told_as_done(ended):
    assert ended(raising(SystemExit(0))) == (0, [Done()])
    assert ended(raising(SystemExit())) == (0, [Done()])
    assert ended(lambda _: {"loss": 0.5}) == (0, [Done(value={"loss": 0.5})])


def test_sigterm_outside_of_a_run_ends_the_job_and_its_files_are_told(ended, tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "run.json").write_text("{}")

    def act(work):
        work.begin("script")
        link(work.links, run_dir)
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("it went on")

    status, (begun, told, files) = ended(act)
    assert begun == StageBegun(stage="script")
    assert (status, told.exit_status, told.stage) == (143, 143, "script")
    assert told.message.startswith("it was stopped (SIGTERM)")
    assert (files.path, files.link, list(files.files)) == (str(run_dir), "heliostat-job-1", ["run.json"])


def test_sigterm_while_the_script_is_connected_to_ray_is_known_from_its_exit_status(ended):
    def act(_work):
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))  # what ray.init does
        signal.raise_signal(signal.SIGTERM)

    status, (told,) = ended(act)
    assert (status, told.message[:25]) == (143, "it was stopped (SIGTERM) ")
    assert ended(raising(SystemExit(15)))[0] == 15, "a status that only looks like it"


def test_a_link_that_cannot_be_made_hides_no_end(ended, tmp_path, monkeypatch):
    def refuses(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(in_job, "link", refuses)

    def act(work):
        work.run_dirs = (tmp_path,)
        raise ValueError("x")

    status, (told, warning) = ended(act)
    assert (status, told.message) == (1, "x")
    assert "No space left on device" in warning.text


def test_a_run_folder_that_is_gone_is_told_so_and_loses_its_link(ended, tmp_path):
    def act(work):
        link(work.links, tmp_path / "gone")

    _, (_, files) = ended(act)
    assert files == Files(path=str(tmp_path / "gone"), node_id="0f", link="", files={})
    assert not list((tmp_path / "session" / "logs").iterdir())


def test_many_files_are_told_in_several_messages(ended, tmp_path, monkeypatch):
    monkeypatch.setattr(in_job, "_FILES_PER_MESSAGE", 3)
    (tmp_path / "run").mkdir()
    for number in range(7):
        (tmp_path / "run" / str(number)).touch()

    def act(work):
        work.run_dirs = (tmp_path / "run",)

    _, (_, *told) = ended(act)
    assert [len(files.files) for files in told] == [3, 3, 1]
    assert {name for files in told for name in files.files} == set("0123456")
    assert {(files.path, files.link) for files in told} == {(str(tmp_path / "run"), "heliostat-job-1")}
    assert ended(act, tells_files=False)[1] == [Done()]


def test_outside_of_a_job_that_is_told(ended, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS")
    status, (told,) = ended(lambda _: None)
    assert (status, told.stage) == (1, "start")
    assert "RAY_ADDRESS is not set" in told.message


# -- its folders ------------------------------------------------------------------------------------------------------


def test_a_folder_of_a_job_goes_with_the_job_and_others_stay(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("1")
    session = tmp_path / "session"
    session.mkdir()
    with job_folder(session, tmp_path / "code") as first:
        with job_folder(session) as second:
            assert (first / "train.py").read_text() == "1"
            assert list(second.iterdir()) == []
            (second / "data").touch()
        assert not second.exists()
        assert first.exists()
    assert list(session.iterdir()) == []


def test_what_a_killed_job_has_left_the_next_one_takes_away(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom heliostat.trainer.remote.job_folder import job_folder\n"
        "with job_folder(Path(sys.argv[1])) as made:\n    print(made, flush=True)\n    time.sleep(300)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as child:
        try:
            left = Path(child.stdout.readline().strip())
            with job_folder(tmp_path):
                assert left.exists(), "of one that lives nothing is taken away"
        finally:
            child.kill()
            child.wait()
    assert left.exists()
    with job_folder(tmp_path):
        assert not left.exists()


def test_run_folders_are_removed_and_nothing_else(tmp_path):
    prefix = prefix_of(tmp_path, "job")
    folders = [tmp_path / name for name in ("linked", "recorded", "other", "held")]
    for folder in folders:
        (folder / "logs").mkdir(parents=True)
    opened, recorded, other, held = folders
    for folder in (opened, held):
        link(prefix, folder)
    (recorded / "run.json").write_text("{}")
    remove(prefix, opened)
    remove(prefix, recorded)
    remove(prefix, tmp_path / "never")
    with pytest.raises(ConfigurationError, match="is no run folder"):
        remove(prefix, other)
    with Lease(held, take_over=False), pytest.raises(LeaseHeldError):
        remove(prefix, held)
    assert [folder.exists() for folder in folders] == [False, False, True, True]
    assert list(linked(prefix).values()) == [held]


# -- on a head --------------------------------------------------------------------------------------------------------

SHOWS = """
import os, sys
from pathlib import Path
from heliostat.trainer.remote.wire import display_for
from neighbour import inner

print("arguments", sys.argv, Path("rows/a.csv").read_text(), os.environ["HELIOSTAT_WORKERS"], __name__)
print("here", os.getcwd())
run_dir = Path(os.environ["HELIOSTAT_HOME"], sys.argv[1])
(run_dir / "logs").mkdir(parents=True)
(run_dir / "logs" / "worker-0.log").write_bytes(b"x" * 100_000)
(run_dir / "run.json").write_text("{}")
shown = display_for(2)
shown.say("a line")
shown.run_folder(run_dir)
shown.close()
print("not ended", end="")
inner()
"""


@pytest.fixture
def shows(tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(SHOWS)
    (code / "neighbour.py").write_text("def inner():\n    raise ValueError('found nothing')\n")
    return code


@pytest.mark.ray
def test_a_script_runs_beside_its_data_and_all_that_came_of_it_is_told(head, shows, tmp_path):
    (tmp_path / "a.csv").write_text("x,y")
    name = new_name()
    data = put_data(head.address, {"rows/a.csv": tmp_path / "a.csv"})
    wanted = JobWanted(what="script", job=name, script="train.py", arguments=("r 1",), data=data, workers=3)
    told = submit(head.address, wanted, shows)
    job = told.end()
    assert (job.state, job.exit_code) == ("FAILED", 1)
    assert [each.stage for each in told.of(StageBegun)] == ["start", "data", "script"]
    assert "arguments ['train.py', 'r 1'] x,y 3 __main__" in told.printed
    (here,) = (line.removeprefix("here ") for line in told.printed if line.startswith("here "))
    assert not Path(here).exists(), "the folder with the data is gone"
    assert "not ended" in told.printed
    assert told.of(Said) == [Said(text="a line")]
    run_dir = head.folder / "heliostat" / "r 1"
    (opened,), (error,), (files,) = told.of(FolderOpened), told.of(Failed), told.of(Files)
    assert (opened.path, opened.link) == (str(run_dir), f"heliostat-{name}-1")
    assert (error.stage, error.kind, error.message) == ("script", "ValueError", "found nothing")
    assert [frame.splitlines()[0] for frame in error.frames] == [
        '  File "train.py", line 18, in <module>',
        '  File "neighbour.py", line 2, in inner',
    ]
    assert (files.node_id, files.link) == (job.node_id, opened.link)
    content = told.read(files.node_id, f"{files.link}/logs/worker-0.log")
    mark = files.files["logs/worker-0.log"]
    assert (len(content), xxhash.xxh3_128_hexdigest(content)) == (mark.size, mark.digest) == (100_000, mark.digest)
    assert set(files.files) == {"logs/worker-0.log", "run.json"}
    assert told.messages.index(error) < told.messages.index(files)


@pytest.mark.ray
@pytest.mark.slow
def test_what_another_job_has_left_is_listed_and_removed(head, shows, tmp_path):
    name = new_name()
    (shows / "rows").mkdir()
    (shows / "rows" / "a.csv").write_text("x,y")
    (shows / "train.py").write_text(
        SHOWS.replace("inner()", "os.kill(os.getpid(), 9)").replace("rows/a.csv", "train.py")
    )
    killed = submit(
        head.address, JobWanted(what="script", job=name, script="train.py", arguments=("left",), workers=1), shows
    )
    job = killed.end()
    assert (job.state, job.exit_code) == ("FAILED", -9)
    assert killed.of(Files) == killed.of(Failed) == killed.of(Done) == []
    (opened,) = killed.of(FolderOpened)

    other = head.folder / "heliostat" / "other"
    other.mkdir()
    (other / "run.json").write_text("{}")
    listing = JobWanted(what="list", job=name, run_dirs=(str(other), "/no/such"))
    listed = submit(head.address, listing, name=new_name())
    assert listed.end().state == "SUCCEEDED"
    found = {files.path: files for files in listed.of(Files)}
    assert set(found) == {opened.path, str(other), "/no/such"}
    assert found[opened.path].link == opened.link
    assert found["/no/such"].files == {}
    assert listed.read(found[str(other)].node_id, f"{found[str(other)].link}/run.json") == b"{}"

    removed = submit(head.address, JobWanted(what="remove", job=name, run_dirs=(opened.path,)), name=new_name())
    assert removed.end().state == "SUCCEEDED"
    assert removed.of(Files) == []
    assert (Path(opened.path).exists(), other.exists()) == (False, True)
    assert not (head.logs / opened.link).is_symlink()


TRAINS = """
import sys
import numpy as np
from heliostat.trainer import EverySteps, Trainer

def build_model():
    import time
    import keras
    from heliostat.cluster import instruments

    instruments.listen(lambda point, step: time.sleep(pace_s) if point == "compute" else None)
    model = keras.Sequential([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(5, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model

pace_s = float(sys.argv[1])
rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 12)).astype(np.float32), rng.integers(0, 5, 64)
trainer = Trainer(build_model, workers=1, num_microbatches=4, seed=7, run_dir="run", threads_per_worker=1)
result = trainer.fit((x, y), epochs=3, global_batch_size=16, checkpoint_every=EverySteps(2))
print("weights", result.sha256["weights"])
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_stop_pauses_the_run_and_the_same_job_again_goes_on(head, tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "goes_on.py").write_text(TRAINS)

    def job(pace_s: float) -> JobWanted:
        return JobWanted(what="script", job=new_name(), script="goes_on.py", arguments=(str(pace_s),), workers=2)

    first = submit(head.address, job(0.5), code)
    for each in first.follow():
        if isinstance(each, EpochDone):
            first.here.stop(first.name)
            break
    assert first.end().state == "STOPPED", (first.messages, first.printed)
    (paused,), (files,) = first.of(Failed), first.of(Files)
    assert (paused.exit_status, paused.kind.rpartition(".")[2]) == (75, "RunPausedError")
    assert paused.details["run_dir"] == files.path == str(head.folder / "heliostat" / "goes_on" / "run")
    assert any(name.endswith(f"{paused.details['checkpoint']}/manifest.json") for name in files.files)
    assert any("workers=2, as HELIOSTAT_WORKERS" in said.text for said in first.of(Said))

    again = submit(head.address, job(0), code)
    assert again.end().state == "SUCCEEDED", (again.messages, again.printed)
    assert any("going on from checkpoint" in said.text for said in again.of(Said))
    (files,) = again.of(Files)
    for name, mark in files.files.items():
        content = again.read(files.node_id, f"{files.link}/{name}")
        assert (len(content), xxhash.xxh3_128_hexdigest(content)) == (mark.size, mark.digest), name
    assert {"model.keras", "run.json", "metrics.jsonl", "logs/worker-0.log"} <= set(files.files)
    assert not [name for name in files.files if "lease" in name]

    new = JobWanted(
        what="script", job=new_name(), script="goes_on.py", arguments=("0",), run_dirs=(str(head.folder / "elsewhere"),)
    )
    elsewhere = submit(head.address, new, code)
    assert elsewhere.end().state == "SUCCEEDED"
    assert elsewhere.of(Files)[0].path == str(head.folder / "elsewhere")
    assert [line for line in elsewhere.printed if line.startswith("weights")] == [
        line for line in again.printed if line.startswith("weights")
    ]


@pytest.mark.ray
@pytest.mark.slow
def test_a_stop_while_workers_start_ends_the_job_and_leaves_nothing(head, tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "early.py").write_text(TRAINS)
    wanted = JobWanted(what="script", job=new_name(), script="early.py", arguments=("0",), workers=2)
    told = submit(head.address, wanted, code)
    for each in told.follow():
        if isinstance(each, Said) and each.text.startswith("starting"):
            told.here.stop(told.name)
            break
    assert told.end().state == "STOPPED"
    (stopped,), (files,) = told.of(Failed), told.of(Files)
    assert (stopped.exit_status, stopped.message[:25]) == (143, "it was stopped (SIGTERM) ")
    assert files.files == {}
    assert told.of(EpochDone) == []
    assert not (head.folder / "heliostat" / "early" / "run").exists()
