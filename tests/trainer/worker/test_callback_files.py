"""Callbacks work on a machine that does not see the run folder; their files there are those of an undisturbed run."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import keras
import numpy as np
import pyarrow.fs as pafs
import pytest
from heliostat.cluster.disk.reach import Reach
from heliostat.cluster.group.worker_process import WorkerKilled
from heliostat.trainer import CallbackFilesError, Result, RunPausedError, Trainer, TrainingFailedError
from heliostat.trainer.driver import lease, run_folder
from heliostat.trainer.jobs import RUN_FOLDER, model_name
from heliostat.trainer.worker import worker
from heliostat.trainer.worker.callback_files import CallbackFiles, whose
from heliostat.trainer.worker.staged_files import STAGING

from ..conftest import dense_data, fingerprint
from ..elsewhere import Elsewhere
from ..faults import events_of
from ..models import linear
from .test_watched_folder import content

REACH_OF = worker.reach_of
SGD = linear(optimizer=lambda: keras.optimizers.SGD(0.1))


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """From now on workers of this process do not see run folders."""
    monkeypatch.setattr(worker, "reach_of", lambda disk: Elsewhere(tmp_path / "machines"))


class Diary(keras.callbacks.Callback):
    """Appends to a file, writes others anew, deletes old ones, and makes folders."""

    def _note(self, line: str) -> None:
        with Path("diary.txt").open("a") as file:
            file.write(line + "\n")

    def on_train_begin(self, logs=None):
        Path("plots").mkdir(exist_ok=True)

    def on_epoch_begin(self, epoch, logs=None):
        self._note(f"epoch {epoch} begins")

    def on_epoch_end(self, epoch, logs=None):
        self._note(f"epoch {epoch} ends with {logs['loss']!r}")
        np.save("last.npy", self.model.get_weights()[0])
        np.save(f"plots/{epoch}.npy", self.model.get_weights()[0])
        Path(f"plots/{epoch - 2}.npy").unlink(missing_ok=True)

    def on_train_end(self, logs=None):
        self._note("the end")


class StepDiary(Diary):
    def on_train_batch_end(self, batch, logs=None):
        self._note(f"step {batch}: {logs['loss']!r}")


def callbacks(diary=Diary):
    return [
        diary(),
        keras.callbacks.CSVLogger("log.csv"),
        keras.callbacks.ModelCheckpoint("best.weights.h5", save_best_only=True, monitor="loss", save_weights_only=True),
        keras.callbacks.ModelCheckpoint("{epoch}.weights.h5", save_weights_only=True),
    ]


RUN_FOLDERS = ("logs", "data", "checkpoints", "model.keras")


def own(path: str) -> bool:
    return any(whose("/".join(path.split("/")[:depth])) for depth in (1, 2)) or path in RUN_FOLDERS


def left(run_dir: Path) -> dict[str, object]:
    """What callbacks have left in a run folder, by path."""
    found = {path: raw for path, raw in content(run_dir).items() if not own(path)}
    return {path: weights(run_dir / path) if path.endswith(".h5") else raw for path, raw in found.items()}


def weights(path: Path) -> list[bytes]:
    """The weights in a file: HDF5 does not write the same bytes twice."""
    model = SGD()
    model.build((None, 12))
    model.load_weights(path)
    return [each.tobytes() for each in model.get_weights()]


def die() -> None:
    raise WorkerKilled("test")


# -- one chief and the next ---------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """machine(name) -> CallbackFiles of a worker on a machine of that name; what it tells is in `told`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    made = []

    def make(name="b", filesystem=None):
        reach = Elsewhere(tmp_path / name)
        if filesystem is not None:
            monkeypatch.setattr(reach, "filesystem", lambda: filesystem)
        files = CallbackFiles(str(tmp_path / "run"), reach, lambda *told: files.told.append(told))
        files.told = []
        made.append(files)
        return files

    yield make
    for each in made:
        each._leave()


def agree(*workers: CallbackFiles, generation: int) -> None:
    """Hooks have run on the first; all hear what it says of the files, and take part in the next step."""
    version = workers[0].ship(generation)
    for each in workers:
        each.agree(version)
        each.all_heard()


def test_what_was_agreed_on_is_found_by_the_next_chief_and_nothing_else(machine, tmp_path):
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "before.txt").write_text("there before the run")
    first, second = machine("b"), machine("c")
    first.enter(0)
    assert Path.cwd().is_relative_to(tmp_path / "b")
    assert content(Path.cwd()) == {"before.txt": b"there before the run"}
    Path("log.csv").write_text("one\n")
    agree(first, second, generation=0)
    with Path("log.csv").open("a") as file:
        file.write("two\n")
    Path("before.txt").unlink()
    first.ship(0)  # and dies before anybody hears of it
    second.enter(1)
    assert Path.cwd().is_relative_to(tmp_path / "c")
    assert content(Path.cwd()) == {"before.txt": b"there before the run", "log.csv": b"one\n"}
    with Path("log.csv").open("a") as file:
        file.write("2\n")
    second.agree(second.ship(1))
    second.finish(1)
    assert content(tmp_path / "run") == {
        "before.txt": b"there before the run",
        "log.csv": b"one\n2\n",
        "run.json": b"{}",
    }


def test_the_version_goes_on_where_a_checkpoint_was_made(machine, tmp_path):
    first = machine()
    first.enter(0)
    Path("log.csv").write_text("one\n")
    version = first.ship(0)
    first.agree(version)  # nobody has made a step since
    assert content(tmp_path / "run").keys() == {STAGING, f"{STAGING}/{version:016x}"}
    resumed = machine("c")
    resumed.agree(version)
    resumed.enter(1)
    assert content(tmp_path / "run") == content(Path.cwd()) == {"log.csv": b"one\n"}
    assert resumed.ship(1) == version
    Path("log.csv").write_text("anew")
    assert resumed.ship(1) > version


def test_who_sees_the_run_folder_works_in_it_and_takes_in_what_was_agreed_on(machine, tmp_path):
    first = machine()
    first.enter(0)
    Path("log.csv").write_text("one\n")
    version = first.ship(0)
    here = CallbackFiles(str(tmp_path / "run"), Reach(None), lambda *told: pytest.fail(str(told)))
    here.agree(version)
    here.enter(1)
    assert Path.cwd() == tmp_path / "run"
    assert content(tmp_path / "run") == {"log.csv": b"one\n"}
    Path("log.csv").write_text("two")
    assert here.ship(1) == version
    here.finish(1)
    assert content(tmp_path / "run") == {"log.csv": b"two"}


def test_a_driver_whose_disk_is_full_gets_everything_later(machine, tmp_path, monkeypatch):
    first = machine()
    first.enter(0)
    Path("log.csv").write_text("one\n")
    full = pytest.MonkeyPatch()
    full.setattr(first._away.staged, "_write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    before = first.version
    assert first.ship(0) == before
    assert first.ship(0) == before
    assert first.told == [first.told[0], ("files of callbacks", "OSError: [Errno 28] No space left on device")]
    full.undo()
    first.agree(first.ship(0))
    first.finish(0)
    assert content(tmp_path / "run") == {"log.csv": b"one\n"}


def test_what_cannot_go_to_the_driver_at_the_end_is_kept_and_said(machine, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    first = machine()
    first.enter(0)
    Path("log.csv").write_text("one\n")
    monkeypatch.setattr(first._away.staged, "_write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    first.finish(0)
    what, why = first.told[-1]
    (kept,) = (tmp_path / "temporary").iterdir()
    assert what == "files of callbacks at the end"
    assert why == f"OSError: [Errno 28] No space left. They are in {kept}"
    assert content(kept) == {"log.csv": b"one\n"}


def test_files_that_cannot_be_brought_here_are_an_error_that_says_what_to_do(machine, tmp_path):
    first = machine()
    (tmp_path / "b").write_text("a file in place of the scratch")
    with pytest.raises(CallbackFilesError, match=r"cannot be brought from .*Not a directory.*goes on from its last"):
        first.enter(0)


def test_an_absolute_path_leads_there_where_nothing_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    driver = tmp_path / "driver"  # another machine's disk
    run_dir = tmp_path / "home" / "runs" / "first"
    Path(f"{driver}{run_dir}").mkdir(parents=True)
    reach = Elsewhere(tmp_path / "b")
    reach.filesystem = lambda: pafs.SubTreeFileSystem(str(driver), pafs.LocalFileSystem())
    told = []
    files = CallbackFiles(str(run_dir), reach, lambda *each: told.append(each))
    files.enter(0)
    (run_dir / "absolute.txt").write_text("by its path")
    Path("relative.txt").write_text("beside it")
    files.finish(0)
    assert content(Path(f"{driver}{run_dir}")) == {"absolute.txt": b"by its path", "relative.txt": b"beside it"}
    os.chdir(tmp_path)
    files._leave()
    assert not (tmp_path / "home").exists()
    assert told == []


def test_the_runs_own_names_are_known(tmp_path):
    of_callbacks = ("MODEL_FILE", "CALLBACKS_MODEL_FILE")  # who writes the first one decides whose it is
    names = [value for name, value in vars(run_folder).items() if name.endswith("_FILE") and name not in of_callbacks]
    assert set(names) <= set(RUN_FOLDER)
    own_files = [
        *names,
        f".{lease.LEASE_FILE}.a1b2",
        model_name(7),
        "data/train-2",
        lease.LEASE_FILE,
        "data/train",
        "data/valid",
        "logs/worker-3.log",
        "checkpoints/final",
    ]
    own_files += ["checkpoints/000003-00000120.g7", ".run.json.writing", STAGING, ".heliostat-driver"]
    assert [path for path in own_files if not whose(path)] == []
    theirs = [
        "model.keras",
        "model.callbacks.keras",
        "logs",
        "logs/train",
        "checkpoints",
        "checkpoints/best.keras",
        "data",
        "data/x.npy",
        "a",
    ]
    assert [path for path in theirs if whose(path)] == []


# -- runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    return dense_data(rows=37)


DIARIES = [pytest.param(Diary, marks=pytest.mark.slow), StepDiary]


@pytest.mark.engine
@pytest.mark.parametrize("diary", [Diary, StepDiary])
@pytest.mark.parametrize("workers", [1, 3])
def test_files_are_those_of_a_machine_that_sees_the_run_folder(train, data, elsewhere, tmp_path, diary, workers):
    with pytest.MonkeyPatch.context() as undisturbed:
        undisturbed.setattr(worker, "reach_of", REACH_OF)
        reference = train(SGD, data, workers=0, epochs=4, callbacks=callbacks(diary))
    result = train(SGD, data, workers=workers, epochs=4, callbacks=callbacks(diary))
    assert fingerprint(result) == fingerprint(reference)
    assert left(Path(result.run_dir)) == left(Path(reference.run_dir))
    assert not list((tmp_path / "machines").rglob("callbacks-*"))


# Where the chief dies: step of the run at which it is, and the point there.
MOMENTS = [
    ("shipped", 5),  # at the end of the second epoch, before anybody has heard of it
    ("compute", 6),  # others have heard of it, it does not count yet
    ("reduce", 6),
    ("compute", 7),
]


@pytest.mark.engine
@pytest.mark.parametrize("diary", DIARIES)
@pytest.mark.parametrize(("point", "step"), MOMENTS)
def test_files_are_as_without_the_death_of_the_chief(train, data, elsewhere, at, diary, point, step):
    with pytest.MonkeyPatch.context() as undisturbed:
        undisturbed.setattr(worker, "reach_of", REACH_OF)
        reference = train(SGD, data, workers=0, epochs=4, callbacks=callbacks(diary))
    at(point, step, die, 0)
    result = train(SGD, data, workers=3, epochs=4, callbacks=callbacks(diary))
    assert [each["worker"] for each in events_of(result.run_dir, "lost")] == [0]
    assert fingerprint(result) == fingerprint(reference)
    assert left(Path(result.run_dir)) == left(Path(reference.run_dir))


@pytest.mark.engine
@pytest.mark.parametrize("step", [4, 6])  # in the middle of an epoch, and after the first step of one
@pytest.mark.parametrize("diary", DIARIES)
def test_a_run_that_is_paused_goes_on_elsewhere_with_the_files_that_it_had(train, data, tmp_path, at, diary, step):
    reference = train(SGD, data, workers=0, epochs=4, callbacks=callbacks(diary))

    def begin(machine: str) -> Result:
        arguments = {"num_microbatches": 4, "seed": 7, "run_dir": tmp_path / "run"}
        with pytest.MonkeyPatch.context() as patch, Trainer(SGD, workers=2, in_process=True, **arguments) as trainer:
            patch.setattr(worker, "reach_of", lambda disk: Elsewhere(tmp_path / machine))
            job = {"epochs": 4, "global_batch_size": 16, "verbose": 0, "callbacks": callbacks(diary)}
            return trainer.fit(data, **job)

    at("reduce", step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunPausedError):
        begin("b")
    assert not (tmp_path / "run" / STAGING).exists()
    result = begin("c")
    assert fingerprint(result) == fingerprint(reference)
    assert left(tmp_path / "run") == left(Path(reference.run_dir))


class Breaks(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            Path("why.txt").write_text("for whoever looks after it")
            raise ValueError("a mistake of the user's")


@pytest.mark.engine
def test_what_a_callback_wrote_before_it_failed_is_in_the_run_folder(train, data, elsewhere, tmp_path):
    with pytest.raises(TrainingFailedError, match="a mistake of the user's"):
        train(SGD, data, workers=2, epochs=4, callbacks=[*callbacks(), Breaks()])
    run_dir = tmp_path / "run-1"
    assert (run_dir / "why.txt").read_text() == "for whoever looks after it"
    with (run_dir / "log.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1"]
