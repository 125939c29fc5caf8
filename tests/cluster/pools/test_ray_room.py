"""Room and GPUs by their numbers alone."""

from __future__ import annotations

import threading

import pytest
from heliostat.cluster.errors import PlacementError
from heliostat.cluster.pools import ray_room
from heliostat.cluster.pools.ray_room import (
    check_gpus,
    check_room,
    gpus_per_worker,
    grant_line,
    places,
    room_line,
    within,
)
from heliostat.cluster.spec import GroupSpec

SMALL, LARGE = {"CPU": 1.0, "memory": 1e9}, {"CPU": 4.0, "GPU": 2.0}


def test_places_are_counted_machine_by_machine():
    assert places([SMALL, LARGE], {"CPU": 1, "GPU": 0}) == 5
    assert places([SMALL, LARGE], {"CPU": 3, "GPU": 0}) == 1
    assert places([SMALL, LARGE], {"CPU": 1, "GPU": 1}) == 2
    assert places([SMALL], {"CPU": 0, "GPU": 0}) > 1000
    assert places([], {"CPU": 1, "GPU": 0}) == 0


def test_what_can_never_be_met_is_refused_with_the_numbers_and_what_could_be():
    told = r"2 workers find no room: each worker needs 1 CPU, .* 1 machine\(s\) have 1 CPU .* room for 1\..*workers=1"
    with pytest.raises(PlacementError, match=told):
        check_room(GroupSpec(num_workers=2), {"CPU": 1, "GPU": 0}, [SMALL], may_grow=False)
    with pytest.raises(PlacementError, match="fewer threads_per_worker"):
        check_room(GroupSpec(num_workers=1), {"CPU": 2, "GPU": 0}, [SMALL], may_grow=False)


def test_a_cluster_that_may_grow_is_waited_for_and_the_numbers_are_said():
    line = check_room(GroupSpec(num_workers=2), {"CPU": 1, "GPU": 0}, [SMALL], may_grow=True)
    assert "room for 1 of 2 workers: each worker needs 1 CPU" in line


def test_a_group_that_may_begin_smaller_begins():
    spec = GroupSpec(num_workers=3, min_workers=1)
    assert "room for 1 of 3 workers" in check_room(spec, {"CPU": 1, "GPU": 0}, [SMALL], may_grow=False)
    assert check_room(spec, {"CPU": 1, "GPU": 0}, [LARGE], may_grow=False) == ""


@pytest.mark.parametrize(("num_workers", "asked", "by_machine", "granted"), [
    (2, None, [0, 0], 0), (2, None, [8, 8], 8), (4, None, [8, 8], 4), (2, None, [8, 1], 1), (2, 3, [8, 0], 3),
])  # fmt: skip
def test_gpus_are_granted_alike(num_workers, asked, by_machine, granted):
    assert gpus_per_worker(GroupSpec(num_workers=num_workers, gpus_per_worker=asked), by_machine) == granted


def test_more_workers_than_gpus_offers_as_many_as_there_are():
    with pytest.raises(
        PlacementError, match=r"2 workers with 1 GPU\(s\) each .* have 1 GPU\(s\)\. Give workers=1, or device='cpu'"
    ):
        gpus_per_worker(GroupSpec(num_workers=2), [1])
    with pytest.raises(PlacementError, match=r"have 4 GPU\(s\)\. Give fewer replicas_per_worker, or"):
        gpus_per_worker(GroupSpec(num_workers=2, gpus_per_worker=5), [4])


@pytest.mark.parametrize(("placed", "wanted", "said"), [
    (0, {"CPU": 2}, "4 wait for 2 CPU each; 1 of 8 CPU(s) are free."),
    (3, {"CPU": 2, "GPU": 0}, "3 of 4 have a place and are starting, 1 waits for 2 CPU; 1 of 8 CPU(s) are free."),
    (4, {"CPU": 2}, "4 of 4 have a place and are starting."),
    (1, {"GPU": 1}, "1 of 4 have a place and are starting, 3 wait for 1 GPU each; 0 of 0 GPU(s) are free."),
])  # fmt: skip
def test_the_line_says_how_many_are_starting_and_what_the_others_lack(placed, wanted, said):
    assert room_line(4, placed, wanted, {"CPU": 1.0}, {"CPU": 8.0}) == said


def test_a_gpu_that_was_asked_for_is_refused_or_waited_for():
    with pytest.raises(PlacementError, match="knows of no GPU in the cluster"):
        check_gpus(0, device="gpu", replicas=None, may_come=lambda: False)
    assert "waited for" in check_gpus(0, device="gpu", replicas=None, may_come=lambda: True)


@pytest.mark.parametrize(("gpus", "device", "replicas", "says"), [
    (2, "gpu", None, False), (0, "cpu", 2, False), (0, "auto", None, False), (0, "auto", 1, False),
    (0, "auto", 2, True),
])  # fmt: skip
def test_replicas_without_gpus_are_told_for_what_they_are(gpus, device, replicas, says):
    line = check_gpus(gpus, device=device, replicas=replicas, may_come=lambda: False)
    assert ("devices of its processor" in line) == bool(line) == says


def test_the_grant_names_gpus_that_stay_idle_and_why():
    assert grant_line(0, 2, [0]) == ""
    assert grant_line(4, 2, [4, 4]) == "GPUs: 4 for each worker, of machines with 4, 4"
    assert "7 of 9 stay idle, since machines have unequal numbers" in grant_line(1, 2, [8, 1])
    assert grant_line(3, 2, [8]).endswith("2 of 8 stay idle")


def test_a_head_that_does_not_answer_is_not_waited_for():
    never = threading.Event()
    assert within(never.wait, 0.1) is None
    never.set()
    assert within(lambda: 3, 60.0) == 3


def test_a_head_that_does_not_describe_its_machines_is_an_error(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(ray_room.ray, "nodes", over.wait)
    monkeypatch.setattr(ray_room, "NODES_S", 0.05)
    for ask in (ray_room.machines, ray_room.gpus_by_machine):
        with pytest.raises(PlacementError, match="has not answered"):
            ask()
    over.set()
