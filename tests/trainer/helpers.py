"""Short ways to a trainer in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from heliostat.cluster.group.worker_process import WorkerKilled
from heliostat.trainer import Result, Trainer
from heliostat.trainer.driver.workers import Workers
from heliostat.trainer.trainer_config import TrainerConfig

from ..slow import SLOW

SEED = 7


class TrainerOn(Trainer):
    """A trainer on given workers; `workers` shows them."""

    def __init__(self, make_workers: Callable[[TrainerConfig], Workers], build_model: Any, **arguments: Any) -> None:
        super().__init__(build_model, **arguments)
        self.workers = self._runs.workers = make_workers(self._settings)

    def fit(self, *data: Any, **arguments: Any) -> Result:
        """As any trainer's, but for the look at a step before a run, which takes time: unless a test asks for it."""
        return super().fit(*data, **{"probe": False} | arguments)


def local_trainer(build_model, tmp_path, *, workers=0, replicas=1, num_microbatches=4, **arguments):
    """A trainer whose workers are threads of this process (none for 0)."""
    return TrainerOn(
        Workers,
        build_model,
        workers=workers,
        in_process=workers > 0,
        replicas_per_worker=replicas,
        num_microbatches=num_microbatches,
        run_dir=tmp_path / "run",
        **{"seed": SEED, "deadline_s": 60 * SLOW} | arguments,
    )


def die():
    """Let the worker's thread that comes here end as if it had been killed."""
    raise WorkerKilled("test")
