"""Real Ray for the tests: one Ray for the session, and two warm workers that the quiet tests share."""

from __future__ import annotations

from contextlib import contextmanager

import psutil
import pytest
from heliostat.trainer.driver.workers import Workers
from heliostat.trainer.trainer_config import TrainerConfig

from ..slow import SLOW
from .helpers import TrainerOn

NUM_WORKERS = 2


class SharedWorkers(Workers):
    """Workers that outlive the trainers that use them; `really_close` ends them."""

    def close(self) -> None:
        """A trainer's close leaves them running, unless they are in the middle of a task that was given up."""
        if self._group is not None and self._group.statistics().with_task:
            super().close()

    def really_close(self) -> None:
        super().close()


@pytest.fixture(scope="session")
def warm_workers(ray_here):
    workers = SharedWorkers(TrainerConfig(workers=NUM_WORKERS, threads_per_worker=1, start_timeout_s=300 * SLOW))
    yield workers
    workers.really_close()


@pytest.fixture
def warm_trainer(warm_workers, tmp_path):
    """warm_trainer(build_model, **arguments) -> a Trainer on the shared workers."""

    def make(build_model, **arguments):
        return TrainerOn(
            lambda _: warm_workers,
            build_model,
            workers=NUM_WORKERS,
            num_microbatches=4,
            seed=7,
            run_dir=tmp_path / "run",
            **arguments,
        )

    return make


@contextmanager
def nothing_left(pids):
    """Worker processes must be gone when the block is left."""
    yield
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=20 * SLOW)
    assert not alive, f"worker processes still run: {alive}"


def exists(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
