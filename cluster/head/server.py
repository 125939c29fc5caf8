"""Requests to a job server, and what their failures mean.

The token is sent to who asks for it, and to nobody else: the first answer of 401 makes this client send it from then
on, whatever RAY_AUTH_MODE says on this machine. Environment variables for proxies are not followed: a head is reached
directly, or by a port that something forwards.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import BadStatusLine, HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, RemoteDisconnected
from typing import Any
from urllib.parse import urlsplit

from ..errors import JobServerError, NoAnswerError, PlacementError
from ..pools.private_api import authorization
from ..pools.ray_address import token_fault

CONNECT_S = 5.0
ANSWER_S = 60.0
_REFUSAL_BYTES = 1 << 20
_GATEWAY = (502, 503, 504)


class JobServer:
    """The server at an address; see `Head` for what it raises."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise PlacementError.no_address_of_jobs(address)
        try:
            self._host, self._port = parts.hostname, parts.port
        except ValueError:
            raise PlacementError.no_address_of_jobs(address) from None
        self._secure, self._prefix = parts.scheme == "https", parts.path
        self._token: str | None = None

    def headers(self) -> dict[str, str]:
        """What every request has: the token, once it was asked for."""
        return {"Authorization": self._token} if self._token else {}

    def json(self, method: str, path: str, body: bytes | None = None, answer_s: float = ANSWER_S) -> dict[str, Any]:
        """The object that is answered, whose values are of any type; empty for an answer without one."""
        with self.answer(method, path, body, answer_s) as answer:
            text = answer.read()
        try:
            found = json.loads(text or b"{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise PlacementError.no_job_server(self.address, f"{path} is answered with {text[:40]!r}")
        return found

    @contextmanager
    def answer(
        self, method: str, path: str, body: bytes | None = None, answer_s: float = ANSWER_S
    ) -> Iterator[HTTPResponse]:
        """A good answer; it is read while this is held."""
        connection = self._connection()
        try:
            answer = self._ask(connection, method, path, body, answer_s)
            if answer.status == 401 and self._token is None and (token := authorization()):
                connection.close()
                self._token = token
                answer = self._ask(connection, method, path, body, answer_s)
            if answer.status != 200:
                raise self._refusal(method, path, answer.status, answer.read(_REFUSAL_BYTES).decode(errors="replace"))
            yield answer
        except BadStatusLine as error:
            if isinstance(error, RemoteDisconnected):
                raise NoAnswerError(self.address, "the connection was closed") from error
            raise PlacementError.no_job_server(self.address, "it does not speak HTTP") from error
        except TimeoutError as error:
            raise NoAnswerError(self.address, "no answer in time") from error
        except (OSError, HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NoAnswerError(self.address, why) from error
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        kind = HTTPSConnection if self._secure else HTTPConnection
        return kind(self._host, self._port, timeout=CONNECT_S)

    def _ask(
        self, connection: HTTPConnection, method: str, path: str, body: bytes | None, answer_s: float
    ) -> HTTPResponse:
        """Connect and ask; a body goes in blocks, each of which has the time of an answer."""
        connection.connect()
        connection.sock.settimeout(answer_s)
        headers = self.headers()
        if body is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        connection.request(method, self._prefix + path, None if body is None else io.BytesIO(body), headers)
        return connection.getresponse()

    def _refusal(self, method: str, path: str, status: int, text: str) -> Exception:
        """The error for an answer that is not good."""
        if status in (401, 403) and "authentication token" in text:
            fault = token_fault(os.environ, has_token=self._token is not None, sends=True)
            return PlacementError.token(self.address, fault)
        if status in _GATEWAY:
            return NoAnswerError(self.address, f"answer {status} of something between: {text[:80].strip()}")
        if path == "/api/version":
            return PlacementError.no_job_server(self.address, f"{path} is answered with status {status}")
        return JobServerError.refused(self.address, f"{method} {path.partition('?')[0]}", status, text)
