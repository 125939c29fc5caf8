"""What becomes of a request where there is no job server, or none that answers: with real sockets."""

from __future__ import annotations

import socket
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from heliostat.cluster.errors import JobServerError, NoAnswerError, PlacementError
from heliostat.cluster.head import api, server
from heliostat.cluster.head.api import PACKAGE_BYTES, Head


@pytest.mark.parametrize(
    "address", ["10.0.0.1:6379", "auto", "http://", "ray://a:1", "http://a:x", "http://me@a:1", ""]
)
def test_what_is_no_address_of_a_job_server_is_refused(address):
    with pytest.raises(PlacementError, match=r"is not the address of a cluster's job server, such as 'http://"):
        Head(address)


def test_a_port_on_which_nobody_listens_is_told_at_once():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NoAnswerError, match=rf"at http://127\.0\.0\.1:{port}: Connection refused\..*ssh -L 8265:"):
        Head(f"http://127.0.0.1:{port}/").check()


def test_a_host_that_is_none_is_told():
    with pytest.raises(NoAnswerError, match=r"does not answer at http://no-such-host\.invalid:8265: "):
        Head("http://no-such-host.invalid:8265").check()


@pytest.mark.slow
def test_who_listens_and_says_nothing_is_waited_for_some_seconds_only(monkeypatch):
    monkeypatch.setattr(server, "CONNECT_S", 0.3)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        with pytest.raises(NoAnswerError, match="no answer in time"):
            Head(f"http://127.0.0.1:{listener.getsockname()[1]}").check()


class _Other(BaseHTTPRequestHandler):
    """A server of something else; `said` are status and text of its answer."""

    said = (200, "<html>")

    def do_GET(self):
        status, text = self.said
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def other():
    """other(status, text) -> a Head at a server that answers so."""
    servers = []

    def serve(status, text):
        made = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Other,), {"said": (status, text)}))
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        servers.append((made, thread))
        return Head(f"http://127.0.0.1:{made.server_port}")

    yield serve
    for made, thread in servers:
        made.shutdown()
        made.server_close()
        thread.join()


@pytest.mark.parametrize(("status", "text", "why"), [
    (200, "<html>", r"/api/version is answered with b'<html>'"),
    (200, "{}", r"it does not tell a version of Ray"),
    (404, "not here", r"/api/version is answered with status 404"),
    (403, "not for you", r"/api/version is answered with status 403"),
])  # fmt: skip
def test_a_server_of_something_else_is_none(other, status, text, why):
    with pytest.raises(PlacementError, match=rf"is not the job server of a Ray cluster: {why}\. .*--dashboard-port"):
        other(status, text).check()


def test_what_stands_between_and_reaches_nobody_counts_as_no_answer(other):
    with pytest.raises(NoAnswerError, match="answer 503 of something between: upstream"):
        other(503, "upstream is away").check()


def test_a_server_that_does_not_speak_http_is_none():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)) * 10)  # as gRPC does

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(PlacementError, match="it does not speak HTTP"):
            Head(f"http://127.0.0.1:{listener.getsockname()[1]}").check()
        thread.join()


def test_a_package_over_the_limit_is_refused_before_anybody_is_asked():
    with pytest.raises(JobServerError, match="A package of 90 MB is more than the 90 MB"):
        Head("http://127.0.0.1:1").put(bytes(PACKAGE_BYTES + 1))


def test_of_a_traceback_of_the_server_its_last_line_is_told(other):
    with pytest.raises(JobServerError) as caught:
        other(500, "Traceback (most recent call last):\n  File ...\nValueError: it exists\n.").stop("x")
    assert str(caught.value).endswith(
        " answers POST /api/jobs/x/stop with status 500: ValueError: it exists. Its log tells more: dashboard.log in "
        "Ray's log folder on the head."
    )
    assert caught.value.status == 500


def test_a_job_that_was_made_without_an_answer_is_looked_up(other, monkeypatch):
    found = '{"status": "PENDING", "submission_id": "x"}'
    head = other(200, found)
    made = head._server.json

    def lost(method, path, *rest, **named):
        made(method, path, *rest, **named)
        if method == "POST":
            raise NoAnswerError(head.address, "the connection was closed")
        return made(method, path)

    monkeypatch.setattr(head._server, "json", lost)
    head.submit(submission_id="x", entrypoint="true", runtime_env={}, metadata={})


def test_a_job_that_nobody_can_have_made_is_an_error(monkeypatch):
    monkeypatch.setattr(api, "LOOK_UP_S", 0.6)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NoAnswerError, match="Connection refused"):
        Head(f"http://127.0.0.1:{port}").submit(submission_id="x", entrypoint="true", runtime_env={}, metadata={})
