"""What trackers send is made from what a run records: numbers by name, shares of time, texts without secrets."""

from __future__ import annotations

import json
import math

import pytest
from heliostat.trainer.events import CheckpointCommitted, FirstStepDone, WorkerLost
from heliostat.trainer.report.recorded import RecordedRun
from heliostat.trainer.report.verdict import verdict_of
from heliostat.trainer.trackers.numbers import (
    epoch_metrics,
    event_text,
    parameters,
    plain_numbers,
    sample_metrics,
    shares,
    verdict_in,
)

from .told import RECORD, epoch, sample, worker


def test_a_configuration_is_flat_and_has_no_secrets():
    found = parameters(RECORD)
    assert found == {
        "seed": 7,
        "loop": "fit",
        "data.train": "f00d",
        "columns": '["x", "y"]',
        "workers": 2,
        "global_batch_size": 64,
        "balance": True,
        "data.train.path": "s3://***@bucket/news",
        "data.train.rows": 1000,
        "versions.keras": "3.15.1",
        "epochs": 3,
        "num_weights": 1234,
    }
    assert parameters({"id": "x"}) == {}


def test_numbers_of_an_epoch_are_those_of_history_and_its_speed():
    found = epoch_metrics(epoch(1, note="text", table={"a": 1, "b": [1, 2]}, flag=True), seconds=4.0)
    assert found == {"loss": 0.4, "val_loss": 0.75, "table.a": 1.0, "epoch_s": 4.0, "samples_per_s": 250.0}
    assert math.isnan(plain_numbers({"loss": float("nan")})["loss"])


def test_shares_are_of_the_time_between_two_samples():
    before, now = worker(0, compute_s=10.0, wait_s=0.0), worker(0, compute_s=11.0, wait_s=3.0)
    assert shares(now, before) == {"compute_share": 0.25, "wait_share": 0.75}
    assert shares(now, None) == pytest.approx({"compute_share": 11 / 14, "wait_share": 3 / 14})
    assert shares(before, now) == {"compute_share": 1.0, "wait_share": 0.0}  # it has begun anew since
    assert shares(now, now) == {}


def test_a_sample_tells_speed_and_every_worker():
    before = sample(10, worker(0, 1.0, 0.0), rows=640)
    now = sample(20, worker(0, 1.5, 0.5), worker(1, 0.5, 0.5), rows=1280, at_s=2.0)
    assert sample_metrics(now, before) == {
        "samples_per_s": 320.0,
        "workers/0/compute_share": 0.5,
        "workers/0/wait_share": 0.5,
        "workers/0/memory_host_bytes": float(5 << 20),
        "workers/0/microbatches": 4.0,
        "workers/1/compute_share": 0.5,
        "workers/1/wait_share": 0.5,
        "workers/1/memory_host_bytes": float(5 << 20),
        "workers/1/microbatches": 4.0,
    }
    assert "samples_per_s" not in sample_metrics(now, None)


def test_events_are_told_as_the_screen_tells_them_and_checkpoints_too():
    lost = WorkerLost(worker=1, host="b", step=7, reason="killed", left=1)
    assert event_text(lost) == "lost worker 1 on b at step 7: killed; 1 left"
    made = CheckpointCommitted(name="000002-00000000.g0", epoch=2, step=0, seconds=0.1, write_s=0.1)
    assert event_text(made) == "checkpoint 000002-00000000.g0: epoch 3, step 0"
    assert event_text(FirstStepDone(worker=0, seconds={})) == ""


def test_the_verdict_is_that_of_the_run_folder(tmp_path):
    assert verdict_in(tmp_path) == ""  # it holds no run
    (tmp_path / "run.json").write_text(json.dumps({"format_version": 3, "state": "finished"}))
    assert verdict_in(tmp_path) == verdict_of(RecordedRun(record={"state": "finished"})).sentence
    assert verdict_in(tmp_path).startswith("unknown: 0 steps")
