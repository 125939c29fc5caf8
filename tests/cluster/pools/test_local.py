"""Workers as threads of this process: who stands at a breakpoint."""

from __future__ import annotations

import bdb
import threading
from contextlib import closing

from heliostat.cluster.group.messages import WorkerAlive
from heliostat.cluster.pools import local
from heliostat.cluster.pools.local import LocalPool
from heliostat.cluster.spec import GroupSpec

from ...slow import SLOW


class Debugger(bdb.Bdb):
    """Stops at the first line, as at a breakpoint, until somebody goes on."""

    def __init__(self):
        super().__init__()
        self.stopped, self.go_on = threading.Event(), threading.Event()

    def user_line(self, frame):
        self.stopped.set()
        self.go_on.wait()
        self.set_continue()


class Hosted:
    """Its task stops at a breakpoint, and waits behind it."""

    def __init__(self):
        self.debugger, self.end = Debugger(), threading.Event()

    def task(self, job, member):
        self.debugger.runcall(lambda: None)
        self.end.wait()


def test_who_stands_at_a_breakpoint_is_not_late(monkeypatch):
    beat_s = 0.05
    monkeypatch.setattr(local, "HEARTBEAT_S", beat_s)
    spec = GroupSpec(num_workers=1, start_timeout_s=60.0 * SLOW)
    hosted = Hosted()

    def seconds_of_activity():
        while not isinstance(message := pool.inbox.get(timeout=30 * SLOW), WorkerAlive):
            pass
        return message.heartbeat.activity_s

    with closing(LocalPool(lambda slot: hosted, spec)) as pool:
        worker = pool.launch()
        pool.inbox.get(timeout=30 * SLOW)  # it is up
        pool.begin(worker, "task", None, None)
        assert hosted.debugger.stopped.wait(30 * SLOW)
        seconds_of_activity()  # of before, perhaps
        assert [seconds_of_activity() for _ in range(4)] == [0.0] * 4
        hosted.debugger.go_on.set()
        seconds_of_activity()
        assert seconds_of_activity() > 3 * beat_s
        hosted.end.set()
