"""The chief is killed on a machine that does not see the run folder; its successor's files are an undisturbed run's."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import pytest
from heliostat.cluster.disk.disk import start_disk, stop_disk
from heliostat.cluster.disk.reach import Reach, scratch_of
from heliostat.cluster.disk.served import TOKEN, Root
from heliostat.trainer import Trainer
from heliostat.trainer.worker import worker
from heliostat.trainer.worker.callback_files import CallbackFiles

from .conftest import dense_data
from .faults import Faults, Order, each_row_once, events_of, outcome
from .test_faults import JOB, ROWS, KillInCallback
from .worker.test_callback_files import SGD, Diary, StepDiary, callbacks, left

pytestmark = pytest.mark.faults
SIZE = 3


@pytest.fixture
def disk(ray_here, tmp_path):
    """The driver's disk with the run folder, which nobody takes for his own: its token is another disk's."""
    (tmp_path / "run").mkdir()
    started = start_disk()
    served = started.serving(Root(path=str(tmp_path / "run"), is_writable=True))
    (tmp_path / "run" / TOKEN).write_text("of another disk")
    yield served
    (tmp_path / "run" / TOKEN).unlink(missing_ok=True)  # the trainer's, which serves the folder as well
    stop_disk(served)
    shutil.rmtree(scratch_of(served.id), ignore_errors=True)  # no keeper is asked to


def through(disk, build):
    """`build` as a function that lets callbacks of its process reach the run folder through the driver's disk alone."""

    def build_model():
        worker.CallbackFiles = lambda run_dir, _, tell: CallbackFiles(run_dir, Reach(disk), tell)
        return build()

    return build_model


class Where(keras.callbacks.Callback):
    """Writes down where the chief's callbacks work, in a file of the test's."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def on_epoch_begin(self, epoch, logs=None):
        with self._path.open("a") as file:
            file.write(f"{Path.cwd()}\n")


@pytest.mark.parametrize("diary", [pytest.param(Diary, marks=pytest.mark.slow), StepDiary])
def test_files_after_three_deaths_of_chiefs(ray_here, train, tmp_path, monkeypatch, disk, diary):
    monkeypatch.chdir(tmp_path)  # where callbacks' files are linked
    faults = Faults(tmp_path / "faults", tmp_path / "run", SIZE)
    faults.order(
        Order(point="callback", step=1),
        Order(point="shipped", who="chief", wave=1),
        Order(point="compute", who="chief", wave=2),
    )
    made = [*callbacks(diary), KillInCallback()]
    build = through(disk, faults.build(SGD))
    arguments = {"workers": SIZE, "num_microbatches": 4, "seed": 7, "run_dir": tmp_path / "run"}
    with Trainer(build, threads_per_worker=1, **arguments) as trainer:
        result = trainer.fit(dense_data(), callbacks=[*made, Where(tmp_path / "where")], epochs=30, **JOB)
    faults.check()
    places = set((tmp_path / "where").read_text().splitlines())
    assert len(places) == 4  # one for each chief
    assert not any(Path(place).is_relative_to(tmp_path) or Path(place).exists() for place in places)
    assert len(events_of(result.run_dir, "lost")) == len(faults.fired()) == 3
    got = outcome(result)
    each_row_once(got["rows"], ROWS)
    reference = train(SGD, dense_data(), workers=0, callbacks=made, epochs=30, **JOB)
    assert got == outcome(reference)
    assert left(Path(result.run_dir)) == left(Path(reference.run_dir))
