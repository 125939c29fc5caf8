"""A plan: what is told of a run, an evaluation or a prediction that is not made; and that it is not made."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import pytest
from heliostat.cluster.group.worker_process import host_name
from heliostat.data import write_dataset
from heliostat.trainer import ConfigurationError, Trainer, environment
from heliostat.trainer.driver import workers
from heliostat.trainer.errors import EnvironmentVariableError, NotCompiledError

from .conftest import dense_data
from .helpers import local_trainer
from .models import linear

DATA, VALID = dense_data(), dense_data(rows=23, seed=1)
END = "this was a plan: nothing was computed, and the script ends here"


@pytest.fixture
def planning(monkeypatch):
    """A process in which ``heliostat run --plan`` runs a script, until it ends."""
    monkeypatch.setattr(environment._process, "plans", False)
    monkeypatch.setenv(environment.PLAN, "1")


@pytest.fixture
def plan_of(planning, capfd, monkeypatch, tmp_path):
    """plan_of(call) -> the lines that are told of the call; nothing else of it is left on the disk."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def told(call) -> list[str]:
        before = paths_in(tmp_path)
        with pytest.raises(SystemExit) as ended:
            call()
        assert ended.value.code == 0
        assert paths_in(tmp_path) == before
        lines = capfd.readouterr().out.splitlines()
        assert lines[-1] == END
        return lines

    return told


def paths_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.engine
def test_a_run_is_planned_and_not_made(tmp_path, plan_of):
    with local_trainer(linear("adam"), tmp_path, workers=2) as trainer:
        lines = plan_of(lambda: trainer.fit(DATA, validation_data=VALID, global_batch_size=16, epochs=3, verbose=0))
        assert lines[:4] == [
            f"run folder {tmp_path}/run (it is not made for a plan)",
            "plan: 2 workers as threads of this process, each with 1 CPU replica and 1 thread; 3 epochs of 5 steps; "
            "global batch 16, 8 per replica, in 4 microbatches of 4",
            "data: 71 rows in the run folder, validation on 23 rows in the run folder; "
            "a checkpoint every epoch, the last 3 kept in the run folder",
            "the same bits on any workers with num_microbatches=4, threads_per_worker=1",
        ]
        parts = "weights 0.6 kB, their gradients 0.6 kB, the optimizer's state 1.2 kB, what layers give out for a "
        assert lines[4].startswith("the model has 149 weights")
        assert f"; each worker holds about: {parts}" in lines[4]
        assert not trainer.hosts, "its workers are gone"


@pytest.mark.engine
def test_passes_are_planned_and_so_is_what_follows_a_plan(tmp_path, plan_of):
    with local_trainer(linear("adam"), tmp_path, workers=2) as trainer:
        lines = plan_of(lambda: trainer.evaluate(DATA))
        assert "; evaluate: global batch 32, 16 per replica, in 4 microbatches of 8" in lines[0]
        assert lines[1] == "data: 71 rows in what the script passes"
        assert "; each worker holds about: weights 0.6 kB, what layers give out" in lines[2], "there are no gradients"
        assert "; predict: global batch 32" in plan_of(lambda: trainer.predict(DATA[0]))[0]  # the script goes on


@pytest.mark.engine
def test_a_run_with_a_new_folder_is_planned_and_leaves_none(tmp_path, plan_of, monkeypatch):
    data = write_dataset(tmp_path / "rows", dict(zip("xy", DATA, strict=True)))
    monkeypatch.chdir(tmp_path)
    with Trainer(linear(), workers=0, threads_per_worker=1) as trainer:
        lines = plan_of(lambda: trainer.fit(data.name, checkpoint_every=None, resume=False))
    assert lines[0].startswith(f"run folder {tmp_path}/runs/build-")
    assert "data: 71 rows in " + data.name + "; no checkpoints" in lines


@pytest.mark.engine
def test_a_run_that_would_go_on_or_is_finished_is_told(tmp_path, capfd, monkeypatch, request):
    def fit(data=DATA, epochs=3, **arguments):
        with local_trainer(linear(), tmp_path) as trainer:
            return trainer.fit(data, global_batch_size=16, epochs=epochs, verbose=0, **arguments)

    monkeypatch.setattr(workers, "usable_cores", lambda: 1)  # a run that leaves some idle says so
    fit(epochs=2)
    plan_of = request.getfixturevalue("plan_of")
    capfd.readouterr()
    lines = plan_of(fit)
    assert lines[0].startswith(f"the run in {tmp_path}/run would go on from checkpoint ")
    assert lines[0].endswith(": epoch 3, step 0")
    assert "data: 71 rows in the run folder" in lines[2]
    with pytest.raises(ConfigurationError, match="cannot go on with other data"):
        fit(data=dense_data(seed=5))
    with pytest.raises(ConfigurationError, match="holds a run already"):
        fit(resume=False)

    monkeypatch.setattr(environment._process, "plans", False)
    fit()
    monkeypatch.setenv(environment.PLAN, "1")
    capfd.readouterr()
    lines = plan_of(fit)
    assert lines == [f"the run in {tmp_path}/run is finished; this is its result", END]


@pytest.mark.engine
def test_mistakes_are_found_by_a_plan(tmp_path, planning):
    with (
        local_trainer(lambda: keras.Sequential([keras.layers.Dense(2)]), tmp_path) as trainer,
        pytest.raises(NotCompiledError, match=r"compile\(\)"),
    ):
        trainer.fit(DATA)
    assert not (tmp_path / "run").exists()


class StopsAtThree(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 2


@pytest.mark.engine
def test_the_expected_time_is_told_once_by_a_run(tmp_path, capfd):
    with local_trainer(linear(), tmp_path) as trainer:
        arguments = {"validation_data": VALID, "global_batch_size": 16, "checkpoint_every": None, "verbose": 2}
        trainer.fit(DATA, epochs=1_000_000, callbacks=[StopsAtThree()], **arguments)
    lines = capfd.readouterr().out.splitlines()
    (line,) = [each for each in lines if each.startswith("expected: ")]
    assert " more: 4,999,995 steps of " in line
    assert " and 999,999 validations of " in line
    before = lines[lines.index(line) - 1]
    assert before.startswith("epoch 1/1000000 "), "an epoch that ends soon is waited for"
    assert "the model has 149 weights; compiling its step" in lines


def test_only_one_value_asks_for_a_plan(monkeypatch, planning):
    assert environment.is_plan_waiting()
    assert environment.is_plan_wanted()
    assert not environment.is_plan_waiting()
    assert environment.is_plan_wanted(), "whoever has asked for a plan has asked for nothing else"
    monkeypatch.setenv(environment.PLAN, "yes")
    with pytest.raises(EnvironmentVariableError, match=r"HELIOSTAT_PLAN.*1, or not set"):
        environment.is_plan_wanted()


@pytest.mark.ray
def test_workers_of_ray_tell_where_they_are(warm_trainer, plan_of):
    lines = plan_of(lambda: warm_trainer(linear()).fit(DATA, global_batch_size=16, verbose=0))
    assert any(
        line.startswith(f"plan: 2 workers on {host_name()}, each with 1 CPU replica and 1 thr") for line in lines
    )
