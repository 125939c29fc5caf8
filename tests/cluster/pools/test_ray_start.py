"""Real actors that die or stand still while they load are made good before there is a task."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial

import psutil
import pytest
from heliostat.cluster.errors import PlacementError
from heliostat.cluster.group import liveness
from heliostat.cluster.group.start import start_workers
from heliostat.cluster.group.worker_group import WorkerGroup
from heliostat.cluster.pools.ray_pool import HEARTBEAT_S, RayPool
from heliostat.cluster.spec import GroupSpec

pytestmark = pytest.mark.ray

GUARD_S = 60.0


def claimed(folder, what):
    """Whether this process is the first to come here; it leaves its number."""
    try:
        file = os.open(os.path.join(folder, what), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    os.write(file, str(os.getpid()).encode())
    os.close(file)
    return True


def make(folder, faults, slot):
    time.sleep(2 * HEARTBEAT_S)  # loading takes a while: it has answered by then
    for fault in faults:
        if claimed(folder, fault):
            if fault == "exit":
                sys.exit("my module ends programs")
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[fault])
    return object()


@pytest.fixture
def group_of(ray_here, tmp_path, monkeypatch):
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    monkeypatch.setattr(liveness, "LOADING_SILENCE_S", 2.0)
    monkeypatch.setattr(liveness, "MAX_BACK_OFF_S", 0.2)
    groups = []

    def made(*faults, num_workers):
        spec = GroupSpec(num_workers=num_workers, start_timeout_s=GUARD_S, deadline_s=2.0)
        groups.append(WorkerGroup(RayPool(partial(make, str(tmp_path), faults), spec, loopback=True), spec))
        return groups[-1]

    yield made
    for group in groups:
        group.close()


def test_who_is_killed_and_who_stands_still_while_it_loads_is_replaced(group_of, tmp_path):
    group = group_of("kill", "stop", num_workers=2)
    said = list(start_workers(group))
    assert len(group.up) == 2, f"{group.not_started}; said: {said}"
    reasons = [each.failure.reason for each in group.not_started]
    assert len(reasons) == 2
    assert sum("did not answer" in reason for reason in reasons) == 1
    assert sum("could not start" in line for line in said) == 2
    assert any("stands still while it loads" in line for line in said), f"it is named before it is ended: {said}"
    for fault in ("kill", "stop"):
        pid = int((tmp_path / fault).read_text())
        if psutil.pid_exists(pid):
            psutil.wait_procs([psutil.Process(pid)], timeout=GUARD_S)
        assert not psutil.pid_exists(pid)


def test_an_exit_while_it_loads_ends_the_start_with_what_was_said(group_of):
    with pytest.raises(PlacementError, match="SystemExit: my module ends programs") as caught:
        list(start_workers(group_of("exit", num_workers=1)))
    assert isinstance(caught.value.__cause__, SystemExit)
