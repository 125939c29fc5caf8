"""Small parts of a pass, dealt out from the front: every microbatch once, in bounded memory, whoever is lost."""

from __future__ import annotations

import random

import pytest
from heliostat.cluster.group.controller_state import Formed
from heliostat.cluster.group.messages import TaskEvent
from heliostat.trainer.driver.coordinator import Coordinator
from heliostat.trainer.driver.shards import AHEAD, OrderedShards
from heliostat.trainer.pass_messages import PassStart, Shard, ShardResult


@pytest.mark.parametrize("seed", range(20))
def test_every_microbatch_is_done_once_and_few_wait(seed):
    rng = random.Random(seed)
    num_microbatches, size, first = rng.randrange(0, 60), rng.randrange(1, 5), 0
    members, done, computing = list(range(rng.randrange(1, 4))), [], {}
    num_members = len(members)
    shards = OrderedShards(num_microbatches, size, num_members)
    while not shards.complete:
        worker = rng.choice(members)
        if rng.random() < 0.1 and len(members) > 1:
            members.remove(worker)
            computing.pop(worker, None)
            shards.lost(worker, len(members))
        elif worker in computing and rng.random() < 0.7:
            assert shards.done(worker, computing[worker])
            assert not shards.done(worker, computing[worker]), "twice"
            done.append(computing.pop(worker))
        elif (shard := shards.next_for(worker)) is not None:
            assert computing.setdefault(worker, shard) == shard
            first = min((lo for lo, _ in computing.values()), default=0)
            assert shard[1] - first <= (AHEAD * num_members + 1) * size, "too far ahead of the first that is missing"
    assert sorted(at for lo, hi in done for at in range(lo, hi)) == list(range(num_microbatches))


def test_one_that_is_slow_lets_the_others_wait():
    shards = OrderedShards(100, 2, members=2)
    assert shards.next_for(0) == (0, 2)
    ahead = 0
    while (shard := shards.next_for(1)) is not None:
        assert shards.done(1, shard)
        ahead += 1
    assert ahead == AHEAD * 2 - 1
    assert shards.done(0, (0, 2))
    assert shards.next_for(1) == (16, 18)


def test_outputs_are_taken_in_order_and_asked_for_again_from_there_when_all_workers_were_lost():
    coordinator = Coordinator(shard_size=1)

    def form(generation, *, restarted=False):
        coordinator.take(Formed(generation=generation, members=(0, 1), joined=(0, 1), restarted=restarted))

    def told(worker, content):
        return coordinator.take(TaskEvent(worker=worker, content=content)).get(worker)

    form(0)
    assert (told(0, PassStart(num_microbatches=3)), told(1, PassStart(num_microbatches=3))) == (
        Shard(lo=0, hi=1),
        Shard(lo=1, hi=2),
    )
    told(1, ShardResult(shard=Shard(lo=1, hi=2), outputs="second"))
    assert coordinator.taken_outputs() == []
    told(0, ShardResult(shard=Shard(lo=0, hi=1), outputs="first"))
    assert coordinator.taken_outputs() == ["first", "second"]
    form(1, restarted=True)
    assert told(0, PassStart(num_microbatches=3)) == Shard(lo=2, hi=3)
