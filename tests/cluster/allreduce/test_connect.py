from __future__ import annotations

import socket
import threading
from contextlib import closing

import pytest
from heliostat.cluster import errors
from heliostat.cluster.allreduce.handshake import Peers
from heliostat.cluster.allreduce.mesh import Listener, connect

SECRET = b"a secret of some length"


def test_wrong_secret_is_refused_on_both_sides(group):
    listener_side, dialer_side = group.run(
        2, lambda mesh, rank: None, secrets=[SECRET, b"not the secret of the run"], timeout_s=1.0
    )
    assert isinstance(dialer_side, errors.PeerError)
    assert isinstance(listener_side, errors.PeerError)
    assert (dialer_side.peer, listener_side.peer) == (0, 1)
    assert (dialer_side.unresponsive, listener_side.unresponsive) == ((0,), (1,))
    assert "no trusted connection with rank 0: it does not know this run's secret" in str(dialer_side)
    assert "no trusted connection with rank 1: " in str(listener_side)
    assert "without proof that it knows this run's secret" in str(listener_side)


def test_an_old_generation_is_refused_and_learns_of_the_new_one(group):
    listener_side, dialer_side = group.run(2, lambda mesh, rank: None, generations=[5, 4], timeout_s=1.0)
    assert isinstance(dialer_side, errors.PeerError)
    assert (dialer_side.peer, dialer_side.call.generation) == (0, 4)
    assert "rank 0 is in generation 5: this worker is left over from an older group" in str(dialer_side)
    assert isinstance(listener_side, errors.PeerError)
    assert listener_side.peer == 1
    assert "has not called" in str(listener_side)


def test_a_worker_waits_for_a_peer_that_is_still_in_the_generation_before(group):
    """The old call ends with an error, the peer comes back with the new generation, and both meet."""
    listeners = group.listen(2)

    def join(rank, generation):
        peers = group.peers(listeners, rank, generation)
        return connect(listeners[rank], peers, timeout_s=20.0, deadline_s=20.0)

    def late():
        with pytest.raises(errors.PeerError, match="rank 1 is in generation 2: this worker is left over"):
            join(0, 1)
        with closing(join(0, 2)) as mesh:
            return mesh.broadcast(1, b"welcome")

    def early():
        with closing(join(1, 2)) as mesh:
            return mesh.broadcast(1, None)

    assert group.threads([late, early]) == [b"welcome", b"welcome"]


def test_strangers_do_not_stop_a_group_from_forming(group):
    listeners = group.listen(3)
    strangers = []
    for listener in listeners:
        for data in (
            b"",
            b"GET / HTTP/1.1\r\n\r\n" * 20,
            b"\0" * 500,
            group.peers(listeners, 2).hello(0).pack() + b"\0" * 32,
        ):
            stranger = socket.create_connection(listener.address)
            stranger.sendall(data)
            strangers.append(stranger)
    results = group.run(3, lambda mesh, rank: mesh.broadcast(1, b"x" if rank == 0 else None), listeners=listeners)
    for stranger in strangers:
        stranger.close()
    assert results == [b"x"] * 3


def test_very_many_silent_strangers_do_not_either(group):
    listeners = group.listen(2)
    strangers = [socket.create_connection(listeners[0].address) for _ in range(120)]
    results = group.run(2, lambda mesh, rank: mesh.broadcast(1, b"x" if rank == 0 else None), listeners=listeners)
    for stranger in strangers:
        stranger.close()
    assert results == [b"x"] * 2


def test_a_worker_that_never_comes_is_named(group):
    listeners = group.listen(3)
    with pytest.raises(errors.PeerError, match=r"rank 1 within 0.2 s: .*Also missing: ranks 2\.") as caught:
        connect(listeners[0], group.peers(listeners, 0), timeout_s=0.2, deadline_s=1)
    assert (caught.value.peer, caught.value.unresponsive) == (1, (1, 2))


def test_a_worker_whose_address_nobody_answers_is_lost_at_once(group):
    gone, listener = group.listen(2)
    peers = group.peers([gone, listener], 1)
    gone.close()
    with pytest.raises(errors.PeerError, match=r"lost rank 0: cannot connect.*refused") as caught:
        connect(listener, peers, timeout_s=30.0, deadline_s=1.0)
    assert (caught.value.peer, caught.value.unresponsive) == (0, (0,))


def test_abort_ends_a_connect_of_this_or_an_older_generation_only(group):
    listeners = group.listen(2)

    def join(generation, timeout_s):
        return connect(listeners[0], group.peers(listeners, 0, generation), timeout_s=timeout_s, deadline_s=1.0)

    aborter = threading.Thread(target=listeners[0].abort, args=(3, "a worker died"))
    aborter.start()
    with pytest.raises(errors.Aborted, match="a worker died"):
        join(3, 30.0)
    aborter.join()
    with pytest.raises(errors.Aborted, match="a worker died"):
        join(2, 30.0)
    with pytest.raises(errors.PeerError, match=r"no connection with rank 1 within 0\.1 s"):
        join(4, 0.1)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
def test_a_listener_on_every_interface_is_refused(host):
    with pytest.raises(ValueError, match="every interface"):
        Listener(host)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"secret": b"short"}, "at least 16 bytes"),
        ({"rank": 1}, "rank must be"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"deadline_s": 0.0}, "deadline_s"),
        ({"generation": -1}, "generation"),
    ],
)
def test_bad_arguments_are_refused(group, arguments, message):
    (listener,) = group.listen(1)
    usual = {"rank": 0, "addresses": [listener.address], "generation": 0, "secret": SECRET}
    usual |= {"timeout_s": 1.0, "deadline_s": 1.0, **arguments}
    times = {name: usual.pop(name) for name in ("timeout_s", "deadline_s")}
    with pytest.raises(ValueError, match=message):
        connect(listener, Peers(**usual), **times)
