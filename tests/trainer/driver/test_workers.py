"""Workers that run are kept for the next task, unless its bits need others; no worker is started here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from heliostat.trainer.driver import workers as driver_workers
from heliostat.trainer.driver.display import Display
from heliostat.trainer.driver.workers import Workers
from heliostat.trainer.engine.times import StartTimes
from heliostat.trainer.trainer_config import TrainerConfig, WorkerShare


class Counted(Workers):
    """Notes with how many threads groups are made; None is 16."""

    def __init__(self, settings: TrainerConfig) -> None:
        super().__init__(settings)
        self.made: list[int] = []
        self.closed = 0

    def _ray_group(self, screen, threads):
        self.share = WorkerShare(threads=threads or 16)
        self.made.append(self.share.threads)
        return SimpleNamespace(launch=lambda: None, hear=lambda: None, close=self._note_closed)

    _local_group = _ray_group

    def _note_closed(self):
        self.closed += 1


@pytest.fixture(autouse=True)
def no_tensorflow(monkeypatch):
    monkeypatch.setattr(driver_workers, "_keep_off_gpus", lambda screen: None)
    monkeypatch.setattr(driver_workers, "start_workers", lambda group: ())


@pytest.mark.parametrize("begin", ["launch", "start"])
def test_a_run_that_goes_on_gets_its_own_number_of_threads(begin):
    workers = Counted(TrainerConfig(workers=2))
    workers.start(Display(), StartTimes())  # for an evaluation
    getattr(workers, begin)(Display(), StartTimes(), 8)
    workers.start(Display(), StartTimes(), 8)
    workers.start(Display(), StartTimes())
    assert (workers.made, workers.closed, workers.share.threads) == ([16, 8], 1, 8)


@pytest.mark.parametrize("settings", [TrainerConfig(workers=2, threads_per_worker=4), TrainerConfig(workers=0)])
def test_a_number_that_is_given_or_cannot_change_keeps_the_workers(settings):
    workers = Counted(settings)
    workers.start(Display(), StartTimes())
    workers.start(Display(), StartTimes(), 8)
    assert (len(workers.made), workers.closed) == (1, 0)
