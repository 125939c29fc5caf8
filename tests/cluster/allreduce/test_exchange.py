from __future__ import annotations

import socket
from collections import deque

import pytest
from heliostat.cluster.allreduce.exchange import Awaited, Connection, Exchange, say_goodbye, unresponsive
from heliostat.cluster.allreduce.frames import HEADER_BYTES, Header, Incoming, Kind, Notice, Outgoing
from heliostat.cluster.allreduce.listener import Wakeup
from heliostat.cluster.errors import Call, PeerError

CALL = Call(0, 1, 7)


def test_a_peer_that_waits_for_another_one_is_not_unresponsive():
    owes, excused = Awaited(1, True, 0.0), Awaited(2, False, 0.0)
    assert unresponsive([excused, owes], 5.0, 4.0) == (1,)
    assert unresponsive([excused, owes._replace(since_s=3.0)], 5.0, 4.0) == ()
    assert unresponsive([excused], 5.0, 4.0) == (2,)
    assert unresponsive([owes._replace(since_s=0.5), Awaited(3, True, 0.0)], 5.0, 4.0) == (3, 1)


def test_a_peer_that_leaves_while_it_announces_blocks_has_left():
    """What is left of its notices is filled up; nobody may take that for the end of the call."""
    header, (own, theirs) = Header.of(CALL, Kind.NOTICES, 0, 5), socket.socketpair()
    heard, wakeup = bytearray(5), Wakeup()
    connection, peers = Connection(1, own), Connection(0, theirs)
    own.setblocking(False)
    peers.outgoing.append(Outgoing(header, [bytes([Notice.NODES] * 5)], HEADER_BYTES + 2))
    theirs.sendmsg(peers.outgoing[0].window(1000))
    peers.outgoing[0].advance(HEADER_BYTES + 2)
    say_goodbye({0: peers}, CALL, "it was killed")
    connection.incoming.append(Incoming(header, [memoryview(heard)]))
    exchange = Exchange({1: connection}, wakeup, CALL, 5.0)
    try:
        with pytest.raises(PeerError, match="it was killed"):
            exchange.move(exchange.connections)
        assert list(heard) == [Notice.NODES] * 2 + [Notice.LEFT] * 3
    finally:
        wakeup.close()
        own.close()


def test_waiting_ends_when_every_peer_has_begun_the_call_and_what_follows_is_the_networks():
    """Two peers owe a frame of four bytes each; bytes lie ready before each sleep, so that none takes long."""
    pairs, wakeup = {peer: socket.socketpair() for peer in (1, 2)}, Wakeup()
    header, connections = Header.of(CALL, Kind.BROADCAST, 0, 4), {}
    for peer, (own, _) in pairs.items():
        own.setblocking(False)
        connections[peer] = Connection(peer, own, incoming=deque([Incoming(header, [memoryview(bytearray(4))])]))
    exchange = Exchange(connections, wakeup, CALL, 5.0)

    def slept_until(peer: int, data: bytes) -> float:
        """What is counted as waiting of a sleep that ends when the peer sends these bytes."""
        before_s = exchange.wait_s
        pairs[peer][1].sendall(data)
        assert exchange.move(exchange.wait()) == [connections[peer]]
        return exchange.wait_s - before_s

    try:
        assert slept_until(1, header.pack()) > 0.0  # the first has begun, the second has not
        assert slept_until(1, b"ab") > 0.0
        assert slept_until(2, header.pack()[:3]) > 0.0
        assert slept_until(2, header.pack()[3:] + b"abcd") == 0.0  # both have begun
        assert slept_until(1, b"cd") == 0.0
        assert exchange.is_done
    finally:
        wakeup.close()
        for end in (end for pair in pairs.values() for end in pair):
            end.close()
