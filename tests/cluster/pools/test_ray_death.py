"""Why a worker died: what is said of Ray's errors, and of a driver that was away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from heliostat.cluster.pools import ray_death
from heliostat.cluster.pools.keeper import Remains
from heliostat.cluster.pools.ray_death import Absence, evidence_of, reason_of
from heliostat.cluster.pools.ray_worker import DRIVER_GONE_S
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, WorkerCrashedError

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


HERE = Remains()


class RayletDeath(ActorDiedError):
    """Says what a raylet says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def __str__(self) -> str:
        return self.text


def test_the_reason_of_a_loss_is_the_absence_of_the_driver():
    long_s = DRIVER_GONE_S + 3
    assert f"the driver was gone for {long_s:.0f} s" in reason_of(WorkerCrashedError(), long_s, None)
    assert "driver" not in reason_of(WorkerCrashedError(), DRIVER_GONE_S - 1, HERE)


def test_a_lost_machine_is_told_from_a_lost_process_and_both_from_a_lost_connection():
    lost = ActorUnavailableError("RPC error: Socket closed rpc_code: 14", b"0" * 16)
    assert reason_of(lost, 0.0, None) == "its machine does not answer any more"
    assert reason_of(lost, 0.0, HERE) == "its process ended without a word: it was killed, or it crashed"
    assert "its process runs" in reason_of(lost, 0.0, Remains(is_running=True))
    assert evidence_of(lost, None) == ""


def test_a_process_that_is_gone_is_said_by_what_its_machine_knows_and_not_by_all_that_ray_thinks_of():
    death = RayletDeath(
        "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
        "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the "
        "process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called ..."
    )
    assert reason_of(death, 0.0, HERE) == "its process ended without a word: it was killed, or it crashed"
    assert "no memory left" in reason_of(death, 0.0, Remains(was_killed=True))
    assert "its log has the stack" in reason_of(death, 0.0, Remains(tail="Fatal Python error: Aborted\n"))


def test_memory_is_evidence_by_the_type_of_rays_error_or_the_kernels_counter_of_that_machine():
    assert evidence_of(OutOfMemoryError("killed"), HERE) == "out of memory"
    assert evidence_of(ActorDiedError(), Remains(was_killed=True)) == "out of memory"
    assert evidence_of(ActorDiedError(), HERE) == ""


def test_a_crash_is_evidence_by_the_workers_log():
    assert evidence_of(ActorDiedError(), Remains(tail="x\nFatal Python error: Segmentation fault\n")) == "crash"


def test_native_code_that_finds_no_memory_says_so_in_the_workers_log():
    tail = (
        "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
        "Fatal Python error: Aborted\n"
    )
    assert evidence_of(ActorDiedError(), Remains(tail=tail)) == "out of memory"


def test_a_process_that_ended_itself_is_said_with_its_status():
    ended = Remains(exit_status=4, was_killed=True)
    assert reason_of(ActorDiedError(), 0.0, ended) == "its process ended itself, with exit status 4"
    assert evidence_of(ActorDiedError(), ended) == "exit"
