"""Plain lines and lines for programs: what they say, and that they are never silent for long."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from heliostat.trainer.driver import display, json_lines
from heliostat.trainer.driver.display import PlainDisplay
from heliostat.trainer.driver.doing import Doing
from heliostat.trainer.driver.event_lines import EventLines
from heliostat.trainer.driver.json_lines import JsonDisplay
from heliostat.trainer.driver.run_folder import read_epochs, read_events
from heliostat.trainer.driver.worker_table import WorkerRow, WorkerTable
from heliostat.trainer.events import EpochRecord, GroupFormed, WorkerLost, event_of
from heliostat.trainer.jobs import Progress
from heliostat.trainer.samples import Sample, WorkerSample

from ..helpers import local_trainer
from ..models import linear

SLOW = WorkerRow(worker=1, host="b", microbatches=3, speed=0.5, input_share=0.0, wait_share=0.0)
LOST = WorkerLost(worker=1, host="b", step=7, reason="killed", left=2, time=100.0)


def at(step: int) -> Progress:
    return Progress(epoch=0, step=step, steps=100, rows=10 * step, num_workers=2, logs={"loss": 0.5})


class Clock:
    """Stands in for a module's `time`; a test moves it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    for module in (display, json_lines):
        monkeypatch.setattr(module, "time", found)
    return found


def test_plain_lines_say_what_lasts_every_ten_seconds(clock):
    target = io.StringIO()
    shown = PlainDisplay(target)
    shown.doing(Doing(what="validation", done=0, total=400, unit="rows"))
    for second in range(1, 31):
        clock.now_s += 1.0
        if second % 5 == 0:
            shown.doing(Doing(what="validation", done=10 * second, total=400, unit="rows"))
        shown.tick()
    shown.doing(None)
    clock.now_s += 60.0
    shown.tick()
    assert target.getvalue().splitlines() == [
        "validation: 100 of 400 rows, 10 s, 10 rows/s, about 30 s left",
        "validation: 200 of 400 rows, 20 s, 10 rows/s, about 20 s left",
        "validation: 300 of 400 rows, 30 s, 10 rows/s, about 10 s left",
    ]


def test_plain_lines_of_progress_tell_of_workers_where_something_is_off(clock):
    target = io.StringIO()
    shown = PlainDisplay(target)
    for step in range(1, 26):
        clock.now_s += 1.0
        if step == 12:
            shown.workers(WorkerTable(rows=(SLOW,), num_workers=2))
        shown.progress(at(step), 3)
    first, second = target.getvalue().splitlines()
    assert first == "epoch 1/3  step 10/100  loss 0.5  10 samples/s  4 min 50 s left"
    assert second.startswith("epoch 1/3  step 20/100  ")
    assert second.endswith("; worker 1 on b: 50% of the speed of most")


def test_a_loss_says_how_long_the_others_needed_to_go_on():
    def sample(**regroup_s: float) -> Sample:
        workers = (
            WorkerSample(worker=int(name[1:]), host="a", step=1, rows=1, microbatches=1, seconds={"regroup_s": seconds})
            for name, seconds in regroup_s.items()
        )
        return Sample(epoch=0, step=1, rows=1, logs={}, workers=tuple(workers))

    lines = EventLines(100)
    formed = GroupFormed(generation=3, workers=(0, 2), joined=(), restarted=False)
    joined = GroupFormed(generation=4, workers=(0, 2, 3), joined=(3,), restarted=False, hosts={3: "b"})
    assert lines.line_of_sample(sample(w0=1.0, w1=1.0, w2=0.5)) == ""
    assert lines.line_of(LOST) == "lost worker 1 on b at step 7: killed; 2 left"
    assert lines.line_of_sample(sample(w0=1.0, w1=1.0, w2=0.5)) == "", "it is of before"
    assert lines.line_of(formed) == ""
    assert lines.line_of_sample(sample(w0=1.04, w2=0.56)) == "going on after 0.06 s with 2 workers"
    assert lines.line_of(joined) == "joined: worker 3 on b; 3 workers"
    assert lines.line_of_sample(sample(w0=1.14, w2=0.66, w3=0.1)) == "", "nobody was lost since"
    lines.line_of(LOST)
    lines.line_of(GroupFormed(generation=5, workers=(4,), joined=(4,), restarted=True))
    assert lines.line_of_sample(sample(w4=2.0)) == "", "they began again"
    wordy = WorkerLost(worker=1, host="b", step=7, reason="Ray says much. " * 30, left=2)
    assert lines.line_of(wordy) == "lost worker 1 on b at step 7: Ray says much; 2 left"


def test_lines_for_programs_are_objects_with_a_time_and_a_name(clock):
    target = io.StringIO()
    shown = JsonDisplay(target)
    worker = WorkerSample(worker=0, host="a", step=3, rows=9, microbatches=4, seconds={"compute_s": 1.5}, computed=12)
    sample = Sample(epoch=0, step=3, rows=9, logs={"loss": math.nan}, workers=(worker,), time=7.0)
    epoch = EpochRecord(epoch=0, logs={"loss": 0.5}, rows=9, rows_by_worker={0: 9}, seconds_by_worker={}, time=8.0)
    shown.say("a line")
    shown.begin(Path("runs/a"), {"state": "running"})
    shown.progress(at(1), 3)
    shown.progress(at(2), 3)
    shown.sample(sample)
    clock.now_s += 60.0
    shown.progress(at(3), 3)
    shown.event(LOST)
    shown.doing(Doing(what="validation", done=1, total=2, unit="rows"))
    shown.doing(Doing(what="validation", done=2, total=2, unit="rows"))
    shown.doing(None)
    shown.epoch(epoch, 3, 1.23456)
    shown.end({"state": "finished"})
    found = [json.loads(line) for line in target.getvalue().splitlines()]
    assert [each["event"] for each in found] == (
        ["line", "begin", "progress", "sample", "lost", "doing", "epoch", "end"]
    )
    assert all(list(each)[:2] == ["time", "event"] for each in found)
    assert event_of(found[4]) == LOST
    assert found[3]["logs"] == {"loss": "NaN"}
    assert found[3]["time"] == 7.0
    assert found[3]["workers"] == [worker.to_json()]
    assert EpochRecord.from_json(found[6]) == epoch
    assert (found[6]["seconds"], found[6]["epochs"]) == (1.235, 3)


@pytest.mark.engine
def test_the_lines_of_a_run_for_programs_hold_all_that_its_folder_tells(tmp_path, capsys):
    x = np.linspace(0, 1, 192, dtype="float32").reshape(64, 3)
    with local_trainer(linear(), tmp_path, workers=2) as trainer:
        trainer.fit(x, x[:, :1], batch_size=8, epochs=2, validation_split=0.25, verbose="json")
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    events = read_events(tmp_path / "run")
    names = {event.event for event in events}
    assert {"formed", "first_step", "checkpoint"} <= names
    assert [event_of(each) for each in found if each["event"] in names] == events
    epochs = [EpochRecord.from_json(each) for each in found if each["event"] == "epoch"]
    assert [(each.epoch, each.logs) for each in epochs] == [
        (each.epoch, each.logs) for each in read_epochs(tmp_path / "run")
    ]
    (began,) = [each for each in found if each["event"] == "begin"]
    assert began["record"]["plan"]["workers"] == 2
    ended = found[-1] if found[-1]["event"] == "end" else [each for each in found if each["event"] == "end"][-1]
    assert ended["record"]["state"] == "finished"
