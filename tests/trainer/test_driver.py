"""The driver's own parts, without workers: merging reports, the run folder, messages."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from heliostat.cluster.errors import TaskFailed
from heliostat.cluster.group.controller_state import Formed
from heliostat.cluster.group.messages import Failure
from heliostat.cluster.spec import WorkerInfo
from heliostat.trainer import ConfigurationError, DataError, TrainingFailedError, WorkersDisagreeError
from heliostat.trainer.checkpoints.manifest import check_identity
from heliostat.trainer.config import TrainerConfig
from heliostat.trainer.driver.blame import explain_failure
from heliostat.trainer.driver.coordinator import Coordinator, Listeners, merge
from heliostat.trainer.driver.events import EpochRecord, history_of
from heliostat.trainer.driver.run_folder import RunFolder, new_run_path, numbered_run_path
from heliostat.trainer.driver.shares import ShardQueue
from heliostat.trainer.errors import NonfiniteGradientError
from heliostat.trainer.jobs import EpochLogs, EpochPart, PassSum, Progress, Ready, Shard, ShardResult
from heliostat.trainer.shipping import ship, unship
from hypothesis import given, settings
from hypothesis import strategies as st

EMPTY, NOTHING = np.zeros(0, np.float32), np.zeros(0)


def ready(shapes="same", device_type="CPU"):
    return Ready(shapes=shapes, num_weights=1, platform={"device_type": device_type}, model={"layers": "a"})


def part(epoch=0, digest="d", loss=0.5, num_microbatches=0):
    return EpochPart(
        epoch=epoch,
        logs={"loss": loss},
        digest=digest,
        rows=8,
        rows_by_worker={0: 5, 1: 3},
        times={},
        num_microbatches=num_microbatches,
    )


def coordinator_of(*members, **listeners):
    made = Coordinator(Listeners(**listeners))
    made.formed(Formed(generation=0, members=members, joined=members, restarted=False))
    return made


def died(worker):
    return Failure(worker=worker, kind="died", reason="killed")


def share_part(share, nodes=(), rows=1):
    return ShardResult(shard=share, nodes=dict(nodes), rows=rows)


def test_workers_that_build_the_same_model_are_welcome():
    coordinator = coordinator_of()
    assert coordinator.handle(1, ready()) == {1: ""}
    assert coordinator.handle(0, ready()) == {0: ""}


@pytest.mark.parametrize(("change", "what"), [({"shapes": "x"}, "shapes"), ({"device_type": "GPU"}, "platform")])
def test_a_worker_with_another_model_or_platform_is_told_why_it_is_not_wanted(change, what):
    coordinator = coordinator_of()
    coordinator.handle(0, ready())
    assert what in coordinator.handle(1, ready(**change))[1]


@pytest.mark.parametrize(("change", "what"), [({"digest": "x"}, "training state"), ({"loss": 0.6}, "global metrics")])
def test_workers_that_drift_apart_are_refused(change, what):
    coordinator = coordinator_of(0, 1)
    coordinator.handle(0, part())
    with pytest.raises(WorkersDisagreeError, match=what):
        coordinator.handle(1, part(**change))


def test_an_epoch_is_recorded_with_the_chiefs_numbers():
    seen, progress = [], []
    coordinator = coordinator_of(0, 1, epoch=seen.append, progress=progress.append)
    assert coordinator.handle(1, part()) == {}
    assert coordinator.handle(0, part()) == {0: PassSum(), 1: PassSum()}
    coordinator.handle(0, Progress(epoch=0, step=1, steps=2, rows=4, logs={}, num_workers=2))
    logs = {"loss": 0.5, "learning_rate": 0.1}
    assert coordinator.handle(0, EpochLogs(epoch=0, logs=logs, stopped=False)) == {0: None}
    assert progress[0].step == 1
    assert seen[0].logs == logs
    assert seen[0].rows_by_worker == {0: 5, 1: 3}


def test_the_meeting_of_an_epoch_does_not_wait_for_the_lost():
    coordinator = coordinator_of(0, 1, 2)
    assert coordinator.handle(0, part()) == {}
    assert coordinator.handle(0, part()) == {}, "asking again changes nothing"
    assert coordinator.lost(died(2), 2) == {}
    assert coordinator.handle(1, part()) == {0: PassSum(), 1: PassSum()}


def test_validation_is_summed_in_the_trees_order():
    leaves = [np.array([value]) for value in (1e17, 1.0, -1e17, 1.0)]
    both = {(1, 0): (EMPTY, leaves[0] + leaves[1], NOTHING)}
    right = {(0, 2): (EMPTY, leaves[2], NOTHING), (0, 3): (EMPTY, leaves[3], NOTHING)}
    shares = Shard(lo=0, hi=2), Shard(lo=2, hi=4)
    parts = [share_part(share, nodes, 2) for share, nodes in zip(shares, (both, right), strict=True)]
    total = merge(parts, 4)
    expected = (leaves[0] + leaves[1]) + (leaves[2] + leaves[3])
    assert total.vector[1] == expected
    assert total.vector[1] != ((leaves[0] + leaves[1]) + leaves[2]) + leaves[3]
    assert total.rows == 4


def leaf(number):
    return {(0, number): (EMPTY, np.array([float(number)]), NOTHING)}


def test_what_a_lost_worker_had_not_validated_is_computed_by_the_others_once():
    coordinator = coordinator_of(0, 1)
    assert coordinator.handle(0, part(num_microbatches=4)) == {0: Shard(lo=0, hi=2)}
    assert coordinator.handle(1, part(num_microbatches=4)) == {1: Shard(lo=2, hi=4)}
    nodes = leaf(0) | leaf(1)
    assert coordinator.handle(0, share_part(Shard(lo=0, hi=2), nodes)) == {}
    assert coordinator.lost(died(1), 1) == {0: Shard(lo=2, hi=4)}
    answer = coordinator.handle(0, share_part(Shard(lo=2, hi=4), leaf(2) | leaf(3)))[0]
    assert answer.vector[1] == 6.0
    assert answer.rows == 2


def test_what_a_lost_worker_had_handed_in_counts():
    coordinator = coordinator_of(0, 1)
    for worker in (0, 1):
        coordinator.handle(worker, part(num_microbatches=2))
    coordinator.handle(1, share_part(Shard(lo=1, hi=2), leaf(1)))
    assert coordinator.lost(died(1), 1) == {}
    assert coordinator.handle(0, share_part(Shard(lo=0, hi=1), leaf(0)))[0].vector[1] == 1.0


@given(
    st.integers(1, 40), st.integers(1, 5), st.lists(st.integers(0, 4), max_size=4), st.randoms(use_true_random=False)
)
@settings(deadline=None, derandomize=True)
def test_every_leaf_of_a_pass_is_done_once_whoever_is_lost(num_microbatches, num_workers, victims, random):
    members = list(range(num_workers))
    book, done, computing = ShardQueue(num_microbatches, members), [], {}
    victims = [victim for victim in dict.fromkeys(victims) if victim < num_workers][: num_workers - 1]
    while not book.complete:
        worker = random.choice(members)
        if victims and random.random() < 0.3:
            victim = victims.pop()
            members.remove(victim)
            computing.pop(victim, None)
            book.lost(victim, len(members))
        elif worker in computing:
            share = computing.pop(worker)
            assert book.done(worker, share)
            assert not book.done(worker, share)
            done += range(*share)
        elif (share := book.next_for(worker)) is not None:
            assert book.next_for(worker) == share
            computing[worker] = share
    assert sorted(done) == list(range(num_microbatches))


def test_history_keeps_epochs_aligned():
    records = [
        EpochRecord(epoch=number, logs=logs, rows=1, rows_by_worker={0: 1}, seconds_by_worker={0: {}})
        for number, logs in enumerate([{"loss": 1.0}, {"loss": 0.5, "extra": 2.0}])
    ]
    assert history_of(records) == {"loss": [1.0, 0.5], "extra": [None, 2.0]}


def test_a_run_folder_is_not_used_twice_unless_it_resumes(tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
    folder.update(state="running")
    with pytest.raises(ConfigurationError, match="holds a run already"):
        RunFolder(tmp_path / "run", resume=False)
    assert RunFolder(tmp_path / "run", resume=True).record["state"] == "running"
    assert numbered_run_path(tmp_path / "run", 1).name == "run"
    assert numbered_run_path(tmp_path / "run", 2).name == "run-2"
    assert new_run_path("<lambda>", tmp_path).parent == tmp_path


def test_a_folder_of_another_version_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"format_version": 99}')
    with pytest.raises(ConfigurationError, match="format 99"):
        RunFolder(tmp_path, resume=True)


def test_run_json_is_replaced_whole(tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
    folder.update(state="running", plan={"workers": 2})
    folder.update(state="finished")
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == {
        "format_version": 3,
        "state": "finished",
        "plan": {"workers": 2},
    }
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["logs", "run.json"]


def test_a_record_whose_plan_names_a_setting_that_is_gone_is_read(tmp_path):
    plan = {"workers": 2, "all_reduce": "sockets"}
    (tmp_path / "run.json").write_text(json.dumps({"format_version": 2, "state": "paused", "plan": plan}))
    assert RunFolder(tmp_path, resume=True).record["plan"] == plan


def test_what_has_changed_is_named_when_a_run_cannot_go_on():
    before = {"seed": 1, "data": {"train": "a"}, "epochs": 1}
    check_identity(before, dict(before), "run")
    with pytest.raises(ConfigurationError, match=r"data.train: it began with 'a', and now it is 'b'") as raised:
        check_identity(before, before | {"data": {"train": "b"}}, "run")
    assert "seed" not in str(raised.value)


INFOS = {worker: WorkerInfo(worker=worker, host=f"host-{worker}", pid=1) for worker in range(2)}


def test_a_death_is_explained_with_worker_host_and_step():
    cause = Failure(worker=1, kind="died", reason="killed", step=12)
    error = explain_failure(TaskFailed(cause), INFOS, lambda worker: f"log-{worker}", None)
    assert isinstance(error, TrainingFailedError)
    assert (error.worker, error.host, error.step, error.log_path) == (1, "host-1", 12, "log-1")
    assert str(error).startswith("Worker 1 on host-1 died at step 12: killed")
    assert "Its log: log-1" in str(error)


def test_a_users_mistake_found_on_a_worker_is_raised_as_itself():
    mistake = DataError("labels out of range")
    cause = Failure(worker=0, kind="raised", reason="DataError", error=mistake)
    assert explain_failure(TaskFailed(cause), INFOS, None, None) is mistake
    assert mistake.__notes__ == ["(found by worker 0 on host-0)"]


def not_finite(microbatch):
    return NonfiniteGradientError(epoch=0, step=1, num_steps=4, microbatch=microbatch)


def test_errors_keep_their_fields_when_pickled():
    error = pickle.loads(pickle.dumps(not_finite(3)))
    assert (type(error), error.microbatch) == (NonfiniteGradientError, 3)
    assert "Microbatch 3 of step 1 of epoch 1" in str(error)


def test_of_several_nonfinite_gradients_the_one_with_its_microbatch_is_raised():
    failures = [Failure(worker=w, kind="raised", reason="", error=not_finite(microbatch=w or None)) for w in range(2)]
    assert explain_failure(TaskFailed(failures[0], (failures[1],)), INFOS, None, None) is failures[1].error


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
