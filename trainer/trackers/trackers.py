"""The trackers of one trainer, and the screen that tells them what it shows."""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..driver.audience import Audience
from ..driver.display import Display
from ..driver.doing import Doing
from ..driver.run_paths import placed
from ..driver.worker_table import WorkerTable
from ..environment import mlflow_server
from ..errors import ConfigurationError
from ..events import EpochRecord, Event
from ..jobs import Progress
from ..samples import Sample
from .mlflow import MlflowTracker, told_server
from .tensorboard import TensorBoardTracker
from .thread import PATIENCE_S, TrackerThread
from .tracker import Tracker
from .wandb import WandbTracker
from .wanted import TrackersWanted


class Trackers(Audience):
    """Has them told of the runs of a trainer, each by a thread; lets them go when nobody refers to the trainer.

    Attributes:
        metrics_url: where Prometheus finds the metrics; empty without.

    Args:
        wanted: which; the port for Prometheus is taken at once.

    Raises:
        ConfigurationError: a package is missing, the port is taken, or there is no server to send to.
    """

    def __init__(self, wanted: TrackersWanted) -> None:
        self._wanted, self.metrics_url = wanted, ""
        self._threads: list[TrackerThread] = []
        self._forsaken = weakref.finalize(self, _let_go_aside, self._threads)
        self._forsaken.atexit = False  # threads end with the program by themselves
        self._open()

    def _open(self) -> None:
        """Make the trackers, once more after `close`: a trainer that was closed can be used again."""
        wanted = self._wanted
        wanted.check_packages()
        trackers, self._said_url = list[Tracker](), False
        if wanted.tensorboard:
            own = wanted.tensorboard is True
            trackers.append(TensorBoardTracker(None if own else placed(Path(str(wanted.tensorboard)).expanduser())))
        if wanted.mlflow:
            trackers.append(MlflowTracker(_server_of(wanted.mlflow)))
        if wanted.wandb:
            trackers.append(WandbTracker("" if wanted.wandb is True else str(wanted.wandb)))
        if (address := wanted.metrics_address()) is not None:
            from .prometheus import PrometheusTracker  # and a server for HTTP, which others have no use for

            trackers.append(prometheus := PrometheusTracker(*address))
            self.metrics_url = prometheus.url
        self._threads += [TrackerThread(each) for each in (*trackers, *wanted.trackers)]
        self._is_open = True

    @contextlib.contextmanager
    def watching(self, screen: Display) -> Iterator[Display]:
        """The screen of one run, which tells the trackers, too; at its end they have some seconds to take the rest."""
        if not self._is_open:
            self._open()
        if not self._threads:
            yield screen
            return
        if self.metrics_url and not self._said_url:
            self._said_url = True
            screen.say(f"metrics for Prometheus: {self.metrics_url}")
        watched = Watched(screen, self._threads)
        try:
            yield watched
        finally:
            until_s = time.monotonic() + PATIENCE_S
            for each in self._threads:
                each.finish(until_s)
            watched.say_words()

    def close(self) -> None:
        """Let the trackers go, and the port."""
        self._is_open = False
        _let_go(self._threads)
        self._threads.clear()


class Watched(Display):
    """A screen that trackers are told beside; what they have to say, it shows.

    Args:
        screen: what the user sees.
        threads: of the trackers.
    """

    def __init__(self, screen: Display, threads: Sequence[TrackerThread]) -> None:
        self._screen, self._threads = screen, threads

    def say_words(self) -> None:
        """Show what the trackers have to say; where nothing is shown it is a warning of Python's."""
        for word in [word for each in self._threads for word in each.take_words()]:
            if type(self._screen) is Display:
                warnings.warn(word, RuntimeWarning, stacklevel=2)
            else:
                self._screen.say(word)

    def say(self, text: str) -> None:
        """For the screen alone."""
        self._screen.say(text)

    def progress(self, progress: Progress, epochs: int) -> None:
        """For the screen alone: samples say more, and less often."""
        self._screen.progress(progress, epochs)

    def workers(self, table: WorkerTable) -> None:
        """For the screen alone."""
        self._screen.workers(table)

    def doing(self, doing: Doing | None) -> None:
        """For the screen alone."""
        self._screen.doing(doing)

    def tick(self) -> None:
        """For the screen alone."""
        self._screen.tick()

    def run_folder(self, path: Path) -> None:
        """For the screen alone."""
        self._screen.run_folder(path)

    def begin(self, path: Path, record: Mapping[str, Any]) -> None:
        """Tell all."""
        for each in (self._screen, *self._threads):
            each.begin(path, record)

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """Tell all."""
        for each in (self._screen, *self._threads):
            each.epoch(record, epochs, seconds)
        self.say_words()

    def event(self, event: Event) -> None:
        """Tell all."""
        for each in (self._screen, *self._threads):
            each.event(event)

    def sample(self, sample: Sample) -> None:
        """Tell all."""
        for each in (self._screen, *self._threads):
            each.sample(sample)
        self.say_words()

    def end(self, record: Mapping[str, Any]) -> None:
        """Tell all."""
        for each in (self._screen, *self._threads):
            each.end(record)

    def close(self) -> None:
        """For the screen alone: trackers stay for the next run."""
        self._screen.close()


def _server_of(given: bool | str) -> str:
    """The MLflow server; empty for the one that its client has been told. Raises ConfigurationError."""
    uri = (mlflow_server() or told_server()) if given is True else str(given)
    if uri is None:
        raise ConfigurationError(
            "mlflow=True sends to the server that the environment variable MLFLOW_TRACKING_URI names, and it is not "
            "set. Set it, or give the address: mlflow='http://HOST:5000'."
        )
    return uri


def _let_go(threads: Sequence[TrackerThread]) -> None:
    for each in threads:
        each.close()


def _let_go_aside(threads: Sequence[TrackerThread]) -> None:
    """Let trackers of a trainer that is gone go, on a thread: whoever collects garbage may hold any lock."""
    if threads:
        threading.Thread(target=_let_go, args=(threads,), name="heliostat-free", daemon=True).start()
