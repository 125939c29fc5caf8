"""Who tells a tracker something never waits; what the tracker raises, or never returns from, stays in its thread."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from heliostat.trainer.events import CheckpointCommitted, Event, Resumed
from heliostat.trainer.trackers import thread as thread_module
from heliostat.trainer.trackers.thread import TrackerThread
from heliostat.trainer.trackers.tracker import Tracker

from ...slow import SLOW
from .told import RECORD, epoch, sample

RESUMED = Resumed(checkpoint="000001-00000000.g0", epoch=1, step=0)
CHECKPOINT = CheckpointCommitted(name="000002-00000000.g0", epoch=2, step=0, seconds=0.1, write_s=0.1)


class Notes(Tracker):
    """Notes what it is told; raises what it is to raise, once for each that is in `raises`."""

    sample_every_s = 0.0

    def __init__(self) -> None:
        self.told: list[object] = []
        self.raises: dict[str, list[Exception]] = {}

    @property
    def name(self) -> str:
        return "Notes at http://me:secret@host"

    def _note(self, what: str, value: object) -> None:
        if errors := self.raises.get(what):
            raise errors.pop(0)
        self.told.append((what, value))

    def begin(self, path, record):
        self._note("begin", path.name)

    def epoch(self, record, epochs, seconds):
        self._note("epoch", record.epoch)

    def event(self, event: Event) -> None:
        self._note("event", event.event)

    def sample(self, sample):
        self._note("sample", sample.step)

    def end(self, record):
        self._note("end", record["state"])

    def close(self) -> None:
        self._note("close", threading.current_thread().name)


@pytest.fixture
def notes(monkeypatch):
    monkeypatch.setattr(thread_module, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(thread_module, "_HURRIED_PAUSE_S", 0.01)
    return Notes()


@pytest.fixture
def told(notes):
    thread = TrackerThread(notes)
    yield thread
    thread.close()


def run_of(told: TrackerThread, *epochs: int, name: str = "run", within_s: float = 10.0) -> list[str]:
    """A run with these epochs; what is to be said of it."""
    told.begin(Path(name), RECORD)
    for each in epochs:
        told.epoch(epoch(each), 3, 1.0)
    told.end({"state": "finished"})
    told.finish(time.monotonic() + within_s * SLOW)
    return told.take_words()


def test_a_run_is_told_in_order_and_events_before_its_beginning_after_it(told, notes):
    told.event(RESUMED)
    told.begin(Path("run"), RECORD)
    told.epoch(epoch(1), 3, 1.0)
    told.event(CHECKPOINT)
    told.end({"state": "finished"})
    told.finish(time.monotonic() + 10 * SLOW)
    told.close()
    assert notes.told[:-1] == [
        ("begin", "run"),
        ("event", "resumed"),
        ("epoch", 1),
        ("event", "checkpoint"),
        ("end", "finished"),
    ]
    assert notes.told[-1] == ("close", "heliostat-tracker")
    assert told.take_words() == []


def test_what_a_fit_tells_that_did_not_train_is_told_to_nobody(told, notes):
    told.event(RESUMED)
    told.end({"state": "failed"})
    told.finish(time.monotonic() + 10 * SLOW)
    assert run_of(told) == []
    assert notes.told == [("begin", "run"), ("end", "finished")]


def test_a_server_that_was_away_gets_all_of_it_and_one_warning_is_given(told, notes):
    notes.raises = {"begin": [ConnectionError("refused"), TimeoutError()], "epoch": [OSError("reset")]}
    words = run_of(told, 0, 1)
    assert notes.told == [("begin", "run"), ("epoch", 0), ("epoch", 1), ("end", "finished")]
    assert words == [
        "warning: Notes at http://***@host does not answer: ConnectionError: refused. Training goes on; what waits is "
        "sent when it does"
    ]


def test_a_server_that_stays_away_costs_a_bounded_time_and_is_said_to_lack_what(told, notes):
    notes.raises = {"epoch": [ConnectionError("refused")] * 100_000}
    words = run_of(told, 0, 1, within_s=0.2)
    assert notes.told == [("begin", "run")]
    assert words[1] == ("warning: Notes at http://***@host lacks the end, 2 epochs of this run; the run folder has all")
    notes.raises = {}
    assert run_of(told, 0, name="next") == []
    assert notes.told[1:] == [("begin", "next"), ("epoch", 0), ("end", "finished")]


def test_what_a_tracker_cannot_take_is_left_out_and_counted(told, notes):
    notes.raises = {"epoch": [ValueError("a list"), KeyError("loss")]}
    words = run_of(told, 0, 1, 2)
    assert notes.told == [("begin", "run"), ("epoch", 2), ("end", "finished")]
    assert words == [
        "warning: Notes at http://***@host has not taken an epoch: ValueError: a list. Training goes on",
        "warning: Notes at http://***@host lacks 2 epochs of this run; the run folder has all",
    ]


def test_a_run_that_is_refused_is_left_alone_and_the_next_one_is_told(told, notes):
    notes.raises = {"begin": [PermissionError_("no such experiment")]}
    words = run_of(told, 0)
    assert (notes.told, len(words)) == ([], 1)
    assert "has not taken the run: PermissionError_: no such experiment. Training goes on without it" in words[0]
    assert run_of(told, name="next") == []
    assert notes.told == [("begin", "next"), ("end", "finished")]


class PermissionError_(Exception):
    """None of the OSErrors: to try again is of no use."""


def test_nobody_waits_for_a_tracker_that_does_not_return(told, notes, monkeypatch):
    monkeypatch.setattr(thread_module, "SLOW_S", 0.05)
    comes, may_go = threading.Event(), threading.Event()

    def hang(record, epochs, seconds):
        comes.set()
        may_go.wait()

    notes.epoch = hang
    told.begin(Path("run"), RECORD)
    told.epoch(epoch(0), 3, 1.0)
    assert comes.wait(10)
    for step in range(50):
        told.sample(sample(step))
    while not (words := told.take_words()):
        time.sleep(0.01)
    assert "has not answered for" in words[0]
    told.end({"state": "finished"})
    told.finish(time.monotonic() + 0.05)
    lacking = "lacks the end, 1 epoch, 1 sample of this run; the run folder has all"
    assert told.take_words() == [f"warning: Notes at http://***@host {lacking}"]
    may_go.set()


def test_of_samples_the_newest_is_told_now_and_then_and_the_last_one_in_any_case(told, notes):
    notes.sample_every_s = 3600.0
    told.begin(Path("run"), RECORD)
    told.sample(sample(0))
    while len(notes.told) < 2:
        time.sleep(0.01)
    for step in range(1, 5):
        told.sample(sample(step))
    told.end({"state": "finished"})
    told.finish(time.monotonic() + 10 * SLOW)
    assert notes.told == [("begin", "run"), ("sample", 0), ("sample", 4), ("end", "finished")]


def test_what_waits_is_bounded(told, notes, monkeypatch):
    monkeypatch.setattr(thread_module, "_MAX_WAITING", 3)
    may_go = threading.Event()
    notes.begin = lambda path, record: may_go.wait()
    told.begin(Path("run"), RECORD)
    for number in range(10):
        told.epoch(epoch(number), 10, 1.0)
    told.end({"state": "finished"})
    may_go.set()
    told.finish(time.monotonic() + 10 * SLOW)
    assert notes.told == [("epoch", 0), ("epoch", 1), ("end", "finished")]
    assert "lacks 8 epochs of this run" in told.take_words()[0]


def test_a_tracker_is_let_go_where_no_run_was(notes):
    TrackerThread(notes).close()
    assert notes.told == [("close", "MainThread")]
