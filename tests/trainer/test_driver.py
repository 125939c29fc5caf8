"""The driver's own parts, without workers: merging reports, the run folder, messages."""

from __future__ import annotations

import json

import numpy as np
import pytest
from heliostat.cluster.controller import Failure
from heliostat.cluster.errors import TaskFailed
from heliostat.cluster.spec import WorkerInfo
from heliostat.trainer import ConfigurationError, DataError, TrainingFailedError, WorkersDisagreeError
from heliostat.trainer.blame import explain_failure
from heliostat.trainer.config import TrainerConfig
from heliostat.trainer.coordinator import Coordinator, EpochRecord, merge_validation
from heliostat.trainer.jobs import EpochLogs, EpochPart, Progress, Ready, ValidationPart
from heliostat.trainer.result import history_of
from heliostat.trainer.run_folder import RunFolder, new_run_path, next_run_path
from heliostat.trainer.shipping import ship, unship

EMPTY, NOTHING = np.zeros(0, np.float32), np.zeros(0)


def ready(digest):
    return Ready(digest=digest, num_weights=1, platform={"device_type": "CPU"})


def part(epoch=0, digest="d", loss=0.5, rows=4, validation=None):
    return EpochPart(
        epoch=epoch, logs={"loss": loss}, digest=digest, rows=rows, total_rows=8, times={}, validation=validation
    )


def test_workers_are_answered_when_all_have_reported():
    coordinator = Coordinator(num_workers=2)
    assert coordinator.handle(1, ready("same")) == {}
    assert coordinator.handle(0, ready("same")) == {0: True, 1: True}


def test_different_initial_states_are_refused():
    coordinator = Coordinator(num_workers=2)
    coordinator.handle(0, ready("one"))
    with pytest.raises(WorkersDisagreeError, match="initial state: worker 0: one; worker 1: other"):
        coordinator.handle(1, ready("other"))


@pytest.mark.parametrize(("change", "what"), [({"digest": "x"}, "training state"), ({"loss": 0.6}, "global metrics")])
def test_workers_that_drift_apart_are_refused(change, what):
    coordinator = Coordinator(num_workers=2)
    coordinator.handle(0, part())
    with pytest.raises(WorkersDisagreeError, match=what):
        coordinator.handle(1, part(**change))


def test_an_epoch_is_recorded_with_the_chiefs_numbers():
    seen, progress = [], []
    coordinator = Coordinator(num_workers=2, on_epoch=seen.append, on_progress=progress.append)
    coordinator.handle(1, part(rows=3))
    assert coordinator.handle(0, part(rows=5)) == {0: None, 1: None}
    coordinator.handle(0, Progress(epoch=0, step=1, steps=2, rows=4, logs={}))
    coordinator.handle(0, EpochLogs(epoch=0, logs={"loss": 0.5, "learning_rate": 0.1}))
    assert progress[0].step == 1
    assert seen[0].logs == {"loss": 0.5, "learning_rate": 0.1}
    assert seen[0].rows_by_worker == (5, 3)


def test_validation_is_summed_in_the_trees_order():
    leaves = [np.array([value]) for value in (1e17, 1.0, -1e17, 1.0)]
    both = {(1, 0): (EMPTY, leaves[0] + leaves[1], NOTHING)}
    right = {(0, 2): (EMPTY, leaves[2], NOTHING), (0, 3): (EMPTY, leaves[3], NOTHING)}
    parts = [ValidationPart(nodes=nodes, num_leaves=4, rows=rows) for nodes, rows in ((both, 2), (right, 2))]
    total = merge_validation(parts)
    expected = (leaves[0] + leaves[1]) + (leaves[2] + leaves[3])
    assert total.vector[1] == expected
    assert total.vector[1] != ((leaves[0] + leaves[1]) + leaves[2]) + leaves[3]
    assert total.rows == 4


def test_history_keeps_epochs_aligned():
    records = [
        EpochRecord(epoch=number, logs=logs, rows=1, rows_by_worker=(1,), times_by_worker=({},))
        for number, logs in enumerate([{"loss": 1.0}, {"loss": 0.5, "extra": 2.0}])
    ]
    assert history_of(records) == {"loss": [1.0, 0.5], "extra": [None, 2.0]}


def test_a_run_folder_is_not_used_twice(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.update(state="running")
    with pytest.raises(ConfigurationError, match="holds a run already"):
        RunFolder(tmp_path / "run")
    assert next_run_path(tmp_path / "run").name == "run-2"
    assert new_run_path("<lambda>", tmp_path).parent == tmp_path


def test_run_json_is_replaced_whole(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.update(state="running", plan={"workers": 2})
    folder.update(state="finished")
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == {
        "format_version": 1,
        "state": "finished",
        "plan": {"workers": 2},
    }
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["logs", "run.json"]


INFOS = [WorkerInfo(rank=rank, host=f"host-{rank}", pid=1) for rank in range(2)]


def test_a_death_is_explained_with_worker_host_and_step():
    cause = Failure(rank=1, kind="died", reason="killed", step=12)
    error = explain_failure(TaskFailed(cause), INFOS, ["log-0", "log-1"], None)
    assert isinstance(error, TrainingFailedError)
    assert (error.rank, error.host, error.step, error.log_path) == (1, "host-1", 12, "log-1")
    assert str(error).startswith("Worker 1 on host-1 died at step 12: killed")
    assert "Its log: log-1" in str(error)


def test_a_users_mistake_found_on_a_worker_is_raised_as_itself():
    mistake = DataError("labels out of range")
    cause = Failure(rank=0, kind="raised", reason="DataError", error=mistake)
    assert explain_failure(TaskFailed(cause), INFOS, [], None) is mistake
    assert mistake.__notes__ == ["(found by worker 0 on host-0)"]


def test_what_cannot_leave_the_process_is_refused_with_its_name(tmp_path):
    with (
        (tmp_path / "open").open("w") as file,
        pytest.raises(ConfigurationError, match="build_model cannot be shipped"),
    ):
        ship(lambda: file, "build_model")
    assert unship(ship((1, "two"), "x"), "x") == (1, "two")


@pytest.mark.parametrize(("workers", "replicas", "expected"), [(0, 1, 1), (1, 1, 1), (2, 1, 2), (3, 1, 4), (2, 3, 8)])
def test_the_default_number_of_microbatches_is_a_power_of_two(workers, replicas, expected):
    assert TrainerConfig(workers=workers).microbatches(replicas) == expected
