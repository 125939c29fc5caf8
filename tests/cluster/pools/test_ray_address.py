"""Which Ray is joined, and that nobody waits for one that does not answer: real sockets, and a real head."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing

import pytest
import ray
from heliostat.cluster.errors import PlacementError
from heliostat.cluster.pools.private_api import authorization
from heliostat.cluster.pools.ray_address import (
    AUTO,
    LOCAL,
    Asked,
    Cluster,
    choose_cluster,
    not_followed,
    probe,
    reason_against,
    same_head,
    token_fault,
)

JOB = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


def ended(status: str) -> bytes:
    """What a server of gRPC answers to a call: its settings, and headers with the status."""
    headers = b"\x88\x40\x0bgrpc-status" + bytes((len(status),)) + status.encode()
    return SETTINGS + len(headers).to_bytes(3) + bytes((1, 5, 0, 0, 0, 1)) + headers


def found() -> str:
    return "10.0.0.9:6379"


def asked(given: str | None) -> Asked | None:
    return None if given is None else Asked(address=given)


def not_found() -> str:
    raise ConnectionError("nothing runs here")


@pytest.mark.parametrize(("given", "environ", "address", "origin"), [
    (None, {}, None, ""),
    (LOCAL, JOB | {"RAY_ADDRESS": "10.0.0.1:1"}, None, ""),
    (None, {"RAY_ADDRESS": "10.0.0.1:1"}, None, ""),
    (None, JOB, None, ""),
    (None, JOB | {"RAY_ADDRESS": "10.0.0.1:1"}, "10.0.0.1:1", "RAY_ADDRESS, as set for the Ray job"),
    (AUTO, JOB | {"RAY_ADDRESS": "10.0.0.1:1"}, "10.0.0.1:1", "RAY_ADDRESS, as set for the Ray job"),
    ("http://head:8265", JOB | {"RAY_ADDRESS": "10.0.0.1:1"}, "10.0.0.1:1", "RAY_ADDRESS, as set for the Ray job"),
    (AUTO, {"RAY_ADDRESS": "10.0.0.1:1"}, "10.0.0.1:1", "environment variable RAY_ADDRESS"),
    (AUTO, {}, "10.0.0.9:6379", "search on this machine"),
    ("10.0.0.2:2", {"RAY_ADDRESS": "10.0.0.1:1"}, "10.0.0.2:2", "argument"),
])  # fmt: skip
def test_the_cluster_that_is_joined(given, environ, address, origin):
    chosen = choose_cluster(asked(given), environ, found)
    assert (chosen and chosen.address) == address
    assert origin in (chosen.origin if chosen else "")
    assert (chosen is not None and chosen.found) == (given == AUTO and not environ)


def test_auto_without_a_cluster_says_how_to_start_one_and_how_to_submit():
    with pytest.raises(PlacementError, match=r"ray start --head.*http://HEAD:8265") as caught:
        choose_cluster(Asked(address=AUTO), {}, not_found)
    assert ".." not in str(caught.value)


@pytest.mark.parametrize(("given", "environ", "said"), [
    (None, {"RAY_ADDRESS": "10.0.0.1:1"}, "RAY_ADDRESS=10.0.0.1:1 is not followed"),
    (None, JOB | {"RAY_ADDRESS": "10.0.0.1:1"}, ""),
    (AUTO, JOB | {"RAY_ADDRESS": "10.0.0.1:1"}, ""),
    ("10.0.0.2:2", JOB | {"RAY_ADDRESS": "10.0.0.1:1"}, "10.0.0.2:2 (from the argument address=) is not used"),
    (AUTO, {"RAY_ADDRESS": "10.0.0.1:1"}, ""),
    (None, {}, ""),
])  # fmt: skip
def test_an_address_that_is_not_followed_is_said(given, environ, said):
    line = not_followed(asked(given), environ)
    assert said in line
    assert bool(said) == bool(line)


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
    cluster = Cluster(address=address, origin="the argument address=")
    probe(cluster, environ, "Bearer mine", sends=True, limit_s=limit_s)


def port_of(listener: socket.socket) -> int:
    return listener.getsockname()[1]


def test_a_server_of_grpc_answers():
    with closing(listening(ended("0"))) as listener:
        probed(f"127.0.0.1:{port_of(listener)}")
        probed(f"localhost:{port_of(listener)}")


@pytest.mark.parametrize(("answer", "why"), [
    (None, r"no answer within 0\.2 s"),
    (b"", "not the head"),
    (b"HTTP/1.1 400 Bad Request\r\n", "not the head"),
    (SETTINGS, "not the head"),
    (ended("12"), "not the head"),
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


WRONG = ["", "10.0.0.1", ":6379", "10.0.0.1:x", "10.0.0.1:99999", "10.0.0.1:6379/x", "me@10.0.0.1:6379"]


@pytest.mark.parametrize("address", WRONG)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(PlacementError, match="is not the address of a Ray cluster"):
        probed(address)
    with pytest.raises(PlacementError, match="is not the address of a Ray cluster"):
        choose_cluster(Asked(address=address), {}, found)


@pytest.mark.parametrize(("address", "said"), [
    ("ray://10.0.0.1:10001", "Three ways lead to one"),
    ("http://10.0.0.1:8265", "heliostat submit SCRIPT --address http://10.0.0.1:8265. "),
    ("anyscale://mine", "Three ways lead to one"),
])  # fmt: skip
def test_an_address_for_the_outside_is_refused_before_anybody_is_asked(address, said):
    assert said in reason_against(address)
    with pytest.raises(PlacementError, match="from the argument address="):
        choose_cluster(Asked(address=address), {}, found)


def test_one_head_by_two_names():
    assert same_head("localhost:6379", "127.0.0.1:6379", ())
    assert same_head("localhost:6379", "10.7.7.7:6379", ("10.7.7.7", "me"))
    assert not same_head("localhost:6379", "10.7.7.8:6379", ("10.7.7.7", "me"))
    assert not same_head("10.7.7.7:6379", "10.7.7.7:6380", ("10.7.7.7",))
    assert not same_head("auto", "10.7.7.7:6380", ())


@pytest.mark.parametrize(("environ", "has_token", "sends", "said"), [
    ({}, False, True, "this machine has none (looked for in RAY_AUTH_TOKEN,"),
    ({}, True, True, "refuses this machine's, from ~/.ray/auth_token"),
    ({"RAY_AUTH_TOKEN_PATH": "/a"}, True, True, "refuses this machine's, from /a"),
    ({"RAY_AUTH_TOKEN": "secret", "RAY_AUTH_TOKEN_PATH": "/a"}, True, True, "from the variable RAY_AUTH_TOKEN:"),
    ({"RAY_AUTH_MODE": "disabled"}, True, False, "was not sent, since RAY_AUTH_MODE is disabled"),
    ({}, True, False, "RAY_AUTH_MODE is not set"),
])  # fmt: skip
def test_tokens_are_told_apart_and_not_shown(environ, has_token, sends, said):
    told = token_fault(environ, has_token=has_token, sends=sends)
    assert said in told
    assert "secret" not in told


def test_a_head_that_refuses_the_token_says_where_the_right_one_is():
    with closing(listening(ended("16"))) as listener, pytest.raises(PlacementError, match=r"copy that file") as caught:
        probed(f"127.0.0.1:{port_of(listener)}")
    assert "it refuses this machine's" in str(caught.value)
    assert "mine" not in str(caught.value).replace("this machine", "")


@pytest.mark.ray
def test_the_head_of_a_real_cluster_tells_tokens_apart(ray_here):
    address = ray.get_runtime_context().gcs_address
    cluster = Cluster(address=address, origin="a test")
    probe(cluster, {}, authorization(), sends=True)
    for wrong, sends in (("Bearer wrong" + "0" * 200, True), (authorization(), False), ("", True)):
        with pytest.raises(PlacementError, match="takes commands only with its token"):
            probe(cluster, {}, wrong, sends=sends)
