"""What a trainer holds between its calls: the runs that it makes, here or on a cluster, and the workers for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from heliostat.cluster.links import PairBandwidth

from .driver.runs import Runs
from .driver.workers import job_server
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
        """
        self._runs.resize(workers)

    def measure_links(self) -> tuple[PairBandwidth, ...]:
        """Bandwidth and latency between every two workers, as a step's all-reduce gets them; takes some seconds."""
        return self._runs.measure_links()

    @property
    def hosts(self) -> dict[int, str]:
        """The machine of every worker that is up, by the worker's number."""
        return self._runs.hosts

    def close(self) -> None:
        """Stop the workers, and the Ray that was started for them."""
        self._runs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def runs_of(
    settings: TrainerConfig, name: str, run_dir: Path | None, runtime_env: Mapping[str, Any] | None
) -> Runs | RemoteRuns:
    """Who makes the runs of a trainer: this process, or a cluster that takes jobs. Arguments: those of `Runs`."""
    if (address := job_server(settings)) is None:
        return Runs(settings, name, run_dir, runtime_env)
    from .remote.call import RemoteRuns  # and what speaks HTTP, which others have no use for

    return RemoteRuns(settings, address, name, run_dir, runtime_env)
