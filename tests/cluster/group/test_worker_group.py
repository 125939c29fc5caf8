"""Who is up, as the driver hears it: workers of this process, and what becomes of one that is ended as it comes up."""

from __future__ import annotations

import time
from contextlib import closing

from heliostat.cluster.group.start import start_workers
from heliostat.cluster.group.worker_group import WorkerGroup
from heliostat.cluster.pools.local import LocalPool
from heliostat.cluster.spec import GroupSpec

from .script import GUARD_S


def test_who_is_ended_before_its_word_is_heard_is_not_up_and_is_replaced():
    spec = GroupSpec(num_workers=2)
    with closing(WorkerGroup(LocalPool(lambda slot: None, spec), spec)) as group:
        group.launch()
        until_s = time.monotonic() + GUARD_S
        while group.pool.inbox.qsize() < 2:  # both have said that they are up, and nobody has listened
            assert time.monotonic() < until_s
            time.sleep(0.01)
        group.end(1)
        list(start_workers(group))
        assert sorted(group.up) == [0, 2]
        assert not group.launched
        assert not group.not_started
