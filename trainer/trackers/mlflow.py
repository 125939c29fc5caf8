"""MLflow: a run of its server for each run of ours, by its own client (``mlflow-skinny``).

The run there is found again by a tag with our run's id, which stays when a run goes on, in another process or on
another machine: no file has to say so, and a request whose answer was lost makes no second run. Parameters there never
change, so what does when a run goes on (the number of workers, say) becomes a tag.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..driver.shown_text import masked
from ..environment import mlflow_experiment, mlflow_prints_nothing
from ..events import EpochRecord, Event
from ..samples import Sample
from .numbers import epoch_metrics, event_text, parameters, sample_metrics, verdict_in
from .tracker import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ID, _STATE, _VERDICT = "heliostat.run_id", "heliostat.state", "heliostat.verdict"
_MOST_PARAMETERS, _MOST_METRICS = 100, 1000  # of one request
_STATUS = {"finished": "FINISHED", "failed": "FAILED"}  # others: KILLED, somebody has stopped them
_MAY_PASS = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"}
_NOT_IN_NAMES = re.compile(r"[^\w./: -]")
_Each = TypeVar("_Each")


class MlflowTracker(Tracker):
    """Sends to an MLflow server.

    Args:
        uri: of the server; empty for the one that MLflow's client was told in this process.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._there: _RunThere | None = None  # None before `begin`
        self._path = Path()
        self._before: Sample | None = None

    @property
    def name(self) -> str:
        """What lines call it."""
        return f"MLflow at {self._uri}" if self._uri else "MLflow"

    @property
    def note(self) -> str:
        """Where the run is seen."""
        server, run = self._uri.rstrip("/"), self._run
        is_web = server.startswith(("http://", "https://"))
        return f"MLflow: {server}/#/experiments/{run.experiment}/runs/{run.id}" if is_web else ""

    def begin(self, path: Path, record: Mapping[str, Any]) -> None:
        """Find the run there, or make it, and tell its parameters."""
        self._path, self._before = path, None
        with _passing():
            self._there = _RunThere(self._uri, str(record["id"]), path.name)
            self._there.describe({name: str(value) for name, value in parameters(record).items()})

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """Its metrics, at its number."""
        self._log(epoch_metrics(record, seconds), record.epoch, record.time)

    def sample(self, sample: Sample) -> None:
        """Among the metrics of the system, at the step of the run."""
        found = sample_metrics(sample, self._before)
        self._log({f"system/{name}": value for name, value in found.items()}, sample.step, sample.time)
        self._before = sample

    def event(self, event: Event) -> None:
        """The last one of each kind, as a tag."""
        if text := event_text(event):
            self._tag({f"heliostat.{event.event}": text})

    def end(self, record: Mapping[str, Any]) -> None:
        """The state and the verdict."""
        state, verdict = str(record["state"]), verdict_in(self._path)
        self._tag({_STATE: state} | ({_VERDICT: verdict} if verdict else {}))
        with _passing(), mlflow_prints_nothing():
            self._run.client.set_terminated(self._run.id, status=_STATUS.get(state, "KILLED"))

    @property
    def _run(self) -> _RunThere:
        if self._there is None:
            raise RuntimeError("the run has not begun")
        return self._there

    def _log(self, metrics: Mapping[str, float], step: int, time_s: float) -> None:
        from mlflow.entities import Metric

        at_ms = int(1000 * time_s)
        found = [Metric(_NOT_IN_NAMES.sub("_", name), value, at_ms, step) for name, value in metrics.items()]
        with _passing():
            for some in _parts(found, _MOST_METRICS):
                self._run.client.log_batch(self._run.id, metrics=some)

    def _tag(self, tags: Mapping[str, str]) -> None:
        with _passing():
            self._run.tag(tags)


class _RunThere:
    """A run on the server: found by our run's id, or made.

    Attributes:
        client: of the server.
        experiment: the id of the run's experiment there; `id` is the run's.

    Args:
        uri: of the server.
        run_id: our run's.
        name: what a new one is called.
    """

    def __init__(self, uri: str, run_id: str, name: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(uri or None)
        self.experiment = _experiment(self.client)
        found = self.client.search_runs([self.experiment], f"tags.`{_ID}` = '{run_id}'", max_results=1)
        run = found[0] if found else self.client.create_run(self.experiment, run_name=name, tags={_ID: run_id})
        self.id, self._told = run.info.run_id, dict(run.data.params)
        if found:
            self.client.update_run(self.id, status="RUNNING")

    def describe(self, wanted: Mapping[str, str]) -> None:
        """Tell parameters; those that are there with other values become tags."""
        from mlflow.entities import Param

        new = [Param(name, value) for name, value in wanted.items() if name not in self._told]
        for some in _parts(new, _MOST_PARAMETERS):
            self.client.log_batch(self.id, params=some)
        changed = {name: value for name, value in wanted.items() if self._told.get(name, value) != value}
        self.tag({_STATE: "running", **{f"heliostat.{name}": value for name, value in changed.items()}})

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        for some in _parts([RunTag(name, value) for name, value in tags.items()], _MOST_PARAMETERS):
            self.client.log_batch(self.id, tags=some)


def told_server() -> str | None:
    """The server that MLflow's client knows in this process, empty if it has a default; None if it knows none."""
    loaded = sys.modules.get("mlflow")  # who has told it, has loaded it
    return "" if loaded is not None and loaded.is_tracking_uri_set() else None


def _experiment(client: MlflowClient) -> str:
    """The id of the experiment that the environment names, made if it is not there; MLflow's default one without."""
    name, number = mlflow_experiment()
    if not name:
        return number
    found = client.get_experiment_by_name(name)
    return client.create_experiment(name) if found is None else found.experiment_id


@contextlib.contextmanager
def _passing() -> Iterator[None]:
    """Errors of the block that may pass are ConnectionError: the server is not there, or has trouble of its own."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in _MAY_PASS:
            raise ConnectionError(masked(str(error))) from error
        raise


def _parts(values: Sequence[_Each], most: int) -> Iterator[Sequence[_Each]]:
    for first in range(0, len(values), most):
        yield values[first : first + most]
