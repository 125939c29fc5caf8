"""Why a worker died: what is said of Ray's errors, and of a driver that was away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from heliostat.cluster.pools import ray_death
from heliostat.cluster.pools.ray_death import Absence, evidence_of, reason_of
from heliostat.cluster.pools.ray_worker import DRIVER_GONE_S
from ray.exceptions import ActorDiedError, OutOfMemoryError, WorkerCrashedError

SCRIPT = """
import time
from heliostat.cluster.pools import ray_death
ray_death.JUST_NOW_S = 0.5
absence = ray_death.Absence()
print("ready", flush=True)
until_s = time.monotonic() + 60
while time.monotonic() < until_s and not absence.last_s():
    time.sleep(0.05)
    absence.tick()
print(absence.last_s() > 0.5, absence.last_s() < 60)
"""


def test_a_process_notices_that_it_was_stopped():
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True, env={
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.0)  # that is what is noticed
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=60)[0] == "True True\n"


def test_a_process_that_runs_was_never_away():
    assert Absence().last_s() == 0.0


def test_an_absence_is_forgotten(monkeypatch):
    clock = iter([0.0, 100.0, 101.0, 114.0, 128.0])
    monkeypatch.setattr(ray_death.time, "clock_gettime", lambda _: next(clock))
    absence = Absence()
    assert [absence.last_s() for _ in range(4)] == [100.0, 100.0, 100.0, 0.0]


def test_a_time_without_workers_is_no_absence(monkeypatch):
    clock = iter([0.0, 3600.0, 3601.0])
    monkeypatch.setattr(ray_death.time, "clock_gettime", lambda _: next(clock))
    absence = Absence()
    absence.begin()
    assert absence.last_s() == 0.0


def test_the_reason_of_a_loss_is_the_absence_of_the_driver():
    assert f"the driver was gone for {DRIVER_GONE_S + 3:.0f} s" in reason_of(WorkerCrashedError(), DRIVER_GONE_S + 3)
    assert "driver" not in reason_of(WorkerCrashedError(), DRIVER_GONE_S - 1)


def test_memory_is_evidence_by_the_type_of_rays_error_or_the_kernels_counter_of_that_machine():
    assert evidence_of(OutOfMemoryError("killed"), None, None, killed_here=False) == "out of memory"
    assert evidence_of(ActorDiedError(), None, None, killed_here=True) == "out of memory"
    assert evidence_of(ActorDiedError(), None, None, killed_here=False) == ""


def test_a_crash_is_evidence_by_the_workers_log(tmp_path):
    log = tmp_path / "worker-0.log"
    log.write_text("x" * 30_000 + "Fatal Python error: Segmentation fault\n")
    assert evidence_of(ActorDiedError(), str(log), None, killed_here=False) == "crash"


def test_native_code_that_finds_no_memory_says_so_in_the_workers_log(tmp_path):
    log = tmp_path / "worker-0.log"
    log.write_text(
        "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
        "Fatal Python error: Aborted\n"
    )
    assert evidence_of(ActorDiedError(), str(log), None, killed_here=False) == "out of memory"


def test_a_process_that_ended_itself_is_said_with_its_status():
    assert reason_of(ActorDiedError(), 0.0, 4) == "its process ended itself, with exit status 4"
    assert evidence_of(ActorDiedError(), None, 4, killed_here=True) == "exit"
