"""Who holds what is waited for: from what Ray tells, and from a real Ray."""

from __future__ import annotations

import pytest
import ray
from heliostat.cluster.pools.private_api import JobInfo
from heliostat.cluster.pools.ray_holders import held_by, holdings, sentence
from heliostat.cluster.pools.ray_placement import Placement

from .test_ray_placement import granted

OWN, OTHER, THIRD = "01000000", "02000000", "03000000"
JOBS = {OTHER: JobInfo("python -u /home/me/train.py --key secret", "10.0.0.1"), THIRD: JobInfo("", "10.0.0.2")}


def test_what_is_reserved_is_added_up_by_job_and_other_actors_are_counted():
    groups = {"a" * 28 + OTHER: [{"CPU": 2.0}, {"CPU": 2.0, "GPU": 1.0}], "b" * 28 + THIRD: [{"memory": 5.0}]}
    found = holdings(("CPU",), groups, [(OTHER, "RayWorker"), (OTHER, "RayWorker"), (OWN, "RayWorker")], OWN)
    assert list(found) == [OTHER]
    assert sentence(found, JOBS, OWN) == (
        "Held by python train.py (job 02000000, from 10.0.0.1): 4 CPU(s) reserved, 2 actor(s) RayWorker."
    )


def test_the_largest_holders_are_named_and_the_others_counted():
    groups = {f"{each}{each:07d}0": [{"GPU": float(each)}] for each in range(1, 6)}
    told = sentence(holdings(("GPU",), groups, [(THIRD, "Other")], OWN), JOBS, OWN)
    assert told.startswith("Held by job 00000050: 5 GPU(s) reserved; job 00000040")
    assert told.endswith("; and 3 more job(s).")
    assert sentence({}, JOBS, OWN) == ""


@pytest.mark.ray
def test_another_group_of_this_program_is_told_of_and_the_own_is_not(ray_here):
    first, second = Placement({"CPU": 1}, 2), Placement({"CPU": 1}, 1)
    first.options(0)
    second.options(0)
    granted(first)
    granted(second)
    assert "this program: 2 CPU(s) reserved" in held_by(["CPU"], second.group_id)
    assert "this program: 1 CPU(s) reserved" in held_by(["CPU"], first.group_id)
    assert "CPU(s) reserved" not in held_by(["GPU"], first.group_id)
    for each in (first, second):
        each.close()
    assert ray.is_initialized()
