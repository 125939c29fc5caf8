"""The first workers of a pool get room together or not at all, and a lost one's place stays theirs; real actors."""

from __future__ import annotations

import os
import time

import pytest
import ray
from heliostat.cluster.pools.ray_placement import Bundles, Placement
from ray.exceptions import RayActorError
from ray.util.placement_group import placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tests.slow import SLOW

GUARD_S = 60.0 * SLOW


def test_a_free_bundle_is_taken_again():
    bundles = Bundles(2)
    assert [bundles.take(worker, ()) for worker in range(3)] == [0, 1, None]
    bundles.leave(0, "node")
    bundles.leave(2, "node")  # it was outside
    assert [bundles.take(worker, ()) for worker in (3, 4)] == [0, None]


def test_a_bundle_on_a_machine_that_leaves_is_not_taken_before_it_has_moved():
    bundles = Bundles(1)
    bundles.take(0, ())
    bundles.leave(0, "going")
    assert bundles.take(1, {"going"}) is None
    assert bundles.take(2, ()) == 0


def test_who_wants_nothing_is_placed_anywhere_at_once():
    placement = Placement({"CPU": 0, "GPU": 0}, 3)
    assert placement.is_granted
    assert placement.options(0) == {"num_cpus": 0, "num_gpus": 0, "scheduling_strategy": "SPREAD"}
    placement.close()


@ray.remote(max_restarts=0)
class Process:
    """An actor that knows its number."""

    def pid(self):
        return os.getpid()


@pytest.fixture
def placements(ray_here):
    made = []

    def make(num_reserved):
        made.append(Placement({"CPU": 1, "GPU": 0}, num_reserved))
        return made[-1]

    yield make
    for each in made:
        each.close()


def until(condition):
    until_s = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.05)
    return True


def granted(placement):
    return until(lambda: placement.is_granted)


def is_gone(actor):
    """A kill is under way for a moment, in which the actor still answers."""
    try:
        ray.get(actor.pid.remote(), timeout=GUARD_S)
    except RayActorError:
        return True
    return False


def started(options):
    actor = Process.options(**options).remote()
    return actor, ray.get(actor.pid.remote(), timeout=GUARD_S)


@pytest.mark.ray
def test_who_waits_holds_nothing_and_asks_for_nothing_more_until_its_first_workers_have_room(placements):
    cores = int(ray.cluster_resources()["CPU"])
    first, second = placements(1), placements(cores)
    first.options(0)
    assert granted(first)
    options = [second.options(worker) for worker in range(cores + 1)]
    assert [each is None for each in options] == [False] * cores + [True], "beyond the reservation nobody is started"
    assert not second.is_granted
    others = [first.options(worker) for worker in range(1, cores)]
    actors = [started(each)[0] for each in others if each is not None]
    assert len(actors) == cores - 1, "the one that waits for all holds none of them"
    for actor in actors:
        ray.kill(actor)
    first.close()
    assert granted(second)
    assert second.options(cores)["scheduling_strategy"] == "SPREAD"


@pytest.mark.ray
def test_the_next_worker_takes_the_place_of_a_lost_one(placements):
    placement = placements(1)
    actor, pid = started(placement.options(0))
    assert placement.options(1)["scheduling_strategy"] == "SPREAD"
    ray.kill(actor)
    assert until(lambda: is_gone(actor))
    placement.left(0, "")
    options = placement.options(2)
    strategy = options["scheduling_strategy"]
    assert isinstance(strategy, PlacementGroupSchedulingStrategy)
    again, other = started(options)
    assert other != pid
    ray.kill(again)
    placement.close()
    assert until(lambda: placement_group_table(strategy.placement_group)["state"] == "REMOVED")
