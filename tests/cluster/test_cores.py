"""Cores that a process may use, and how machines' cores are divided among workers."""

from __future__ import annotations

import os

import pytest
from heliostat.cluster.cores import cores_per_worker, cores_to_ask, usable_cores

PERIOD = "100000"


@pytest.fixture
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def control_groups(tmp_path, own, files):
    """(own, mounted): a process in these groups, on a machine with these files of groups."""
    (tmp_path / "own").write_text(own)
    for name, content in files.items():
        path = tmp_path / "mounted" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "own", tmp_path / "mounted"


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, 16),
        ("0::/a/b\n", {"a/b/cpu.max": "450000 100000\n"}, 4),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/seen/from/outside\n", {"cpu.max": "300000 100000\n"}, 3),
        (
            "3:cpuset:/\n2:cpu,cpuacct:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "600000", "cpu/a/cpu.cfs_period_us": "100000"},
            6,
        ),
        ("2:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
        ("2:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 16),
        ("0::/a\n", {"a/cpu.max": "nonsense"}, 16),
    ],
)
def test_a_control_groups_quota_counts_wherever_it_stands(tmp_path, sixteen_cores, own, files, cores):
    assert usable_cores(*control_groups(tmp_path, own, files)) == cores


def test_without_control_groups_affinity_alone_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert usable_cores(tmp_path / "none", tmp_path) == 1


@pytest.mark.parametrize(
    ("machines", "workers", "cores"),
    [([16], 1, 16), ([16], 2, 8), ([16], 3, 5), ([2], 8, 1), ([16, 16], 2, 16), ([16, 4], 2, 4), ([16, 4], 3, 2)],
)
def test_workers_share_the_cores_of_the_smallest_machine(machines, workers, cores):
    assert cores_per_worker(machines, workers) == cores


@pytest.mark.parametrize(
    ("wanted", "machines", "workers", "cores"),
    [(8, [16], 2, 8), (8, [8], 2, 4), (8, [4, 4], 3, 2), (8, [16, 2], 1, 8), (8, [1], 2, 1), (1, [16], 1, 1)],
)
def test_a_request_is_never_larger_than_what_finds_room_for_all(wanted, machines, workers, cores):
    assert cores_to_ask(wanted, machines, workers) == cores
