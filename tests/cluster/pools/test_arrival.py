"""The first words with real actors: who may go on to load, and what is said of those that may not."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import pytest
import ray
from heliostat.cluster.errors import PreflightError
from heliostat.cluster.group.start import start_workers
from heliostat.cluster.group.worker_group import WorkerGroup
from heliostat.cluster.knocking import open_door, unreached
from heliostat.cluster.pools.arrival import Arrivals, import_failure
from heliostat.cluster.pools.ray_pool import RayPool
from heliostat.cluster.pools.ray_worker import RayWorker
from heliostat.cluster.preflight import CACHE, Wanted, answered
from heliostat.cluster.spec import GroupSpec
from ray.exceptions import RayActorError

from ...slow import SLOW

pytestmark = pytest.mark.ray


def hosted(slot):
    return f"worker {slot} of process {os.getpid()}"


@pytest.fixture
def group_of(ray_here):
    """group_of(wanted) -> a group of two actors, whose machines must have that."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["hosted"]))  # workers cannot import a test
    made = []

    def make(wanted):
        spec = GroupSpec(num_workers=2, start_timeout_s=120.0 * SLOW)
        made.append(WorkerGroup(RayPool(hosted, spec, loopback=False, wanted=wanted), spec))
        return made[-1]

    yield make
    for group in made:
        group.close()


def test_workers_on_machines_that_will_do_come_up(group_of):
    group = group_of(Wanted(packages={"numpy": ("numpy",)}, modules=("numpy",), folders=(CACHE,), memory_bytes=1))
    list(start_workers(group))
    assert sorted(group.infos) == [0, 1]


def test_what_machines_lack_is_told_in_one_message_and_nobody_is_left(group_of, tmp_path):
    file = tmp_path / "no folder"
    file.write_text("")
    group = group_of(Wanted(folders=(str(file),), memory_bytes=1 << 60))
    with pytest.raises(PreflightError, match=r"[23] things are not right on 1 machine") as raised:
        list(start_workers(group))
    host = socket.gethostname()
    assert f"{host}: nothing can be written in {file}: {file} is no folder. " in str(raised.value)
    assert " MB of memory are free, and a worker needs 1,152,921,504,607 MB to load" in str(raised.value)
    assert not group.up


def test_a_machine_without_heliostat_is_told_from_a_death(ray_here, tmp_path):
    (tmp_path / "heliostat").mkdir()
    (tmp_path / "heliostat" / "__init__.py").write_text("")  # a package that hides ours, and holds nothing
    env = {"env_vars": {"PYTHONPATH": str(tmp_path)}}
    actor = ray.remote(num_cpus=0, runtime_env=env)(RayWorker).remote(0)
    with pytest.raises(RayActorError) as raised:
        ray.get(actor.stacks.remote(), timeout=60.0 * SLOW)
    found = import_failure(0, raised.value)
    assert "Heliostat cannot be loaded: ModuleNotFoundError: No module named 'heliostat.cluster'" in str(found)
    assert found.complaints[0].host == socket.gethostname()


def test_who_comes_reaches_those_that_are_there_and_nobody_who_is_gone():
    """The doors are real; the actor is a stand-in that answers from this process, since one machine has no firewall."""
    with open_door("127.0.0.1") as door, open_door("127.0.0.1") as silent:
        silent.listen(0)
        callers = [socket.socket() for _ in range(3)]
        for caller in callers:  # the kernel has room for one, and drops what comes then, as a firewall does
            caller.setblocking(False)
            caller.connect_ex(silent.getsockname())
        arrivals = Arrivals(Wanted())
        at = {0: silent, 1: door, 2: door, 3: door}
        for worker in (0, 1):
            found = arrivals.complaints_of(worker, _Here(at[worker], limit_s=0.3), lambda answer: answer)
            assert [each.what for each in found] == [
                f"worker 1 cannot reach worker 0 on {socket.gethostname()} "
                f"(127.0.0.1, port {silent.getsockname()[1]}): no answer within 0.3 s"
            ] * (worker == 1)
        forgets = _Here(door, limit_s=0.3, meanwhile=lambda: arrivals.forget(0))
        assert arrivals.complaints_of(2, forgets, lambda answer: answer) == ()  # its machine was lost meanwhile
        assert arrivals.complaints_of(3, _Here(door), lambda answer: answer) == ()
        for caller in callers:
            caller.close()


class _Here:
    """Answers as a worker's actor does."""

    def __init__(self, door, limit_s=5.0, meanwhile=lambda: None):
        self.look, self.knock = self, SimpleNamespace(remote=self._knock)
        self._door, self._limit_s, self._meanwhile = door, limit_s, meanwhile

    def remote(self, question):
        return answered(question), self._door.getsockname()

    def _knock(self, doors):
        found = unreached(doors, self._limit_s)
        self._meanwhile()
        return found
