"""Which Ray a process joins, and whether it answers: settled before Ray is let loose.

Left to itself Ray follows `RAY_ADDRESS` and a file under ``/tmp`` that anybody on the machine may have written, perhaps
for a cluster that is long gone, and waits for minutes where nobody answers. So the address is chosen here, and whoever
listens there must answer as a server of gRPC does, which takes milliseconds and nothing of Ray.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import PlacementError

PROBE_S = 5.0
ADDRESS = "RAY_ADDRESS"
_JOB_MARKS = ("RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_JOB_ID")  # Ray sets one of them in the processes of a job
_TLS = "RAY_USE_TLS"
# How every connection to a gRPC server begins: HTTP/2's preface, and a frame of settings, which both sides send.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_FRAME_HEADER_BYTES, _TYPE_AT, _SETTINGS = 9, 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A Ray that runs already.

    Attributes:
        address: its host and port.
        origin: where this process has that from.
        found: whether Ray has found it on this machine: then it is to join what it finds, with the token that it finds.
    """

    address: str
    origin: str
    found: bool = False


def choose_cluster(given: str | None, environ: Mapping[str, str], find: Callable[[], str]) -> Cluster | None:
    """The cluster to join; None means a Ray of this process's own.

    Args:
        given: None for the cluster of the job that this process belongs to, or none; ``"local"`` for none; ``"auto"``
            for the one in `RAY_ADDRESS`, or else the one that `find` finds; or an address.
        environ: the process's environment.
        find: Ray's own search on this machine; raises ConnectionError if there is no cluster.

    Raises:
        PlacementError: there is none.
    """
    named = environ.get(ADDRESS, "")
    if given == "auto":
        if named not in ("", "auto"):
            return Cluster(address=named, origin=f"the environment variable {ADDRESS}")
        with contextlib.suppress(ConnectionError):
            origin = "Ray's own search on this machine, for address='auto'"
            return Cluster(address=find(), origin=origin, found=True)
        raise PlacementError(
            "address='auto' joins the Ray cluster of this machine, but none runs here. Start one with 'ray start "
            "--head', or leave address out to use this machine alone."
        )
    if given is None and named and any(environ.get(mark) for mark in _JOB_MARKS):
        return Cluster(address=named, origin=f"{ADDRESS}, as set for the Ray job that this process belongs to")
    return None if given in (None, "local") else Cluster(address=given, origin="the argument address=")


def overlooked(given: str | None, environ: Mapping[str, str]) -> str:
    """What to say if `RAY_ADDRESS` is set and `choose_cluster` does not follow it; else nothing."""
    named = environ.get(ADDRESS, "")
    if given is not None or not named or choose_cluster(given, environ, lambda: "") is not None:
        return ""
    return (
        f"{ADDRESS}={named} is not followed, for this process belongs to no Ray job; workers run on this machine. Give "
        "address='auto' to join that cluster"
    )


def probe(cluster: Cluster, environ: Mapping[str, str], limit_s: float = PROBE_S) -> None:
    """Try whether a server of gRPC answers.

    Args:
        cluster: where.
        environ: the process's environment; with Ray's TLS on it is only tried to connect.
        limit_s: how long to wait for an answer.

    Raises:
        PlacementError: the address is none, or nobody answers there.
    """
    until_s = time.monotonic() + limit_s
    try:
        with socket.create_connection(_place(cluster), limit_s) as connection:
            if environ.get(_TLS, "0").lower() in ("1", "true"):
                return
            connection.sendall(_PREFACE)
            answer = b""
            while len(answer) < _FRAME_HEADER_BYTES:
                connection.settimeout(max(0.001, until_s - time.monotonic()))
                if not (more := connection.recv(_FRAME_HEADER_BYTES - len(answer))):
                    break
                answer += more
    except TimeoutError:
        raise PlacementError.no_answer(cluster.address, cluster.origin, f"no answer within {limit_s:g} s") from None
    except ConnectionResetError:  # it hung up on what a client of gRPC says
        answer = b""
    except OSError as error:
        raise PlacementError.no_answer(cluster.address, cluster.origin, error.strerror or str(error)) from error
    if answer[_TYPE_AT : _TYPE_AT + 1] != bytes((_SETTINGS,)):
        why = "what listens there is not the head of a Ray cluster"
        raise PlacementError.no_answer(cluster.address, cluster.origin, why)


def _place(cluster: Cluster) -> tuple[str, int]:
    if "://" in cluster.address:
        raise PlacementError(
            f"{cluster.address} (from {cluster.origin}) leads to a cluster from outside. Workers are driven from "
            "inside it: submit the script with 'ray job submit', and leave address out there."
        )
    try:
        parts = urlsplit(f"//{cluster.address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise PlacementError(
            f"{cluster.address!r} (from {cluster.origin}) is not the address of a Ray cluster, such as "
            "'10.0.0.1:6379': host, colon, port."
        )
    return host, port
