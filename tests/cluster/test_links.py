"""Measuring links over real sockets, between workers of one process."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from heliostat.cluster import links
from heliostat.cluster.errors import ClusterError, PeerError, UnreachableError
from heliostat.cluster.group import start
from heliostat.cluster.group.start import start_workers, try_connections
from heliostat.cluster.group.worker_group import WorkerGroup
from heliostat.cluster.links import LinksJob, measure_links
from heliostat.cluster.pools.local import LocalPool
from heliostat.cluster.spec import GroupSpec

from ..trainer.hosts import ADDRESSES, Hosts, why_not
from .conftest import SECRET


def test_all_workers_get_the_same_table_of_every_two(group):
    listeners = dict(zip((3, 5, 8), group.listen(3), strict=True))
    job = LinksJob(addresses={worker: listener.address for worker, listener in listeners.items()}, secret=SECRET)
    tables = group.threads(
        [lambda each=each: measure_links(listeners[each], each, job, max_bytes=1 << 21) for each in listeners]
    )
    assert tables[0] == tables[1] == tables[2]
    assert [each.workers for each in tables[0]] == [(3, 5), (3, 8), (5, 8)]
    for each in tables[0]:
        assert 0 < each.latency_s < (1 << 26) / each.bytes_per_s  # four bytes take less time than many


def test_a_worker_that_stops_ends_it_for_its_peer(group, monkeypatch):
    listeners = group.listen(2)
    job = LinksJob(addresses={0: listeners[0].address, 1: listeners[1].address}, secret=SECRET)
    measure = links._measure

    def fails(pair, max_bytes):
        if pair.rank == 1:
            raise KeyError("a defect")
        return measure(pair, max_bytes)

    monkeypatch.setattr(links, "_measure", fails)
    told = group.threads([lambda rank=rank: measure_links(listeners[rank], rank, job) for rank in range(2)])
    assert [type(each) for each in told] == [PeerError, KeyError]


def a_group(num_workers: int) -> WorkerGroup:
    spec = GroupSpec(num_workers=num_workers, start_timeout_s=20.0)
    group = WorkerGroup(LocalPool(lambda slot: None, spec), spec)
    assert not list(start_workers(group))
    return group


@pytest.mark.slow
def test_a_group_measures_between_its_tasks():
    group = a_group(3)
    try:
        first, second = group.measure_links(), group.measure_links()
    finally:
        group.close()
    assert [each.workers for each in first] == [each.workers for each in second] == [(0, 1), (0, 2), (1, 2)]


def test_a_worker_that_is_lost_meanwhile_is_named(monkeypatch):
    group = a_group(2)
    monkeypatch.setattr(links, "_measure", lambda pair, max_bytes: group.pool.crash(1))
    try:
        with pytest.raises(ClusterError, match=r"could not be measured: worker 1 died: it was killed on purpose"):
            group.measure_links()
    finally:
        group.close()


def test_workers_that_cannot_reach_each_other_are_named_before_any_task(monkeypatch):
    """The port of the first worker is open, and nobody is let through to it."""
    monkeypatch.setattr(links, "CONNECT_LIMIT_S", 0.5)
    group = a_group(3)
    try:
        known = group.up[0]
        with socket.create_server(("127.0.0.1", 0)) as blocked:
            known.address = blocked.getsockname()
            port, host = known.address[1], known.info.host
            said = (
                rf"Workers cannot reach each other: 0 \({host}, 127.0.0.1:{port}\) and 1 \({host}, .*\), 0 .* and 2 .*"
                rf"127.0.0.1:{port} is open, but no worker answers, called from 127.0.0.1:.*firewall.*--node-ip-address"
            )
            with pytest.raises(UnreachableError, match=said) as caught:
                try_connections(group)
        assert caught.value.pairs == ((0, 1), (0, 2))
        assert sorted(group.up) == [0, 1, 2]
    finally:
        group.close()


def test_a_worker_that_dies_while_connections_are_tried_is_not_up_any_more(monkeypatch):
    group, connected = a_group(3), links._connected

    def dies(listener, worker, *others, **settings):
        if worker == 1:
            group.pool.crash(1)
        return connected(listener, worker, *others, **settings)

    monkeypatch.setattr(links, "CONNECT_LIMIT_S", 0.5)
    monkeypatch.setattr(links, "_connected", dies)
    try:
        try_connections(group)
        assert sorted(group.up) == [0, 2]
        assert [(each.failure.worker, each.failure.reason) for each in group.not_started] == [
            (1, "it was killed on purpose")
        ]
    finally:
        group.close()


def test_workers_that_began_too_far_apart_try_their_connections_once_more(monkeypatch):
    group, connected = a_group(3), links._connected
    generations = []

    def comes_late_once(listener, worker, workers, job, generation, limit_s):
        generations.append(generation)
        if worker == 1 and generation == 0:
            time.sleep(2 * limit_s)  # as if its machine were busy
        return connected(listener, worker, workers, job, generation, limit_s)

    monkeypatch.setattr(links, "CONNECT_LIMIT_S", 0.5)
    monkeypatch.setattr(links, "_connected", comes_late_once)
    try:
        try_connections(group)
        assert sorted(generations) == [0, 0, 0, 1, 1, 1], "they missed each other at first"
        assert sorted(group.up) == [0, 1, 2]
        assert not group.not_started
    finally:
        group.close()


def test_a_worker_that_cannot_try_its_connections_is_ended(monkeypatch):
    group, connected = a_group(3), links._connected

    def fails(listener, worker, *others, **settings):
        if worker == 1:
            raise OSError(24, "Too many open files")
        return connected(listener, worker, *others, **settings)

    monkeypatch.setattr(links, "CONNECT_LIMIT_S", 0.5)
    monkeypatch.setattr(links, "_connected", fails)
    try:
        try_connections(group)
        assert sorted(group.up) == [0, 2]
        assert "Too many open files" in group.not_started[0].failure.reason
        assert group.pool.statistics().up == 2, "its place is free for the next one"
    finally:
        group.close()


def test_a_worker_that_does_not_say_whom_it_reaches_is_ended(monkeypatch):
    group, connected, go_on = a_group(3), links._connected, threading.Event()

    def hangs(listener, worker, *others, **settings):
        if worker == 1:
            go_on.wait(20)
        return connected(listener, worker, *others, **settings)

    monkeypatch.setattr(links, "CONNECT_LIMIT_S", 0.3)
    monkeypatch.setattr(start, "CONNECT_LIMIT_S", 0.3)
    monkeypatch.setattr(start, "ANSWER_S", 0.5)
    monkeypatch.setattr(links, "_connected", hangs)
    try:
        try_connections(group)
        assert sorted(group.up) == [0, 2]
        assert [each.failure.worker for each in group.not_started] == [1]
    finally:
        go_on.set()
        group.close()


ON_A_HOST = f"""
import sys
import time
from pathlib import Path
from heliostat.cluster.allreduce.listener import Listener
from heliostat.cluster.links import LinksJob, unreached

worker, folder, *hosts = sys.argv[1:]
job = LinksJob(addresses={{number: (host, 20001) for number, host in enumerate(hosts)}}, secret={SECRET!r})
with Listener(hosts[int(worker)], port=20001) as listener:
    Path(folder, worker).touch()
    while not all(Path(folder, str(number)).exists() for number in range(len(hosts))):
        time.sleep(0.01)
    found = unreached(listener, int(worker), job)
    print("all" if found is None else found.detail)
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_cut", [False, True])
def test_between_two_hosts_a_link_that_drops_everything_is_named_with_both_addresses(tmp_path, is_cut):
    if reason := why_not():
        pytest.skip(reason)
    hosts, (first, second) = Hosts(tmp_path), ADDRESSES
    with hosts.linked():
        if is_cut:
            hosts.cut()
        processes = [hosts.run(ON_A_HOST, str(number), str(tmp_path), *ADDRESSES, host=number) for number in range(2)]
        said = [process.communicate(timeout=60)[0] for process in processes]
    if not is_cut:
        assert said == ["all\n"] * 2
        return
    assert (
        f"no connection with rank 1 within 10 s: the worker at {second}:20001 has not called {first}:20001" in said[0]
    )
    assert f"no connection with rank 0 within 10 s: {first}:20001 " in said[1]
    assert any(what in said[1] for what in ("does not answer", "cannot be reached ([Errno 113] No route to host)"))
    assert f"called from {second}:20001" in said[1]
    assert all("firewall" in each for each in said)
