"""Epochs and events of a run as lines of its files: what was written comes back, and so does what version 2 wrote."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from heliostat.trainer.driver.event_lines import line_of
from heliostat.trainer.driver.run_folder import RunFolder, damaged_lines, read_epochs, read_events
from heliostat.trainer.events import (
    EVENTS,
    CheckpointCommitted,
    EpochRecord,
    Event,
    FirstStepDone,
    GradientNotFinite,
    GroupFormed,
    Paused,
    WorkerLate,
    WorkerLost,
    WorkerNotStarted,
    event_of,
    history_of,
)

SOME = [
    GroupFormed(generation=2, workers=(0, 3), joined=(3,), restarted=False),
    WorkerLost(worker=1, host="a", step=None, reason="killed", left=2),
    WorkerNotStarted(worker=3, host="an unknown host", reason="it did not answer", again_s=4.0),
    FirstStepDone(worker=0, after_s=1.5, seconds={"join": 0.25}),
    GradientNotFinite(worker=0, host="a", epoch=1, step=2, microbatch=None, variables=("dense/kernel",), skipped=True),
    CheckpointCommitted(name="000001-00000000.g0", epoch=1, step=0, seconds=0.1, write_s=0.2),
    Paused(reason="Ctrl-C", checkpoint=None),
]


@pytest.mark.parametrize("event", SOME, ids=lambda event: event.event)
def test_an_event_survives_its_line(event):
    line = json.loads(json.dumps(event.to_json()))
    assert list(line)[:2] == ["time", "event"]
    assert event_of(line) == event
    assert event_of({**line, "of a later version": 1}) == event


def test_of_a_step_that_is_left_out_it_is_said_why_and_not_how_to_leave_it_out():
    event = GradientNotFinite(worker=1, host="a", epoch=0, step=2, microbatch=3, variables=("k",), skipped=True)
    said = line_of(event, num_steps=4)
    assert said.startswith("step left out (worker 1 on a): Microbatch 3 of step 2 of epoch 1 has a gradient")
    assert said.endswith("a log of zero in the loss.")


def test_every_event_has_a_name_of_its_own():
    named = {kind.__name__ for kind in EVENTS.values()}
    assert named == {kind.__name__ for kind in Event.__subclasses__()}
    assert len(named) == len(EVENTS)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"time": 1.0, "event": "landed"}, "no event 'landed'"),
        ({"event": "paused", "reason": "x"}, "lacks 'checkpoint'"),
    ],
)
def test_a_line_that_is_no_event_is_named(line, problem, tmp_path):
    (tmp_path / "events.jsonl").write_text(json.dumps(line) + "\n{}\n")
    assert read_events(tmp_path) == []
    assert re.search(rf"events.jsonl, line 1 is not what Heliostat writes: .*{problem}", damaged_lines(tmp_path)[0])


def test_an_event_of_version_2_is_read():
    line = {"time": 1.0, "event": "late", "worker": 1, "host": "a", "step": 3, "phase": "compute", "stacks": "s"}
    assert event_of(line) == WorkerLate(time=1.0, worker=1, host="a", step=3, activity="compute", stacks="s")


def record(**fields):
    given = {"epoch": 3, "logs": {"loss": 0.5}, "rows": 8, "rows_by_worker": {0: 5, 3: 3}, "seconds_by_worker": {}}
    return EpochRecord(**given | fields)


def test_an_epoch_survives_its_line_in_a_file(tmp_path):
    epoch = record(
        logs={"loss": float("nan"), "rows": 0.25},
        seconds_by_worker={0: {"compute_s": 1.0}},
        row_ids=(((1, 2), (3,)),),
        stopped=True,
    )
    folder = RunFolder(tmp_path / "run", resume=False)
    folder.set_epochs([epoch])
    folder.add_epoch(record(epoch=4))
    first, second = read_epochs(tmp_path / "run")
    assert np.isnan(first.logs.pop("loss"))
    epoch.logs.pop("loss")
    assert (first.logs, first.rows_by_worker, first.stopped) == (epoch.logs, epoch.rows_by_worker, True)
    assert (first.row_ids, second.epoch) == ((), 4), "row ids are kept by checkpoints only"
    assert EpochRecord.from_json(json.loads(json.dumps(epoch.to_json()))) == epoch
    json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0], parse_constant=pytest.fail)


def test_an_epoch_of_version_2_is_read():
    line = {
        "epoch": 3,
        "loss": 0.5,
        "rows": 8,
        "rows_by_worker": {"0": 5, "3": 3},
        "seconds_by_worker": {},
        "stopped": False,
        "row_ids": [[[1], [2]]],
    }
    assert EpochRecord.from_json(line) == record(row_ids=(((1,), (2,)),))


def test_history_keeps_epochs_aligned():
    records = [record(epoch=number, logs=logs) for number, logs in enumerate([{"loss": 1.0}, {"loss": 0.5, "x": 2.0}])]
    assert history_of(records) == {"loss": [1.0, 0.5], "x": [2.0]}
