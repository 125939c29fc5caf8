"""Real actors without a trainer: what a worker says is heard before its death is, and heartbeats go their own way."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace

import psutil
import pytest
import ray
from heliostat.cluster.errors import PlacementError
from heliostat.cluster.group.liveness import Activity
from heliostat.cluster.group.messages import TaskEnded, TaskEvent, TaskRequest, WorkerAlive, WorkerUp
from heliostat.cluster.pools import ray_worker
from heliostat.cluster.pools.processes import start_ticks
from heliostat.cluster.pools.ray_pool import RayPool
from heliostat.cluster.spec import GroupSpec
from ray.exceptions import OwnerDiedError

pytestmark = pytest.mark.ray

NUM_EVENTS = 50
GUARD_S = 60.0


class Talker:
    """The hosted object; workers find its class in what the factory brings."""

    def talk_and_die(self, job, member):
        member.step = 7
        for number in range(NUM_EVENTS):
            member.send(number)
        time.sleep(job)  # so that the last event has left the process
        os.kill(os.getpid(), signal.SIGKILL)

    def ask(self, job, member):

        return member.request(job) + 1

    def leave(self, job, member):
        raise SystemExit(3)

    def park(self, job, member):
        return member.mailbox.park(job)

    def fetch(self, job, member):
        return member.mailbox.fetch(job)

    def ask_impatiently(self, job, member):
        ray_worker.DRIVER_GONE_S = job  # in this worker's process
        return member.request(job)

    def stop(self, job, member):
        os.kill(os.getpid(), signal.SIGSTOP)


def make(slot):
    return Talker()


@pytest.fixture
def pool(ray_here):
    import cloudpickle

    cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["make"]))  # workers cannot import a test
    made = RayPool(make, GroupSpec(num_workers=1, env={"SAID": "by the spec"}), loopback=True)
    yield made
    made.close()


def heard(pool, kind):
    """The messages up to the first of this kind."""
    found, until_s = [], time.monotonic() + GUARD_S
    while not found or not isinstance(found[-1], kind):
        message = pool.receive(1.0)
        found += [] if message is None else [message]
        assert time.monotonic() < until_s, found
    return found


def up(pool):
    worker = pool.launch()
    *_, message = heard(pool, WorkerUp)
    assert message.worker == worker
    return message


def test_all_that_a_worker_said_before_it_died_is_heard_although_the_driver_was_busy(pool, tmp_path):
    worker = up(pool).worker
    pool.begin(worker, "talk_and_die", 0.5, str(tmp_path / "logs" / "worker-0.log"))
    time.sleep(4.0)  # the driver waits for its disks: the worker is dead before anything is taken
    *said, ended = heard(pool, TaskEnded)
    assert [each.content for each in said if isinstance(each, TaskEvent)] == list(range(NUM_EVENTS))
    assert (ended.failure.kind, ended.failure.step) == ("died", 7)
    assert pool.statistics().up == 0


def test_a_task_is_answered_and_ends_and_the_worker_takes_another(pool):
    worker = up(pool).worker
    for number in (1, 41):
        pool.begin(worker, "ask", number, None)
        *_, request = heard(pool, TaskRequest)
        pool.answer(worker, request.number, request.content)
        *_, ended = heard(pool, TaskEnded)
        assert (ended.result, ended.failure) == (number + 1, None)


def test_heartbeats_come_while_a_task_waits(pool):
    worker = up(pool).worker
    pool.begin(worker, "ask", 1, None)
    *_, alive = heard(pool, WorkerAlive)
    assert alive.heartbeat.activity is Activity.AWAIT_DRIVER


def test_an_exit_of_the_users_code_is_an_error_of_its_own(pool):
    worker = up(pool).worker
    pool.begin(worker, "leave", None, None)
    *_, ended = heard(pool, TaskEnded)
    assert (ended.failure.kind, ended.failure.reason) == ("raised", "SystemExit: 3")
    assert pool.statistics().up == 1


def test_a_process_that_is_stopped_holds_nobody_up_and_is_gone_when_it_is_killed(pool):
    info = up(pool).info
    pool.begin(info.worker, "stop", None, None)
    while psutil.Process(info.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.05)
    process = psutil.Process(info.pid)
    pool.kill(info.worker)
    process.wait(GUARD_S)
    while pool.receive(0.0) is not None:
        pass
    assert pool.receive(1.0) is None, "who was ended is not heard of again"


def test_liveness_does_not_depend_on_what_the_drivers_thread_does(pool):
    worker = up(pool).worker
    pool.begin(worker, "ask_impatiently", 2.0, None)
    *_, request = heard(pool, TaskRequest)
    time.sleep(4.0)  # its disks stall: for longer than the worker waits for a driver
    pool.answer(worker, request.number, "here")
    *_, ended = heard(pool, TaskEnded)
    assert (ended.result, ended.failure) == ("here", None)


def test_a_process_of_somebody_else_is_never_ended(pool):
    bystander = subprocess.Popen(["sleep", "600"])
    started = start_ticks(bystander.pid)
    for wrong in ({"pid": bystander.pid, "started": started, "node": "another of this name"}, {"pid": bystander.pid}):
        info = up(pool).info
        pool._workers[info.worker].info = replace(info, **wrong)
        pool.kill(info.worker)
        psutil.Process(info.pid).wait(GUARD_S)
    pool.close()  # waits for those that end them
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_worker_that_loads_has_found_room(pool):
    pool.launch()
    assert "each worker needs" not in pool.room(), "workers of a Ray of our own hold no cores"
    until_s = time.monotonic() + GUARD_S
    while "found room" not in (said := pool.room()) and not pool.statistics().up:
        pool.receive(0.1)
        assert time.monotonic() < until_s, said


def test_what_a_ray_of_this_process_can_never_hold_is_refused(ray_here):
    pool = RayPool(make, GroupSpec(num_workers=9), loopback=False)
    with pytest.raises(PlacementError, match=r"9 workers find no room: each worker needs 1 CPU, .* have 8 CPU"):
        pool.check_room()


def is_lost(parked):
    try:
        ray.get(parked, timeout=GUARD_S)
    except OwnerDiedError:
        return True
    return False


def test_a_state_whose_owner_died_ends_the_worker_that_wanted_it_and_is_nobodys_error(pool):
    donor, joiner = (up(pool).info for _ in range(2))
    pool.begin(donor.worker, "park", "the state", None)
    *_, parked = heard(pool, TaskEnded)
    pool.crash(donor.worker)
    until_s = time.monotonic() + GUARD_S
    while not is_lost(parked.result):  # before Ray has noticed, there may be a copy
        assert time.monotonic() < until_s
        time.sleep(0.1)
    pool.begin(joiner.worker, "fetch", parked.result, None)
    *_, ended = heard(pool, TaskEnded)
    while ended.worker != joiner.worker:  # the donor's death may be told before
        *_, ended = heard(pool, TaskEnded)
    assert ended.failure.kind == "died"
    assert "the state that it was to begin with is lost" in ended.failure.reason
    psutil.Process(joiner.pid).wait(GUARD_S)
