from __future__ import annotations

import socket

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
