"""Measuring links: the driver's schedule, and real sockets between hosts of one process."""

from __future__ import annotations

import pytest
from heliostat.cluster.control.group import WorkerGroup
from heliostat.cluster.control.links import Link, LinkAsked, LinkBook, LinksJob, Turn, measure_links
from heliostat.cluster.control.task_loop import Task
from heliostat.cluster.control.task_state import Failure, Formed, Limits
from heliostat.cluster.errors import ClusterError
from heliostat.cluster.pools.local import LocalPool
from heliostat.cluster.spec import GroupSpec


def formed(*members: int) -> Formed:
    return Formed(generation=0, members=members, joined=members, restarted=False)


def link(one: int, other: int, latency_s: float = 1.0, bytes_per_s: float = 10.0) -> Link:
    return Link(workers=(one, other), latency_s=latency_s, bytes_per_s=bytes_per_s)


def test_pairs_measure_one_after_the_other():
    book = LinkBook()
    assert book.handle(1, LinkAsked()) == {}  # it may ask before the driver knows that the group stands
    book.formed(formed(0, 1, 2))
    assert book.handle(2, LinkAsked()) == {}
    assert book.handle(0, LinkAsked()) == {0: Turn(peer=1, number=1), 1: Turn(peer=0, number=1)}
    assert book.handle(0, LinkAsked(found=link(0, 1, 1.0, 10.0))) == {}
    assert book.handle(1, LinkAsked(found=link(0, 1, 2.0, 9.0))) == {
        0: Turn(peer=2, number=2),
        2: Turn(peer=0, number=2),
    }
    book.handle(0, LinkAsked(found=link(0, 2)))
    assert book.handle(2, LinkAsked(found=link(0, 2))) == {1: Turn(peer=2, number=3), 2: Turn(peer=1, number=3)}
    book.handle(1, LinkAsked(found=link(1, 2)))
    assert book.handle(2, LinkAsked(found=link(1, 2))) == {0: None, 1: None, 2: None}
    assert book.links == (link(0, 1, 2.0, 9.0), link(0, 2), link(1, 2))  # the slower of two views


def test_a_worker_that_is_lost_ends_it():
    book = LinkBook()
    book.formed(formed(0, 1))
    with pytest.raises(ClusterError, match="Worker 1 was lost while the links"):
        book.lost(Failure(worker=1, kind="died", reason="killed"), 1)


def test_a_worker_that_joins_meanwhile_ends_it():
    book = LinkBook()
    book.formed(formed(0, 1))
    with pytest.raises(ClusterError, match=r"joined while the links .* has 3 workers now"):
        book.formed(formed(0, 1, 2))


class Measuring:
    def links(self, job, member):
        return measure_links(job, member)


def test_every_two_workers_are_measured():
    book = LinkBook()
    spec = GroupSpec(num_workers=3, first_deadline_s=20.0, start_timeout_s=20.0)
    group = WorkerGroup(LocalPool(lambda slot: Measuring(), 3), spec, say=lambda _: None)
    try:
        group.start()
        task = Task(method="links", job=LinksJob(max_bytes=1 << 21), limits=Limits(num_needed=3))
        group.begin(task, book).run()
    finally:
        group.close()
    assert [each.workers for each in book.links] == [(0, 1), (0, 2), (1, 2)]
    for each in book.links:
        assert 0 < each.latency_s < (1 << 26) / each.bytes_per_s  # four bytes take less time than many
