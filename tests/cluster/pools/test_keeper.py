"""What outlives a worker: on this machine by the class itself, and by its actor, as if this were another machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
from heliostat.cluster.disk.disk import start_disk, stop_disk
from heliostat.cluster.disk.reach import scratch_of
from heliostat.cluster.disk.served import Root
from heliostat.cluster.disk.stand_in import stand_in
from heliostat.cluster.group.messages import TaskEnded, WorkerUp
from heliostat.cluster.group.worker_process import StepMark
from heliostat.cluster.pools.keeper import TAIL_BYTES, Keeper
from heliostat.cluster.pools.keepers import Keepers
from heliostat.cluster.pools.processes import start_ticks
from heliostat.cluster.pools.ray_pool import RayPool
from heliostat.cluster.pools.ray_room import has_machine
from heliostat.cluster.spec import GroupSpec, WorkerInfo

GUARD_S = 60.0


class Printer:
    """The hosted object."""

    def speak(self, job, member):
        print(job)

    def speak_and_die(self, job, member):
        member.step = 7
        print(job, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def exit(self, job, member):
        member.step = 8
        os._exit(job)

    def freeze(self, job, member):
        print(job, flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)


def make(slot):
    return Printer()


def info_of(process):
    return WorkerInfo(worker=0, host="here", pid=process.pid, started=start_ticks(process.pid))


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_what_a_dead_process_leaves_is_told_once(tmp_path, sleeper):
    log = str(tmp_path / "worker-0.log")
    with open(log, "w") as file:
        file.write("x" * TAIL_BYTES + "the end")
    StepMark(log).note(5)
    keeper = Keeper()
    found = keeper.remains_of(info_of(sleeper), log, None)
    assert (found.step, found.exit_status, found.is_running) == (5, None, True)
    assert found.tail == "x" * (TAIL_BYTES - 7) + "the end"
    sleeper.kill()
    sleeper.wait()
    again = keeper.remains_of(replace(info_of(sleeper), started=1), log, None)
    assert (again.step, again.is_running) == (None, False)


def test_a_stopped_process_is_ended(sleeper):
    sleeper.send_signal(signal.SIGSTOP)
    Keeper().end(info_of(sleeper), None, None, 0.1)
    assert sleeper.wait(GUARD_S) == -signal.SIGKILL


@pytest.fixture
def elsewhere(ray_here, tmp_path, monkeypatch):
    """A disk of a driver, as a machine has it that does not see it."""
    disk = start_disk().serving(Root(path=str(tmp_path), is_writable=True))
    yield replace(disk, id=f"{disk.id[:-1]}-")
    stop_disk(disk)


@pytest.mark.ray
def test_a_log_is_sent_behind_what_the_driver_has_and_nothing_stays(elsewhere, tmp_path):
    path = tmp_path / "worker-0.log"
    path.write_text("earlier\n")
    keeper, local = Keeper(), scratch_of(elsewhere.id) / str(path).lstrip("/")
    keeper.follow(str(path), elsewhere)
    with local.open("w") as file:
        for text in ("one\n", "two\n"):
            file.write(text)
            file.flush()
            wait_for(lambda text=text: path.read_text().endswith(text))
        file.write("x" * 3_000_000)
    keeper.ship(str(path))
    assert path.read_text() == "earlier\none\ntwo\n" + "x" * 3_000_000
    keeper.close()
    assert not scratch_of(elsewhere.id).exists()
    assert not list(scratch_of(elsewhere.id).parent.glob(f"{elsewhere.id}*"))


@pytest.mark.ray
def test_what_belongs_to_a_driver_that_is_gone_is_removed(elsewhere, tmp_path):
    home = scratch_of(elsewhere.id).parent
    gone, held = home / "gone", home / "held"
    for folder in (gone, held):
        (folder / "run").mkdir(parents=True)
        assert stand_in(str(tmp_path / "driver" / folder.name), folder / "run")
        folder.with_name(f"{folder.name}.lock").touch()
    other = Keeper()
    other.follow(str(tmp_path / "a.log"), replace(elsewhere, id="held"))
    keeper = Keeper()
    keeper.follow(str(tmp_path / "b.log"), elsewhere)
    assert not gone.exists()
    assert held.exists()
    assert [path.name for path in (tmp_path / "driver").iterdir()] == ["held"]
    keeper.close()
    other.close()
    assert not held.exists()
    assert not list((tmp_path / "driver").iterdir())  # the folder was made for the first link


@pytest.fixture
def pool(elsewhere):
    import cloudpickle

    cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["make"]))  # workers cannot import a test
    made = RayPool(make, GroupSpec(num_workers=1), loopback=True)
    made.disk, made._keepers = elsewhere, Keepers("the driver's machine is another one")
    yield made
    made.close()
    assert not scratch_of(elsewhere.id).exists()


@pytest.mark.ray
@pytest.mark.parametrize(("method", "job", "step"), [("speak_and_die", "last words", 7), ("exit", 4, 8)])
def test_a_worker_of_another_machine_leaves_its_log_its_step_and_how_it_ended(pool, tmp_path, method, job, step):
    log = tmp_path / "worker-0.log"
    worker = up(pool)
    pool.begin(worker, "speak", "first words", str(log))
    assert heard(pool, TaskEnded).failure is None
    assert log.read_text() == "first words\n"  # with the end of the task, not some time later
    pool.begin(worker, method, job, str(log))
    failure = heard(pool, TaskEnded).failure
    assert (failure.kind, failure.step) == ("died", step)
    if method == "exit":
        assert failure.reason == "its process ended itself, with exit status 4"
    else:
        assert log.read_text() == "first words\nlast words\n"


@pytest.mark.ray
def test_a_stopped_worker_of_another_machine_is_ended_by_its_keeper(pool, tmp_path):
    log = tmp_path / "worker-0.log"
    worker = up(pool)
    info = pool._workers[worker].info
    pool.begin(worker, "freeze", "cold", str(log))
    wait_for(lambda: log.exists() and log.read_text() == "cold\n")
    pool.kill(worker)
    wait_for(lambda: start_ticks(info.pid) != info.started)


def is_keeper(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()[:1] != [] and process.cmdline()[0].startswith("ray::Keeper")
    return False


def kill_keeper():
    """kill -9 of the one actor of that class that this process's Ray runs."""
    (keeper,) = (each for each in psutil.Process().children(recursive=True) if is_keeper(each))
    keeper.kill()
    psutil.wait_procs([keeper], timeout=GUARD_S)


@pytest.mark.ray
@pytest.mark.slow
def test_a_keeper_that_dies_alone_is_made_anew_and_sends_what_it_has_not_sent(pool, tmp_path):
    log = tmp_path / "worker-0.log"
    log.write_text("earlier\n")
    worker = up(pool)
    pool.begin(worker, "speak", "first words", str(log))
    assert heard(pool, TaskEnded).failure is None
    kill_keeper()
    pool.begin(worker, "speak", "more words", str(log))
    assert heard(pool, TaskEnded).failure is None
    assert log.read_text() == "earlier\nfirst words\nmore words\n"
    kill_keeper()
    pool.begin(worker, "speak_and_die", "last words", str(log))
    failure = heard(pool, TaskEnded).failure
    assert (failure.kind, "machine" in failure.reason) == ("died", False)
    wait_for(lambda: log.read_text() == "earlier\nfirst words\nmore words\nlast words\n")


@pytest.mark.ray
@pytest.mark.slow
def test_a_stopped_worker_is_ended_by_the_keeper_that_follows_a_dead_one(pool, tmp_path):
    log = tmp_path / "worker-0.log"
    worker = up(pool)
    info = pool._workers[worker].info
    pool.begin(worker, "freeze", "cold", str(log))
    wait_for(lambda: log.exists() and log.read_text() == "cold\n")
    kill_keeper()
    pool.kill(worker)
    wait_for(lambda: start_ticks(info.pid) != info.started)


@pytest.mark.ray
def test_a_machine_is_there_if_ray_has_it(ray_here):
    import ray

    assert has_machine(ray.get_runtime_context().get_node_id())
    assert not has_machine("0" * 56)


def up(pool):
    pool.launch()
    info = heard(pool, WorkerUp).info
    wait_for(lambda: ready(pool, info))
    return info.worker


def ready(pool, info):
    import ray

    return bool(ray.wait([pool._keepers._remote[info.node].first], timeout=0)[0])


def heard(pool, kind):
    until_s = time.monotonic() + GUARD_S
    while not isinstance(message := pool.receive(1.0), kind):
        assert time.monotonic() < until_s
    return message


def wait_for(condition):
    until_s = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.05)
