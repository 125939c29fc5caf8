"""What a trainer holds between its calls: the runs that it makes, here or on a cluster, and the workers for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from heliostat.cluster.links import PairBandwidth

from .driver.asked import job_server
from .driver.runs import Runs
from .trackers.trackers import Trackers
from .trackers.wanted import TrackersWanted
from .trainer_config import TrainerConfig

if TYPE_CHECKING:
    from .remote.call import RemoteRuns


class HeldRuns:
    """The part of a trainer that owns workers.

    Args:
        settings: the trainer's.
        runs: who makes its runs.
    """

    def __init__(self, settings: TrainerConfig, runs: Runs | RemoteRuns) -> None:
        self._settings, self._runs = settings, runs

    def resize(self, workers: int) -> None:
        """Change how many workers there shall be: before the first task, between two, or from another thread in one.

        Workers join or leave between two steps; results do not change. On a cluster of several machines the cores of
        the first `min_workers` stay reserved until the trainer is closed.

        Raises:
            ConfigurationError: less than one, or more than `max_workers`.

        Example:
            >>> growing = Trainer(build_model, workers=1, max_workers=4)
            >>> growing.resize(4)
            >>> growing.resize(5)
            Traceback (most recent call last):
            ConfigurationError: resize(5): this trainer can have 1 to 4 workers. ...
        """
        self._runs.resize(workers)

    def measure_links(self) -> tuple[PairBandwidth, ...]:
        """Bandwidth and latency between every two workers, as a step's all-reduce gets them; takes some seconds.

        Example:
            >>> with Trainer(build_model, workers=2, in_process=True) as two:
            ...     (pair,) = two.measure_links()
            >>> pair.workers, pair.bytes_per_s > 0
            ((0, 1), True)
        """
        return self._runs.measure_links()

    @property
    def hosts(self) -> dict[int, str]:
        """The machine of every worker that is up, by the worker's number; empty before the first task.

        Example:
            >>> sorted(trainer.hosts)
            [0]
        """
        return self._runs.hosts

    def close(self) -> None:
        """Stop the workers, and the Ray that was started for them.

        Example:
            >>> another = Trainer(build_model, workers=0)
            >>> result = another.fit(x, y, verbose=0)
            >>> another.close()
            >>> result.model().count_params()  # what a fit has left stays
            4
        """
        self._runs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def runs_of(
    settings: TrainerConfig,
    name: str,
    run_dir: Path | None,
    runtime_env: Mapping[str, Any] | None,
    trackers: TrackersWanted,
) -> Runs | RemoteRuns:
    """Who makes the runs of a trainer: this process, or a cluster that takes jobs. Arguments: `Runs` has them."""
    if (address := job_server(settings)) is None:
        runs = Runs(settings, name, run_dir, runtime_env, Trackers(trackers))
        runs.workers.begin()
        return runs
    from .remote.call import RemoteRuns  # and what speaks HTTP, which others have no use for

    return RemoteRuns(settings, address, name, run_dir, runtime_env, trackers)
