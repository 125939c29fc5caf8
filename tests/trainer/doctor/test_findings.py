"""What is said of machines, from made-up facts: every trouble has its line, and what is well has no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from heliostat.cluster.errors import Complaint
from heliostat.cluster.links import PairBandwidth
from heliostat.cluster.preflight import CACHE, Facts, Wanted
from heliostat.trainer.doctor import machine
from heliostat.trainer.doctor.examination import guarded, of_facts, of_packages, of_run_folders
from heliostat.trainer.doctor.finding import fail, merged, of_complaints, ok, warn
from heliostat.trainer.doctor.machine import Gpus, Machine, Node
from heliostat.trainer.doctor.proofs import (
    EXACT_TO,
    ROWS_PER_WORKER,
    Layout,
    layout_for,
    linear_losses,
    linear_rows,
    of_links,
    of_places,
)

GB = 1_000_000_000
WELL = Machine(
    cores=8,
    shared=(8 * GB, 8 * GB),
    temporary=(50 * GB, 100 * GB),
    temporary_folder="/tmp",
    processor=("a processor", "avx2 avx512f"),
)
STORE = {"object_store_memory": 2.0 * GB}


def node(host="a", cpus=8, gpus=0, ahead_s=(0.0, 0.001), memory_bytes=16 * GB, **changes):
    resources = {"CPU": float(cpus), **({"GPU": float(gpus)} if gpus else {}), **STORE}
    return Node(
        id=host,
        host=host,
        resources=resources,
        machine=replace(WELL, **changes),
        memory_bytes=memory_bytes,
        ahead_s=ahead_s,
    )


def lines(findings):
    return [each.line for each in findings]


def test_a_line_has_state_check_machines_what_and_remedy():
    assert ok("Ray", "2.60.0").line == "ok    Ray          2.60.0"
    assert warn("clocks", "off", "date -s now", "a", "b").line == "warn  clocks       a, b: off. date -s now"
    assert fail("step", "It failed.", "Look").line == "fail  step         It failed. Look"


def test_the_same_of_several_machines_is_one_finding():
    found = merged([fail("disk", "full", "rm", "a"), ok("disk", "fine", "b"), fail("disk", "full", "rm", "c")])
    assert found == [fail("disk", "full", "rm", "a", "c"), ok("disk", "fine", "b")]
    of = of_complaints("versions", [Complaint(host=host, what="old", remedy="Mend it") for host in "ab"])
    assert of == [fail("versions", "old", "Mend it.", "a", "b")]


def test_what_is_well_is_said_without_a_warning():
    nodes = [node("a"), node("b")]
    found = [*machine.of_size(nodes), *machine.of_memory(nodes), *machine.of_disk(nodes), *machine.of_clocks(nodes)]
    found += [machine.of_hardware(nodes), *machine.of_gpus(nodes)]
    assert {each.state for each in found} == {"ok"}
    assert {each.check for each in found} == {"machine", "memory", "clocks", "hardware", "GPUs"}


def state_of(findings) -> str:
    """The state and the only line of a trouble."""
    (found,) = (each for each in findings if each.state != "ok")
    assert found.remedy
    return found.line


def test_more_cpus_than_cores():
    assert "--num-cpus=8" in state_of(machine.of_size([node(cpus=64)]))


def test_memory_that_is_short():
    assert state_of(machine.of_memory([node(memory_bytes=GB)])).startswith("warn  memory       a: 1.0 GB")
    full = state_of(machine.of_memory([node("a"), node("b", shared=(20_000_000, 8 * GB))]))
    assert full.startswith("fail  memory       b: /dev/shm has 20 MB of 8,000 MB left")
    small = state_of(machine.of_memory([node(shared=(64_000_000, 64_000_000))]))
    assert small.startswith("warn")
    assert "--shm-size=3g" in small
    assert [each.state for each in machine.of_memory([node(shared=None)])] == ["ok"]


def test_a_disk_that_is_nearly_full_and_one_that_is():
    assert state_of(machine.of_disk([node(temporary=(500_000_000, GB))])).startswith("warn  disk")
    assert state_of(machine.of_disk([node(temporary=(5_000_000, GB))])).startswith("fail  disk")


@pytest.mark.parametrize(
    ("ahead_s", "says"),
    [
        ((3.0, 0.1), "warn  clocks       b: its clock is 3.0 s ahead of"),
        ((-90.0, 0.1), "fail  clocks       b: its clock is 90.0 s behind"),
    ],
)
def test_clocks_that_differ(ahead_s, says):
    assert state_of(machine.of_clocks([node("a"), node("b", ahead_s=ahead_s)])).startswith(says)


def test_a_clock_is_not_blamed_for_a_slow_answer():
    (found,) = machine.of_clocks([node(ahead_s=(3.0, 2.5))])
    assert found.state == "ok"
    assert "5.5e+03 ms" in found.line


def test_processors_that_select_other_kernels():
    other = node("b", processor=("another", "avx2 amx_tile"))
    line = machine.of_hardware([node("a"), other]).line
    assert "b: devices select other kernels" in line
    assert "'avx2 avx512f' on a, 'avx2 amx_tile' here" in line
    assert "mixed_hardware='allow'" in line


@pytest.mark.parametrize(
    ("gpus", "granted", "driver", "says"),
    [
        (
            Gpus(why="it is built for processors alone."),
            4,
            4,
            "fail  GPUs         a: Ray gives away 4 GPU(s), and",
        ),
        (Gpus(why="it is built for processors alone."), 0, 4, "warn  GPUs         a: NVIDIA's driver has 4 GPU(s)"),
        (Gpus(seen=4, names="H100"), 2, 4, "warn  GPUs         a: TensorFlow sees 4 GPU(s), and Ray gives away 2"),
        (Gpus(seen=4, names="H100 (9.0)"), 4, 4, "ok    GPUs         a: 4 for Ray, 4 for TensorFlow: H100 (9.0)"),
    ],
)
def test_gpus_as_ray_and_tensorflow_see_them(gpus, granted, driver, says):
    (found,) = machine.of_gpus([gpu_node(gpus, granted, driver)])
    assert found.line.startswith(says)


def gpu_node(gpus, granted, driver):
    return replace(node(gpus=granted), machine=replace(WELL, gpus=gpus, driver_gpus=driver))


def facts(host, **changes):
    known = {
        "python": ("3.11.7", "/bin/python"),
        "versions": {"keras": "3.15.1", "tensorflow": "2.21.0"},
        "room": {CACHE: 5 * GB},
        "memory_bytes": GB,
        "heliostat": ("ab" * 20, "/h"),
    }
    return Facts(host=host, **{**known, **changes})


WANTED = Wanted(
    packages={"keras": ("keras",), "tensorflow": ("tensorflow",)}, folders=(CACHE,), room_bytes=GB, memory_bytes=GB // 2
)


def test_machines_that_have_what_the_driver_has():
    found = list(of_facts(WANTED, facts("a"), [facts("a"), facts("b", room={CACHE: 2 * GB})]))
    assert lines(found) == [
        "ok    versions     the same Python, packages and Heliostat on 2 machine(s)",
        "ok    disk         2.0 GB or more left for what is fetched",
    ]


def test_machines_that_lack_something_each_with_its_own_line():
    there = [
        facts("a"),
        facts("b", versions={"keras": "3.16.0", "tensorflow": ""}),
        facts("c", room={CACHE: 1000}, memory_bytes=100_000_000),
    ]
    found = [each for each in of_facts(WANTED, facts("a"), there) if each.state == "fail"]
    assert [(each.check, each.hosts) for each in found] == [
        ("versions", ("b",)),
        ("versions", ("b",)),
        ("disk", ("c",)),
        ("memory", ("c",)),
    ]
    assert "Install keras==3.15.1 there." in found[0].line
    assert "tensorflow is not installed" in found[1].line


def test_what_this_process_lacks():
    found = list(of_packages(WANTED, facts("a", versions={"keras": "3.15.1", "tensorflow": ""})))
    assert found[0].line == "fail  packages     tensorflow is not installed (/bin/python). pip install tensorflow"
    assert found[1].line == "ok    packages     a: Python 3.11.7, keras 3.15.1"


def test_a_folder_for_runs_that_is_a_file(tmp_path):
    (tmp_path / "runs").touch()
    (found,) = of_run_folders(tmp_path / "runs")
    assert found.state == "fail"
    assert "is no folder" in found.line
    (found,) = of_run_folders(tmp_path / "other" / "runs")
    assert found.state in ("ok", "warn")


@pytest.mark.parametrize(
    ("nodes", "layout"),
    [
        ([node()], Layout(workers=2, device="cpu")),
        ([node(cpus=1)], Layout(workers=1, device="cpu")),
        ([node(cpus=0)], None),
        ([node("a", cpus=0), node("b"), node("c", cpus=1)], Layout(workers=2, device="cpu")),
        ([node("a"), node("b", gpus=1)], Layout(workers=1, device="gpu")),
        ([node("a"), node("b", gpus=4)], Layout(workers=2, device="gpu")),
        ([node("a", gpus=8), node("b", gpus=8), node("c")], Layout(workers=2, device="gpu")),
    ],
)
def test_a_worker_for_each_machine_that_can_have_one(nodes, layout):
    assert layout_for(nodes) == layout


def test_a_machine_without_a_worker_is_told():
    found = list(of_places({0: "a", 1: "a"}, [node("a"), node("b"), node("head", cpus=0)]))
    assert [(each.state, each.hosts) for each in found] == [("ok", ()), ("warn", ("b",))]


def test_links():
    fast = [PairBandwidth(workers=pair, latency_s=1e-3, bytes_per_s=2e9) for pair in ((0, 1), (0, 2))]
    slow = PairBandwidth(workers=(1, 2), latency_s=4e-3, bytes_per_s=1e7)
    hosts = {0: "a", 1: "b", 2: "c"}
    assert (
        lines(of_links(fast, hosts))[1]
        == "ok    links        2 GB/s each way between a and b, the slowest; 1 ms at most"
    )
    found = list(of_links([*fast, slow], hosts))[1]
    assert found.state == "warn"
    assert "10 MB/s each way between b and c" in found.line
    assert "two workers on a" in lines(of_links(fast[:1], {0: "a", 1: "a"}))[1]
    assert "nothing to sum" in lines(of_links([], {0: "a"}))[0]


def test_what_must_come_out_depends_on_every_row_and_worker():
    x, y = linear_rows(4 * ROWS_PER_WORKER)
    losses = np.array(linear_losses(x, y))
    assert list(losses) == sorted(losses, reverse=True)
    for device, left_out in (("cpu", 1), ("gpu", ROWS_PER_WORKER)):
        fewer = linear_losses(x[left_out:], y[left_out:])
        assert not np.allclose(fewer, losses, rtol=EXACT_TO[device])


def test_an_error_that_nobody_has_thought_of_is_a_finding():
    def findings():
        yield ok("one", "fine")
        raise ZeroDivisionError("by zero")

    assert [each.state for each in guarded("machines", findings())] == ["ok", "fail"]
