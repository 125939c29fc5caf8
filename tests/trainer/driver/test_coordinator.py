"""The driver's half of a task, without workers: merging reports, checking that they agree, handing out shards."""

from __future__ import annotations

import numpy as np
import pytest
from heliostat.cluster.group.controller_state import Formed, WorkerDeath
from heliostat.cluster.group.messages import Failure, TaskEvent
from heliostat.trainer import TrainerError, WorkersDisagreeError
from heliostat.trainer.driver.coordinator import Coordinator, merge
from heliostat.trainer.driver.predictions import joined_outputs
from heliostat.trainer.driver.shards import ShardQueue
from heliostat.trainer.jobs import EpochLogs, EpochPart, Progress, Ready
from heliostat.trainer.pass_messages import PassStart, PassSum, Shard, ShardResult
from hypothesis import given, settings
from hypothesis import strategies as st

EMPTY, NOTHING = np.zeros(0, np.float32), np.zeros(0)


class Told(Coordinator):
    """A coordinator that is told what workers say in fewer words."""

    def handle(self, worker, content):
        return self.take(TaskEvent(worker=worker, content=content))

    def lose(self, worker, num_left):
        failure = Failure(worker=worker, kind="died", reason="killed")
        return self.take(WorkerDeath(failure=failure, num_left=num_left))

    def form(self, *members, restarted=False):
        return self.take(Formed(generation=0, members=members, joined=members, restarted=restarted))


def ready(shapes="same", **platform):
    usual = {"device_type": "CPU", "instructions": "avx2", "python": "3.11", "processor": "one"}
    return Ready(shapes=shapes, num_weights=1, platform=usual | platform, model={"layers": "a"})


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


def coordinator_of(*members, **settings):
    made = Told(**settings)
    made.form(*members)
    return made


def result(shard, nodes=(), rows=1):
    return ShardResult(shard=shard, nodes=dict(nodes), rows=rows)


def test_workers_that_build_the_same_model_are_welcome():
    coordinator = coordinator_of()
    assert coordinator.handle(1, ready()) == {1: ""}
    assert coordinator.handle(0, ready(processor="another of the same kind")) == {0: ""}


@pytest.mark.parametrize("change", [{"device_type": "GPU"}, {"instructions": "avx2 avx512f"}])
def test_a_worker_whose_hardware_selects_other_kernels_is_refused_unless_that_is_allowed(change):
    strict, lenient = coordinator_of(), coordinator_of(mixed_hardware="allow")
    for coordinator in (strict, lenient):
        coordinator.handle(4, ready())
    ((name, value),) = change.items()
    refused = strict.handle(7, ready(**change))[7]
    assert f"({name}: {ready().platform[name]!r} on worker 4, {value!r} on worker 7)" in refused
    assert "mixed_hardware='allow'" in refused
    assert lenient.handle(7, ready(**change)) == {7: ""}
    assert "platform" in lenient.handle(8, ready(python="3.12"))[8]


@pytest.mark.parametrize(("change", "what"), [({"shapes": "x"}, "shapes"), ({"python": "3.12"}, "platform")])
def test_a_worker_with_another_model_or_platform_is_told_why_it_is_not_wanted(change, what):
    coordinator = coordinator_of()
    coordinator.handle(4, ready())
    refused = coordinator.handle(7, ready(**change))[7]
    assert what in refused
    assert "worker 4: " in refused
    assert "worker 7: " in refused


@pytest.mark.parametrize(("change", "what"), [({"digest": "x"}, "training state"), ({"loss": 0.6}, "global metrics")])
def test_workers_that_drift_apart_are_refused(change, what):
    coordinator = coordinator_of(0, 1)
    coordinator.handle(0, part())
    with pytest.raises(WorkersDisagreeError, match=what):
        coordinator.handle(1, part(**change))


def test_an_epoch_is_recorded_with_the_chiefs_numbers():
    coordinator = coordinator_of(0, 1)
    assert coordinator.handle(1, part()) == {}
    assert coordinator.handle(0, part()) == {0: PassSum(), 1: PassSum()}
    assert coordinator.handle(0, Progress(epoch=0, step=1, steps=2, rows=4, logs={}, num_workers=2)) == {}
    told = EpochLogs(epoch=0, logs={"loss": 0.5, "learning_rate": 0.1}, stopped=False)
    assert coordinator.handle(0, told) == {0: None}
    record = coordinator.epoch_of(told)
    assert (record.logs, record.rows_by_worker) == (told.logs, {0: 5, 1: 3})


def test_the_meeting_of_an_epoch_does_not_wait_for_the_lost():
    coordinator = coordinator_of(0, 1, 2)
    assert coordinator.handle(0, part()) == {}
    assert coordinator.handle(0, part()) == {}, "asking again changes nothing"
    assert coordinator.lose(2, 2) == {}
    assert coordinator.handle(1, part()) == {0: PassSum(), 1: PassSum()}


def test_validation_is_summed_in_the_trees_order():
    leaves = [np.array([value]) for value in (1e17, 1.0, -1e17, 1.0)]
    both = {(1, 0): (EMPTY, leaves[0] + leaves[1], NOTHING)}
    right = {(0, 2): (EMPTY, leaves[2], NOTHING), (0, 3): (EMPTY, leaves[3], NOTHING)}
    shards = Shard(lo=0, hi=2), Shard(lo=2, hi=4)
    results = [result(shard, nodes, 2) for shard, nodes in zip(shards, (both, right), strict=True)]
    total = merge(results, 4)
    expected = (leaves[0] + leaves[1]) + (leaves[2] + leaves[3])
    assert total.vector[1] == expected
    assert total.vector[1] != ((leaves[0] + leaves[1]) + leaves[2]) + leaves[3]
    assert total.rows == 4


def leaf(index):
    return {(0, index): (EMPTY, np.array([float(index)]), NOTHING)}


def test_what_a_lost_worker_had_not_validated_is_computed_by_the_others_once():
    coordinator = coordinator_of(0, 1)
    assert coordinator.handle(0, part(num_microbatches=4)) == {0: Shard(lo=0, hi=2)}
    assert coordinator.handle(1, part(num_microbatches=4)) == {1: Shard(lo=2, hi=4)}
    nodes = leaf(0) | leaf(1)
    assert coordinator.handle(0, result(Shard(lo=0, hi=2), nodes)) == {}
    assert coordinator.lose(1, 1) == {0: Shard(lo=2, hi=4)}
    answer = coordinator.handle(0, result(Shard(lo=2, hi=4), leaf(2) | leaf(3)))[0]
    assert answer.vector[1] == 6.0
    assert answer.rows == 2


def test_what_a_lost_worker_had_handed_in_counts():
    coordinator = coordinator_of(0, 1)
    for worker in (0, 1):
        coordinator.handle(worker, part(num_microbatches=2))
    coordinator.handle(1, result(Shard(lo=1, hi=2), leaf(1)))
    assert coordinator.lose(1, 1) == {}
    assert coordinator.handle(0, result(Shard(lo=0, hi=1), leaf(0)))[0].vector[1] == 1.0


def test_predictions_of_workers_that_were_all_lost_do_not_come_twice():
    coordinator = coordinator_of(0, 1)
    for worker in (0, 1):
        coordinator.handle(worker, PassStart(num_microbatches=2))
    coordinator.handle(0, ShardResult(shard=Shard(lo=0, hi=1), outputs=np.arange(5), rows=5))
    coordinator.form(2, restarted=True)
    assert coordinator.handle(2, PassStart(num_microbatches=2)) == {2: Shard(lo=0, hi=2)}
    coordinator.handle(2, ShardResult(shard=Shard(lo=0, hi=2), outputs=np.arange(10), rows=10))
    np.testing.assert_array_equal(joined_outputs(coordinator.outputs), np.arange(10))


def test_predictions_are_joined_in_the_order_of_rows_whatever_their_structure():
    found = joined_outputs(
        {(2, 3): {"a": [np.ones(1)], "b": np.zeros(1)}, (0, 2): {"a": [np.zeros(2)], "b": np.ones(2)}}
    )
    np.testing.assert_array_equal(found["a"][0], [0, 0, 1])
    np.testing.assert_array_equal(found["b"], [1, 1, 0])


@pytest.mark.parametrize("shards", [[(0, 2), (1, 3)], [(0, 1), (2, 3)], [(1, 3)]])
def test_predictions_whose_shards_do_not_tile_the_pass_are_an_error(shards):
    with pytest.raises(TrainerError, match="do not meet"):
        joined_outputs({shard: np.zeros(1) for shard in shards})


@given(
    st.integers(1, 40), st.integers(1, 5), st.lists(st.integers(0, 4), max_size=4), st.randoms(use_true_random=False)
)
@settings(deadline=None, derandomize=True)
def test_every_microbatch_of_a_pass_is_done_once_whoever_is_lost(num_microbatches, num_workers, victims, random):
    members = list(range(num_workers))
    shards, done, computing = ShardQueue(num_microbatches, members), [], {}
    victims = [victim for victim in dict.fromkeys(victims) if victim < num_workers][: num_workers - 1]
    while not shards.complete:
        worker = random.choice(members)
        if victims and random.random() < 0.3:
            victim = victims.pop()
            members.remove(victim)
            computing.pop(victim, None)
            shards.lost(victim, len(members))
        elif worker in computing:
            shard = computing.pop(worker)
            assert shards.done(worker, shard)
            assert not shards.done(worker, shard)
            done += range(*shard)
        elif (shard := shards.next_for(worker)) is not None:
            assert shards.next_for(worker) == shard
            computing[worker] = shard
    assert sorted(done) == list(range(num_microbatches))
