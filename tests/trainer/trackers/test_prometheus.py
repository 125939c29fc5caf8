"""Metrics as a server of Prometheus gets them: over HTTP, read by the client's own parser."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from heliostat.trainer.events import WorkerLost
from heliostat.trainer.trackers.prometheus import PrometheusTracker
from prometheus_client.parser import text_string_to_metric_families

from .told import RECORD, epoch, sample, worker


@pytest.fixture
def tracker():
    made = PrometheusTracker("127.0.0.1", 0)
    yield made
    made.close()


def scraped(tracker: PrometheusTracker) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All values by name and labels."""
    with urllib.request.urlopen(tracker.url) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    assert all(family.documentation and family.type in ("gauge", "counter") for family in families)
    return {
        (each.name, frozenset(each.labels.items())): each.value for each in (s for f in families for s in f.samples)
    }


def of(found, name: str, **labels: str) -> float:
    return found[f"heliostat_{name}", frozenset(labels.items())]


def test_before_a_run_there_is_nothing(tracker):
    assert scraped(tracker) == {}


def test_a_run_is_offered_as_it_is_by_now(tracker):
    tracker.begin(Path("runs/news"), RECORD)
    assert of(scraped(tracker), "run_state", state="running") == 1
    tracker.sample(sample(20, worker(0, 1.5, 0.5, rows=700), worker(1, 1.0, 1.0, rows=580), rows=1280, at_s=3))
    tracker.epoch(epoch(1, note="text"), 3, 2.0)
    for _ in range(2):
        tracker.event(WorkerLost(worker=1, host="b", step=7, reason="killed", left=1))
    found = scraped(tracker)
    assert of(found, "run_info", run="news", version="0.1.0") == 1
    assert of(found, "samples_total") == 1280
    assert of(found, "steps_total") == 20
    assert (of(found, "epoch"), of(found, "epochs"), of(found, "epochs_done")) == (0, 3, 2)
    assert of(found, "workers") == 2
    assert of(found, "last_sample_timestamp_seconds") == 1_700_000_003.0
    assert of(found, "metric", metric="loss", epoch="running") == 0.625
    assert of(found, "metric", metric="val_loss", epoch="done") == 0.75
    assert ("heliostat_metric", frozenset({("metric", "note"), ("epoch", "done")})) not in found
    assert of(found, "worker_seconds_total", worker="1", host="host-1", part="wait") == 1.0
    assert of(found, "worker_samples_total", worker="0", host="host-0") == 700
    assert of(found, "worker_memory_bytes", worker="0", host="host-0", where="host") == 5 << 20
    assert of(found, "worker_microbatches", worker="0", host="host-0") == 4
    assert of(found, "callback_seconds_total", hook="CSVLogger.on_epoch_end") == 0.25
    assert of(found, "events_total", event="lost") == 2


def test_after_a_run_its_numbers_stay_until_the_next(tracker):
    tracker.begin(Path("runs/news"), RECORD)
    tracker.sample(sample(20, worker(0, 1.5, 0.5), rows=1280))
    tracker.end({"state": "finished"})
    found = scraped(tracker)
    assert (of(found, "run_state", state="finished"), of(found, "run_state", state="running")) == (1, 0)
    assert of(found, "samples_total") == 1280
    tracker.begin(Path("runs/news-2"), RECORD)
    found = scraped(tracker)
    assert of(found, "run_info", run="news-2", version="0.1.0") == 1
    assert ("heliostat_samples_total", frozenset()) not in found
