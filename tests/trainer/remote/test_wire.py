"""Messages come back from a log as they were written, whatever stands before and behind them."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from heliostat.trainer import EnvironmentVariableError
from heliostat.trainer.driver.display import Display
from heliostat.trainer.driver.doing import Doing
from heliostat.trainer.driver.screen import ScreenStream
from heliostat.trainer.driver.worker_table import WorkerRow, WorkerTable
from heliostat.trainer.environment import EVENTS
from heliostat.trainer.events import EpochRecord, WorkerLost
from heliostat.trainer.jobs import Progress
from heliostat.trainer.remote import wire
from heliostat.trainer.remote.wire import (
    MARK,
    Does,
    Done,
    EpochDone,
    Failed,
    FileMark,
    Files,
    FolderOpened,
    Happened,
    LinesDisplay,
    Progressed,
    RunBegan,
    RunEnded,
    Said,
    StageBegun,
    WorkersDid,
    display_for,
    lines_of,
    parse,
    show,
    split,
    to_line,
)

from ...scripts.child import environment
from ..conftest import dense_data
from ..models import linear

PROGRESS = Progress(epoch=1, step=3, steps=9, rows=96, logs={"loss": 0.1 + 0.2, "best": -math.inf}, num_workers=2)
RECORD = EpochRecord(
    epoch=1,
    logs={"loss": 1e-300, "matrix": [[1, 2], [3, None]], "word": "NaN"},
    rows=288,
    rows_by_worker={0: 96, 7: 192},
    seconds_by_worker={0: {"compute": 0.5}, 7: {}},
    stopped=True,
)
EVENT = WorkerLost(worker=1, host="b", step=None, reason="killed", left=1, time=1e9)
TABLE = WorkerTable(rows=(WorkerRow(worker=0, host="a", microbatches=4, speed=None, memory_bytes=1),), num_workers=1)
DOING = Doing(what="validation", done=3, total=None, unit="rows")
MESSAGES = [
    Said(text="two\nlines, größe 日本, \x1b[31m, \u2028, NaN, and \x1e itself"),
    Progressed(progress=PROGRESS, epochs=3),
    EpochDone(record=RECORD, epochs=3, seconds=2.5),
    Happened(event=EVENT.to_json()),
    WorkersDid(table=TABLE),
    Does(doing=(DOING,)),
    RunBegan(path="/runs/a", record={"state": "running", "plan": {"workers": 2}}),
    RunEnded(record={"state": "failed", "error": None}),
    FolderOpened(path="/home/somebody/runs/a b", host="alpha", link="heliostat-x-1"),
    Files(path="/runs/a", node_id="0f" * 28, link="heliostat-x-1", files={"logs/a b": FileMark(size=0, digest="99")}),
    StageBegun(stage="data"),
    Failed(stage="train", kind="ValueError", message="", frames=("one", "two"), exit_status=3, details={"step": None}),
    Done(value={"loss": [1.5, 2], "none": None, "$odd": {"Infinity": "NaN"}}),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_was(message):
    line = to_line(message)
    assert line.startswith(MARK)
    assert line.count("\n") == line.count(MARK) == 1, "whatever it holds, it is one line with one mark"
    assert line.isascii()
    assert parse(line) == parse(line.rstrip("\n")) == message
    assert split(f"Loading ... {line}") == ("Loading ... ", message)
    assert {type(each) for each in MESSAGES} == set(wire.MESSAGES.values())


def test_nan_comes_back():
    message = parse(to_line(Progressed(progress=Progress(**{**PROGRESS_FIELDS, "logs": {"loss": math.nan}}), epochs=1)))
    assert math.isnan(message.progress.logs["loss"])


PROGRESS_FIELDS = {name: getattr(PROGRESS, name) for name in ("epoch", "step", "steps", "rows", "num_workers")}


@pytest.mark.parametrize(
    "line",
    [
        *("", "a line\n", "{}", '{"is": "said", "text": "no mark"}'),
        *(f"{MARK}", f"{MARK}{{", f"{MARK}[1]\n", f'{MARK}{{"is": "said"}}', f'{MARK}{{"is": "unheard", "a": 1}}'),
        *(to_line(MESSAGES[2])[:-9], f"{MARK}{'[' * 100_000}"),
    ],
)
def test_what_is_no_message_stays_a_line(line):
    assert split(line) == (line, None)


def test_a_log_is_cut_at_the_ends_of_lines_and_nowhere_else():
    log = f"printed\x0b\u2028 on\n\n{to_line(MESSAGES[0])}no end"
    assert lines_of(log) == ["printed\x0b\u2028 on", "", to_line(MESSAGES[0]).rstrip("\n"), "no end"]
    assert lines_of("one\n") == ["one"]
    assert lines_of("") == []


def test_a_field_that_a_later_version_adds_is_left_out():
    assert parse(to_line(Said(text="a")).replace('"text"', '"more": [1], "text"')) == Said(text="a")


def test_what_the_codec_does_not_know_is_told_as_text():
    assert parse(to_line(Done(value={"path": Path("/a"), "t": float("nan")}))).value["path"] == "/a"


class Noted(Display):
    """Notes which methods were called with what."""

    def __init__(self):
        self.calls = []

    def say(self, text):
        self.calls.append(("say", text))

    def progress(self, progress, epochs):
        self.calls.append(("progress", progress, epochs))

    def epoch(self, record, epochs, seconds):
        self.calls.append(("epoch", record, epochs, seconds))

    def run_folder(self, path):
        self.calls.append(("run_folder", path))

    def begin(self, path, record):
        self.calls.append(("begin", path, record))

    def event(self, event):
        self.calls.append(("event", event))

    def workers(self, table):
        self.calls.append(("workers", table))

    def doing(self, doing):
        self.calls.append(("doing", doing))

    def end(self, record):
        self.calls.append(("end", record))


def call_all(display: Display, run_dir: Path) -> None:
    display.say("plan: 2 workers")
    display.run_folder(run_dir)
    display.doing(DOING)
    display.begin(run_dir, {"state": "running"})
    display.progress(PROGRESS, 3)
    display.workers(TABLE)
    display.event(EVENT)
    display.doing(None)
    display.epoch(RECORD, 3, 2.5)
    display.end({"state": "finished"})


def test_a_display_elsewhere_is_called_as_one_here(tmp_path):
    here, elsewhere, log = Noted(), Noted(), io.StringIO()
    call_all(here, tmp_path)
    call_all(LinesDisplay(log, tmp_path / "links"), tmp_path)
    for line in log.getvalue().split("\n")[:-1]:
        show(parse(line), elsewhere)
    assert elsewhere.calls == here.calls
    assert len(here.calls) == 10


def test_a_quiet_one_tells_of_folders_alone(tmp_path):
    log = io.StringIO()
    call_all(LinesDisplay(log, tmp_path / "links", is_quiet=True), tmp_path)
    (line,) = log.getvalue().split("\n")[:-1]
    told = parse(line)
    assert (told.path, told.link) == (str(tmp_path), "links-1")
    assert (tmp_path / "links-1").readlink() == tmp_path


def test_a_folder_that_cannot_be_linked_is_told_all_the_same(tmp_path):
    log = io.StringIO()
    LinesDisplay(log, tmp_path / "missing" / "links").run_folder(tmp_path)
    said, told = map(parse, log.getvalue().split("\n")[:-1])
    assert "cannot be fetched" in said.text
    assert (told.path, told.link) == (str(tmp_path), "")


def test_row_ids_are_not_told(tmp_path):
    log = io.StringIO()
    record = EpochRecord(epoch=0, logs={}, rows=2, rows_by_worker={}, seconds_by_worker={}, row_ids=(((1, 2),),))
    LinesDisplay(log, tmp_path / "links").epoch(record, 1, 1.0)
    assert parse(log.getvalue()).record.row_ids == ()


def test_progress_is_told_now_and_then_and_less_often_after_hours(tmp_path, monkeypatch):
    now_s, log = 1000.0, io.StringIO()
    monkeypatch.setattr(wire.time, "monotonic", lambda: now_s)
    display = LinesDisplay(log, tmp_path / "links")

    def told_in(seconds: float) -> int:
        nonlocal now_s
        log.truncate(0)
        for _ in range(int(seconds * 5)):
            display.progress(PROGRESS, 3)
            now_s += 0.2
        return log.getvalue().count(MARK)

    assert 8 <= told_in(10) <= 11
    now_s += 24 * 3600
    assert 9 <= told_in(100) <= 11


LONG = 300_000


def test_a_long_message_in_a_file_is_torn_by_nobody(tmp_path):
    path = tmp_path / "log"
    with path.open("a") as target, path.open("ab", buffering=0) as other:
        over = threading.Event()

        def print_meanwhile():
            while not over.is_set():
                other.write(b"from a library\n")

        thread = threading.Thread(target=print_meanwhile)
        thread.start()
        try:
            for number in range(50):
                ScreenStream(target).write(to_line(Said(text=str(number) * LONG)))
        finally:
            over.set()
            thread.join(60)
    lines = path.read_text().split("\n")
    assert [m.text[0] for m in map(parse, lines) if m is not None] == [str(number)[0] for number in range(50)]
    assert lines.count("from a library") > 0, "somebody has printed meanwhile"
    assert all(line in ("", "from a library") or parse(line) for line in lines)


def test_only_a_job_that_is_watched_tells_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(EVENTS, raising=False)
    with_text = display_for(2)
    monkeypatch.setenv(EVENTS, str(tmp_path / "links"))
    with_lines = display_for(2)
    for display in (with_text, with_lines):
        display.say("a line")
        display.close()
    assert capsys.readouterr().out == "a line\n" + to_line(Said(text="a line"))
    monkeypatch.setenv(EVENTS, "links")
    with pytest.raises(EnvironmentVariableError, match="HELIOSTAT_EVENTS is 'links'; it must be an absolute path"):
        display_for(2)


@pytest.mark.engine
@pytest.mark.parametrize("verbose", [0, 2])
def test_a_fit_tells_its_folder_its_epochs_and_what_is_said(tmp_path, monkeypatch, capsys, train, verbose):
    monkeypatch.setenv(EVENTS, str(tmp_path / "links"))
    result = train(linear("sgd"), dense_data(64), workers=0, verbose=verbose)
    told = [message for message in map(parse, capsys.readouterr().out.split("\n")) if message is not None]
    (opened,) = (message for message in told if isinstance(message, FolderOpened))
    assert (opened.path, opened.link) == (str(result.run_dir), "links-1")
    epochs = [message.record for message in told if isinstance(message, EpochDone)]
    assert [epoch.logs for epoch in epochs] == ([] if verbose == 0 else [epoch.logs for epoch in result.epochs])
    assert any(isinstance(message, Said) for message in told) == (verbose != 0)
    train(linear("sgd"), dense_data(64), workers=0, verbose=0)
    assert (tmp_path / "links-2").readlink() != (tmp_path / "links-1").readlink() == result.run_dir


def test_no_ray_and_no_tensorflow_is_loaded_to_read_messages():
    code = "import sys, heliostat.trainer.remote.wire; print({'ray', 'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.stdout == "set()\n", done.stderr
