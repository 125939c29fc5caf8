"""Which Ray is joined, and that nobody waits for one that does not answer: real sockets, no Ray."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing

import pytest
from heliostat.cluster.errors import PlacementError
from heliostat.cluster.pools.ray_address import Cluster, choose_cluster, overlooked, probe

JOB = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


def found() -> str:
    return "10.0.0.9:6379"


def not_found() -> str:
    raise ConnectionError("nothing runs here")


@pytest.mark.parametrize(("given", "environ", "address", "origin"), [
    (None, {}, None, ""),
    ("local", JOB | {"RAY_ADDRESS": "10.0.0.1:1"}, None, ""),
    (None, {"RAY_ADDRESS": "10.0.0.1:1"}, None, ""),
    (None, JOB, None, ""),
    (None, JOB | {"RAY_ADDRESS": "10.0.0.1:1"}, "10.0.0.1:1", "RAY_ADDRESS, as set for the Ray job"),
    ("auto", {"RAY_ADDRESS": "10.0.0.1:1"}, "10.0.0.1:1", "environment variable RAY_ADDRESS"),
    ("auto", {}, "10.0.0.9:6379", "address='auto'"),
    ("10.0.0.2:2", {"RAY_ADDRESS": "10.0.0.1:1"}, "10.0.0.2:2", "argument"),
])  # fmt: skip
def test_the_cluster_that_is_joined(given, environ, address, origin):
    chosen = choose_cluster(given, environ, found)
    assert (chosen and chosen.address) == address
    assert origin in (chosen.origin if chosen else "")
    assert (chosen is not None and chosen.found) == (given == "auto" and not environ)


def test_auto_without_a_cluster_says_how_to_start_one():
    with pytest.raises(PlacementError, match="ray start --head"):
        choose_cluster("auto", {}, not_found)


def test_an_address_that_is_not_followed_is_said():
    assert "RAY_ADDRESS=10.0.0.1:1 is not followed" in overlooked(None, {"RAY_ADDRESS": "10.0.0.1:1"})
    assert overlooked(None, JOB | {"RAY_ADDRESS": "10.0.0.1:1"}) == ""
    assert overlooked("auto", {"RAY_ADDRESS": "10.0.0.1:1"}) == overlooked(None, {}) == ""


def listening(answer: bytes | None) -> socket.socket:
    """A listener that accepts, and answers so, closes (b""), or says nothing (None)."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        held = []
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            held.append(connection)
            if answer is not None:
                connection.recv(100)  # what is unread when it closes would reset the connection
                connection.sendall(answer)
                connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return listener


def probed(address: str, limit_s: float = 20.0, **environ: str) -> None:
    probe(Cluster(address=address, origin="the argument address="), environ, limit_s)


def port_of(listener: socket.socket) -> int:
    return listener.getsockname()[1]


def test_a_server_of_grpc_answers():
    with closing(listening(SETTINGS)) as listener:
        probed(f"127.0.0.1:{port_of(listener)}")
        probed(f"localhost:{port_of(listener)}")


@pytest.mark.parametrize(("answer", "why"), [
    (None, r"no answer within 0\.2 s"),
    (b"", "not the head"),
    (b"HTTP/1.1 400 Bad Request\r\n", "not the head"),
])  # fmt: skip
def test_who_accepts_and_does_not_answer_as_ray_does_is_refused(answer, why):
    with closing(listening(answer)) as listener:
        address = f"127.0.0.1:{port_of(listener)}"
        with pytest.raises(PlacementError, match=why) as caught:
            probed(address, 0.2 if answer is None else 20.0)
    assert f"{address} (from the argument address=)" in str(caught.value)


def test_with_tls_it_is_enough_that_somebody_listens():
    with closing(listening(None)) as listener:
        probed(f"127.0.0.1:{port_of(listener)}", RAY_USE_TLS="1")


def test_a_dead_port_is_refused_at_once():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = port_of(listener)
    began_s = time.monotonic()
    with pytest.raises(PlacementError, match="Connection refused"):
        probed(f"127.0.0.1:{port}")
    assert time.monotonic() - began_s < 20.0, "the limit was not waited for"


@pytest.mark.parametrize("address", ["", "10.0.0.1", ":6379", "10.0.0.1:x", "10.0.0.1:99999"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(PlacementError, match="is not the address of a Ray cluster"):
        probed(address)


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "http://127.0.0.1:8265"])
def test_an_address_for_the_outside_says_to_submit_a_job(address):
    with pytest.raises(PlacementError, match="ray job submit"):
        probed(address)
