"""Prometheus: metrics of the run, to be fetched from a port of the driver's machine, by its client's own server.

Nothing is counted here. What there is to tell are the newest values of a run, so metrics are made of them when somebody
asks (a collector), and the counters of a run that goes on go on as well. Names follow Prometheus's rules: base units,
``_total`` for what only grows; no label grows without an end.
"""

from __future__ import annotations

import importlib.metadata
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from heliostat.cluster.group.worker_process import host_name
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..errors import ConfigurationError
from ..events import EpochRecord, Event
from ..samples import Sample, WorkerSample
from .numbers import plain_numbers
from .tracker import Tracker

STATES = ("running", "finished", "paused", "failed", "interrupted")
_WORKER = ("worker", "host")


class PrometheusTracker(Tracker):
    """Offers the metrics of the run that goes on, or of the last one.

    Attributes:
        url: where they are.

    Args:
        host: the interface to listen on.
        port: taken at once; 0 takes any that is free.

    Raises:
        ConfigurationError: the port is taken, or the interface is none of this machine.
    """

    sample_every_s = 0.0

    def __init__(self, host: str, port: int) -> None:
        self._told = RunMetrics()
        registry = CollectorRegistry()
        registry.register(self._told)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigurationError(
                f"metrics_port={port} cannot be used on {host}: {error.strerror}. Another program has it, or another "
                "trainer. Give another port, or 0 for any that is free."
            ) from error
        shown = host_name() if host == "0.0.0.0" else host
        self.url = f"http://{shown}:{self._server.server_port}/metrics"

    @property
    def name(self) -> str:
        """What lines call it."""
        return "Prometheus"

    def begin(self, path: Path, record: Mapping[str, Any]) -> None:
        """Metrics are those of this run from now on."""
        self._told.begin(path, record)

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """Its metrics."""
        self._told.note_epoch(record, epochs)

    def event(self, event: Event) -> None:
        """Counted by its name."""
        self._told.note_event(event)

    def sample(self, sample: Sample) -> None:
        """The newest one."""
        self._told.note_sample(sample)

    def end(self, record: Mapping[str, Any]) -> None:
        """The state; the numbers stay until the next run."""
        self._told.note_state(str(record["state"]))

    def close(self) -> None:
        """Free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class RunMetrics(Collector):
    """What is known of a run by now, as Prometheus has it; told by one thread, asked by others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._labels: dict[str, str] = {}
        self._state = ""
        self._epochs = 0
        self._epoch: EpochRecord | None = None
        self._sample: Sample | None = None
        self._events: Counter[str] = Counter()

    def begin(self, path: Path, record: Mapping[str, Any]) -> None:
        """A run begins, or goes on: forget the one before."""
        with self._lock:
            self._labels = {"run": path.name, "version": importlib.metadata.version("heliostat")}
            self._state, self._epochs = "running", int(record.get("epochs", 0))
            self._epoch = self._sample = None
            self._events = Counter()

    def note_epoch(self, record: EpochRecord, epochs: int) -> None:
        """An epoch is done."""
        with self._lock:
            self._epoch, self._epochs = record, epochs

    def note_event(self, event: Event) -> None:
        """Something has happened."""
        with self._lock:
            self._events[event.event] += 1

    def note_sample(self, sample: Sample) -> None:
        """How far the workers are."""
        with self._lock:
            self._sample = sample

    def note_state(self, state: str) -> None:
        """The run is over."""
        with self._lock:
            self._state = state

    def describe(self) -> Iterator[Metric]:
        """Nothing: all is made when it is asked for."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All metrics by now."""
        with self._lock:
            found = [*self._of_run(), *([] if self._sample is None else _of_sample(self._sample))]
        yield from found

    def _of_run(self) -> Iterator[Metric]:
        if not self._labels:
            return
        info = GaugeMetricFamily("heliostat_run_info", "The run, by its folder's name.", labels=[*self._labels])
        info.add_metric([*self._labels.values()], 1)
        yield info
        state = GaugeMetricFamily("heliostat_run_state", "1 for the state that the run is in.", labels=["state"])
        for each in STATES:
            state.add_metric([each], float(each == self._state))
        yield state
        yield GaugeMetricFamily("heliostat_epochs", "Epochs of the run, when it is finished.", self._epochs)
        done = 0 if self._epoch is None else self._epoch.epoch + 1
        yield GaugeMetricFamily("heliostat_epochs_done", "Epochs that are done.", done)
        metric = GaugeMetricFamily(
            "heliostat_metric",
            "A metric: of the epoch that was done last, and of the one that runs until now.",
            labels=["metric", "epoch"],
        )
        logs = {"done": {} if self._epoch is None else self._epoch.logs}
        logs["running"] = {} if self._sample is None else self._sample.logs
        for epoch, values in logs.items():
            for name, value in plain_numbers(values).items():
                metric.add_metric([name, epoch], value)
        yield metric
        events = CounterMetricFamily("heliostat_events", "What has happened, by names of events.", labels=["event"])
        for name, number in self._events.items():
            events.add_metric([name], number)
        yield events


def _of_sample(sample: Sample) -> Iterator[Metric]:
    """How far the run is, and what its workers do."""
    yield CounterMetricFamily("heliostat_samples", "Rows that the run has trained on.", sample.rows)
    yield CounterMetricFamily("heliostat_steps", "Steps that are done.", sample.step)
    yield GaugeMetricFamily("heliostat_epoch", "The epoch that runs, from 0.", sample.epoch)
    yield GaugeMetricFamily("heliostat_workers", "Workers in the group.", len(sample.workers))
    told = "When the workers were heard of last, seconds since 1970."
    yield GaugeMetricFamily("heliostat_last_sample_timestamp_seconds", told, sample.time)
    yield from _of_workers(sample.workers)


def _of_workers(workers: tuple[WorkerSample, ...]) -> Iterator[Metric]:
    rows = CounterMetricFamily("heliostat_worker_samples", "Rows that a worker has computed.", labels=_WORKER)
    parts = CounterMetricFamily(
        "heliostat_worker_seconds", "A worker's time by part of a step.", labels=[*_WORKER, "part"]
    )
    own = GaugeMetricFamily("heliostat_worker_microbatches", "Microbatches of a step that are its own.", labels=_WORKER)
    memory = GaugeMetricFamily("heliostat_worker_memory_bytes", "Memory that it takes.", labels=[*_WORKER, "where"])
    hooks = CounterMetricFamily("heliostat_callback_seconds", "Time in hooks of callbacks.", labels=["hook"])
    for each in workers:
        who = [str(each.worker), each.host]
        rows.add_metric(who, each.rows)
        own.add_metric(who, each.microbatches)
        for part, seconds in each.seconds.items():
            parts.add_metric([*who, part.removesuffix("_s")], seconds)
        for where, size in each.memory.items():
            memory.add_metric([*who, where], size)
        for hook, seconds in each.hooks.items():
            hooks.add_metric([hook], seconds)
    yield from (rows, parts, own, memory, hooks)
