"""Other users of the same host: they may hold the names of local sockets and knock at them, and reach nothing by it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from heliostat.cluster import errors
from heliostat.cluster.allreduce import connect as connecting
from heliostat.cluster.allreduce.mesh import Listener, connect
from heliostat.cluster.allreduce.shared_memory import SharedMemory, offer, take_offer
from heliostat.cluster.allreduce.slices import SumSpec
from heliostat.cluster.vectors import layout_of

SCRIPT = Path(__file__).with_name("neighbour.py")
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


@contextlib.contextmanager
def neighbour(does, port):
    """A process of another user; yields a function that ends it and returns what it says."""
    command = [sys.executable, str(SCRIPT), str(NOBODY), does, "127.0.0.1", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert json.loads(process.stdout.readline()) == {"ready": True}

            def end():
                process.stdin.close()
                return json.loads(process.stdout.readline())

            yield end
        finally:
            process.kill()


def sums(group, listeners, timeout_s=20.0):
    """What two workers add up, and with whom each shares memory."""

    def body(rank):
        own = (np.arange(1, 1001, dtype=np.float32) * (rank + 1),)
        with closing(
            connect(listeners[rank], group.peers(listeners, rank), timeout_s=timeout_s, deadline_s=20)
        ) as mesh:
            total = mesh.all_reduce(1, {(0, rank): own}, SumSpec.of([((0, 0),), ((0, 1),)], layout_of(own), ("sum",)))
            return total[0].sum(), mesh.statistics().sharing

    return group.threads([lambda: body(0), lambda: body(1)])


@as_root
@pytest.mark.parametrize("does", ["silent", "relay"])
def test_a_neighbour_that_holds_a_local_name_is_passed_by(group, does):
    """It could be a worker's voice to another one, and turn the signs of what they add up."""
    port = free_port()
    with neighbour(does, port) as end:
        with pytest.warns(RuntimeWarning, match=f"'heliostat-127.0.0.1-{port}' cannot be opened .*another process"):
            listeners = [Listener("127.0.0.1", port=port), Listener("127.0.0.1")]
        group.listeners += listeners
        assert sums(group, listeners) == [(1_501_500.0, ()), (1_501_500.0, ())]
        said = end()
    assert said == {"user": NOBODY, "knocked": 1, "heard": 0, "turned": 0}


@as_root
@pytest.mark.slow
@pytest.mark.parametrize("flood", ["local flood", "silent local flood", "flood", "silent flood"])
def test_neighbours_that_knock_without_end_do_not_keep_workers_from_each_other(group, flood):
    listeners = group.listen(2)
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(neighbour(flood, listeners[number % 2].address[1])) for number in range(3)]
        for number in range(3):
            results = sums(group, listeners, timeout_s=10.0)
            assert [result[0] for result in results] == [1_501_500.0] * 2, (number, results)
        assert sum(end()["knocked"] for end in ends) > 50


def test_a_local_name_that_nobody_serves_is_given_up_for_the_port(group, monkeypatch):
    monkeypatch.setattr(connecting, "HANDSHAKE_LIMIT_S", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as holder:
        port = free_port()
        holder.bind(f"\0heliostat-127.0.0.1-{port}")
        holder.listen()
        with pytest.warns(RuntimeWarning, match="cannot be opened"):
            listeners = [Listener("127.0.0.1", port=port), Listener("127.0.0.1")]
        group.listeners += listeners
        assert sums(group, listeners) == [(1_501_500.0, ()), (1_501_500.0, ())]
        assert holder.accept()[0].recv(4) == b"HELI"


def test_who_has_proved_to_be_a_peer_is_not_dropped_for_strangers(group, monkeypatch):
    """Between the proof and the offer of memory a peer is as good as connected: it may have gone on already."""
    monkeypatch.setattr(connecting, "MAX_STRANGERS", -2)  # no room for anybody who has not proved
    listeners = group.listen(2)
    made = connecting._Connecting(listeners[0], group.peers(listeners, 0), 5.0, None)
    with socket.socketpair()[0] as sock:
        attempt = made.begin(sock, iter([(b"", 1)]), None, made.clock.now_s())
        attempt.theirs = group.peers(listeners, 1).hello(0)
        made.make_room()
        assert made.attempts == [attempt]
        attempt.theirs = None
        made.make_room()
        assert made.attempts == []


@pytest.mark.parametrize("is_full", [False, True], ids=["never accepted", "packets dropped"])
def test_a_worker_behind_a_blocked_port_is_named_with_both_addresses(group, is_full):
    """A full backlog drops packets as a firewall does."""
    with socket.socket() as blocked, contextlib.ExitStack() as stack:
        blocked.bind(("127.0.0.1", 0))
        blocked.listen(0 if is_full else 8)
        for _ in range(2 if is_full else 0):
            knocking = stack.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(blocked.getsockname())
        (listener,) = group.listen(1)
        port, own = blocked.getsockname()[1], listener.address[1]
        peers = connecting.Peers(
            rank=1, addresses=[("127.0.0.1", port), listener.address], generation=1, secret=b"s" * 16
        )
        what = "does not answer" if is_full else "is open, but no worker answers"
        said = (
            rf"no connection with rank 0 within 0.4 s: 127.0.0.1:{port} {what}, called from 127.0.0.1:{own}\. "
            "A firewall"
        )
        with pytest.raises(errors.PeerError, match=said) as caught:
            connect(listener, peers, timeout_s=0.4, deadline_s=1.0)
        assert caught.value.unresponsive == (0,)


def test_memory_of_another_user_or_open_to_others_is_refused():
    memory, theirs = SharedMemory(0, 2), SharedMemory(1, 2)

    def offered(change):
        left, right = socket.socketpair()
        with left, right:
            offer(left, theirs)
            descriptor = take_offer(right)
        change(descriptor)
        return descriptor

    with pytest.raises(ValueError, match=f"user {os.geteuid()}'s, mode 666"):
        memory.attach(1, offered(lambda descriptor: os.fchmod(descriptor, 0o666)))
    if os.geteuid() == 0:

        def give_away(descriptor):
            os.fchmod(descriptor, 0o600)
            os.fchown(descriptor, NOBODY, NOBODY)

        with pytest.raises(ValueError, match=f"user {NOBODY}'s, mode 600"):
            memory.attach(1, offered(give_away))
    assert not memory.peers
    memory.close()
    theirs.close()
