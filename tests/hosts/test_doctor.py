"""`heliostat doctor` on machines that share nothing: each is proved to do, and what is broken on purpose is named."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import contextmanager

import pytest

from .machines import HEAD, JOBS_PORT, address, host

pytestmark = [pytest.mark.reach, pytest.mark.slow]

# A clock that is 90 seconds ahead: what C asks for the time, and Python by it, is answered by this.
CLOCK = r"""
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#define AHEAD_S 90
int clock_gettime(clockid_t which, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, which, now);
    if (!failed && which == CLOCK_REALTIME) now->tv_sec += AHEAD_S;
    return failed;
}
"""

# Ray takes its time until it believes that a machine is gone which was killed.
THREE = """
import ray, time
ray.init(address="auto")
while sum(each["Alive"] for each in ray.nodes()) > 3:
    time.sleep(0.5)
"""


def examined(machines, told, *options, what="", at=HEAD):
    """Findings by check and the worst of each, all of them, and the whole object."""
    running = machines.python(at, "-m", "heliostat.scripts.cli", "doctor", "--json", *options)
    text = told(running, what)
    found = json.loads(next(line for line in reversed(text.splitlines()) if line.startswith("{")))
    assert running.wait() == (0 if found["is_well"] else 1), text[-6000:]
    by_check = {}
    for each in found["findings"]:
        print(each)
        by_check.setdefault(each["check"], {}).setdefault(each["state"], []).append(each)
    return by_check, found


def hosts_of(findings):
    return {name for each in findings for name in each["hosts"]}


def test_every_machine_is_proved_to_do(machines, told):
    checks, found = examined(machines, told, "--address=auto")
    assert {check: states for check, states in checks.items() if "fail" in states} == {}, found
    assert {each["host"] for each in found["machines"]} == {host(name) for name in "abc"}
    (shards,), (kept,), (steps,) = (checks[check]["ok"] for check in ("shards", "checkpoint", "step"))
    assert "read on 3 machine(s), on 2 of them through this one" in shards["what"]
    assert "read back on 3 machine(s)" in kept["what"]
    assert "3 worker(s)" in steps["what"]
    assert "3 worker(s) on 3 machine(s)" in checks["workers"]["ok"][0]["what"]
    assert len(found["links"]) == 3
    assert checks["token"].keys() == {"ok"}
    for name in "bc":  # what was fetched is gone but for the few rows of the steps
        shards = [path.stat().st_size for path in machines.disk(name).glob("home/.cache/heliostat/**/*.arrow")]
        assert sum(shards) < 1_000_000


def test_a_firewall_between_two_machines(machines, told):
    machines.cut("b", "c")
    try:
        checks, _ = examined(machines, told, "--address=auto")
    finally:
        machines.join("b", "c")
    assert hosts_of(checks["network"]["fail"]) == {host("b"), host("c")}
    assert {each["remedy"].split("try from ")[1].split(":")[0] for each in checks["network"]["fail"]} == {
        host("b"),
        host("c"),
    }
    assert "cannot reach" in checks["workers"]["fail"][0]["what"]
    for check in ("shards", "checkpoint"):
        assert checks[check].keys() == {"ok"}
        assert "3 machine(s)" in checks[check]["ok"][0]["what"]


@contextmanager
def broken(machines, tmp_path):
    """On b the clock is wrong; on c is another Keras, and the disk of the cache is full."""
    library = machines.disk("b") / "clock.so"
    (tmp_path / "clock.c").write_text(CLOCK)
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(tmp_path / "clock.c")]
    subprocess.run(command, check=True, capture_output=True)
    other = machines.disk("c") / "packages" / "keras-9.9.9.dist-info"
    other.mkdir(parents=True, exist_ok=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: keras\nVersion: 9.9.9\n")
    (machines.disk("c") / "home" / ".cache").mkdir(exist_ok=True)
    machines.restart("b", LD_PRELOAD="/tmp/clock.so")
    machines.restart("c", PYTHONPATH="/tmp/packages")
    fill = "mount -t tmpfs -o size=1m none /tmp/home/.cache && ! dd if=/dev/zero of=/tmp/home/.cache/full 2>/dev/null"
    try:
        assert machines.start("c", "sh", "-c", fill).wait() == 0
        assert machines.python(HEAD, "-c", THREE).wait() == 0
        yield
    finally:
        machines.start("c", "umount", "/tmp/home/.cache").wait()
        for name in "bc":
            machines.restart(name)


@pytest.mark.skipif(shutil.which("cc") is None, reason="a wrong clock needs a C compiler")
def test_what_is_broken_is_named_on_its_machine_and_hides_nothing_else(machines, told, tmp_path):
    with broken(machines, tmp_path):
        checks, found = examined(machines, told, "--address=auto")
    (clock,), (keras,), (disk,) = (checks[check]["fail"] for check in ("clocks", "versions", "disk"))
    assert clock["hosts"] == [host("b")]
    assert "is 90" in clock["what"].replace("89.9", "90")
    assert "timedatectl" in clock["remedy"]
    assert keras["hosts"] == [host("c")]
    assert "keras is 9.9.9" in keras["what"]
    assert disk["hosts"] == [host("c")]
    assert "has 0 MB left" in disk["what"]
    assert hosts_of(checks["shards"]["fail"]) == {host("c")}
    assert "read on 2 machine(s)" in checks["shards"]["ok"][0]["what"]
    assert "read back on 3 machine(s)" in checks["checkpoint"]["ok"][0]["what"]
    assert checks["network"].keys() == {"ok"}
    (workers,) = checks["workers"]["fail"]
    assert workers["hosts"] == [host("c")], found


def test_memory_that_processes_share_is_full(machines, told):
    """Ray has its own part of it already; what others put there is in its way."""
    fill = "mount -o remount,size=$(($(df -k --output=used /dev/shm | tail -1) + 20000))k /dev/shm"
    assert machines.start("b", "sh", "-c", fill).wait() == 0
    try:
        checks, _ = examined(machines, told, "--address=auto")
    finally:
        assert machines.start("b", "mount", "-o", "remount,size=2g", "/dev/shm").wait() == 0
    (memory,) = checks["memory"]["fail"]
    assert memory["hosts"] == [host("b")]
    assert "/dev/shm has 2" in memory["what"]
    assert checks["step"].keys() == {"ok"}


def test_a_machine_whose_cpus_others_hold_is_looked_at_and_named(machines, told):
    gate = machines.disk("b") / "gate"
    code = (
        "import pathlib, ray, time, socket\nray.init(address='auto')\n"
        "@ray.remote(num_cpus=2)\ndef hold():\n    while not pathlib.Path('/tmp/gate').exists(): time.sleep(0.1)\n"
        "there = [each for each in ray.nodes() if each['NodeManagerHostname'].endswith('-b')][0]['NodeID']\n"
        "from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as At\n"
        "held = hold.options(scheduling_strategy=At(there, soft=False)).remote()\n"
        "while ray.available_resources().get('CPU', 0) > 4: time.sleep(0.1)\nprint('held', flush=True)\nray.get(held)\n"
    )
    holder = machines.python(HEAD, "-c", code)
    try:
        holder.wait_for("held")
        checks, _ = examined(machines, told, "--address=auto")
    finally:
        gate.touch()
        holder.wait()
    (warned,) = checks["workers"]["warn"]
    assert warned["hosts"] == [host("b")]
    assert "read on 3 machine(s)" in checks["shards"]["ok"][0]["what"]
    assert checks["step"].keys() == {"ok"}


def test_a_cluster_that_is_reached_by_its_job_server_alone(machines, told):
    server = f"http://{address(HEAD)}:{JOBS_PORT}"
    checks, found = examined(machines, told, f"--address={server}", at="b")
    assert {check: states for check, states in checks.items() if "fail" in states} == {}, found
    assert server in checks["job server"]["ok"][0]["what"]
    assert "3 worker(s)" in checks["step"]["ok"][0]["what"]
    assert {each["host"] for each in found["machines"]} == {host(name) for name in "abc"}
