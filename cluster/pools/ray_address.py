"""Which Ray a process joins, and whether it answers: settled before Ray is let loose.

Left to itself Ray follows `RAY_ADDRESS` and a file under ``/tmp`` that anybody on the machine may have written, perhaps
for a cluster that is long gone, and waits for minutes where nobody answers. So the address is chosen here, in this
order: the cluster of the job that this process belongs to; the connection that it has; what was asked for; a Ray of its
own. And whoever listens there must answer a first call with this machine's token (`ray_probe`), which takes
milliseconds and nothing of Ray.

Addresses for the outside are refused by name. A script behind ``ray://`` would hold everything by one connection to a
proxy that Ray's own maintainers advise against, and its workers could not be reached from it; ``http://`` is the job
server, which takes scripts and calls whole (`cluster/head/api.py`), and drives no workers.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import SUBMIT, PlacementError
from .ray_probe import Answer, ask_head

PROBE_S = 5.0
ADDRESS, ARGUMENT, AUTO, LOCAL = "RAY_ADDRESS", "the argument address=", "auto", "local"
_JOB_MARKS = ("RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_JOB_ID")  # Ray sets one of them in the processes of a job
_TLS, MODE = "RAY_USE_TLS", "RAY_AUTH_MODE"
TOKEN, TOKEN_FILE, TOKEN_HOME = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token"  # first one that is there


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The address that a user asks for: ``"auto"``, ``"local"`` or host and port; and where he says so."""

    address: str
    origin: str = ARGUMENT


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


def in_job(environ: Mapping[str, str]) -> bool:
    """Whether the process with this environment belongs to a job of a Ray cluster."""
    return any(environ.get(mark) for mark in _JOB_MARKS)


def choose_cluster(asked: Asked | None, environ: Mapping[str, str], find: Callable[[], str]) -> Cluster | None:
    """The cluster to join; None means a Ray of this process's own.

    Args:
        asked: what the user asks for; within a job it counts only if that is ``"local"``.
        environ: the process's environment.
        find: Ray's own search on this machine; raises ConnectionError if there is no cluster.

    Raises:
        PlacementError: there is none, or what is asked for is not the address of one.
    """
    named, given = environ.get(ADDRESS, ""), None if asked is None else asked.address
    if named and in_job(environ) and given != LOCAL:
        return Cluster(address=named, origin=f"{ADDRESS}, as set for the Ray job that this process belongs to")
    if asked is None or given == LOCAL:
        return None
    if given != AUTO:
        return _checked(Cluster(address=asked.address, origin=asked.origin))
    if named not in ("", AUTO):
        return _checked(Cluster(address=named, origin=f"the environment variable {ADDRESS}"))
    with contextlib.suppress(ConnectionError):
        origin = f"Ray's own search on this machine, for 'auto' from {asked.origin}"
        return Cluster(address=find(), origin=origin, found=True)
    raise PlacementError.no_cluster_here(asked.origin)


def not_followed(asked: Asked | None, environ: Mapping[str, str]) -> str:
    """What to say of an address that `choose_cluster` does not follow; else nothing."""
    named = environ.get(ADDRESS, "")
    if named and in_job(environ):
        if asked is None or asked.address in (AUTO, LOCAL, named):
            return ""
        return f"{asked.address} (from {asked.origin}) is not used, for this process belongs to a job of {named}"
    if asked is not None or not named:
        return ""
    return (
        f"{ADDRESS}={named} is not followed, for this process belongs to no Ray job; workers run on this machine. Give "
        "address='auto' to join that cluster"
    )


def reason_against(address: str) -> str:
    """What is wrong with an address as it is written; empty if it may be that of a cluster."""
    scheme = address.partition("://")[0].lower() if "://" in address else ""
    if scheme in ("http", "https"):
        return (
            "is where a cluster takes jobs; workers cannot be driven through it from here. Submit the script there: "
            f"heliostat submit SCRIPT --address {address}. Calls of a Trainer go there by Trainer(address={address!r})."
        )
    if scheme:
        return (
            "leads to a cluster from outside, where workers cannot be driven from. Three ways lead to one: from "
            f"everywhere the job server's address, such as 'http://10.0.0.1:8265' (or {SUBMIT}); on one of its "
            "machines 'auto'; from one beside them the head's HOST:PORT, such as '10.0.0.1:6379'."
        )
    if _place(address) is None:
        return "is not the address of a Ray cluster, such as '10.0.0.1:6379' (host, colon, port), 'auto' or 'local'."
    return ""


def same_head(left: str, right: str, own_hosts: tuple[str, ...]) -> bool:
    """Whether two addresses are of one head.

    Args:
        left: as host and port.
        right: likewise.
        own_hosts: what this machine is called besides "localhost".
    """
    one, other = _place(left), _place(right)
    if one is None or other is None or one[1] != other[1]:
        return False
    first, second = _ips(one[0], own_hosts), _ips(other[0], own_hosts)
    return bool(first & second)


def probe(
    cluster: Cluster, environ: Mapping[str, str], authorization: str, *, sends: bool, limit_s: float = PROBE_S
) -> None:
    """Try whether the head of a cluster answers, and takes this machine's token.

    Args:
        cluster: where.
        environ: the process's environment; with Ray's TLS on it is only tried to connect.
        authorization: the header with this machine's token, empty if it has none.
        sends: whether Ray would send that, in the mode that it is in.
        limit_s: how long to wait for an answer.

    Raises:
        PlacementError: the address is none, nobody answers there, or the token is refused.
    """
    place = _place(cluster.address)
    if place is None:
        raise PlacementError(f"{cluster.address!r} (from {cluster.origin}) {reason_against(cluster.address)}")
    try:
        if environ.get(_TLS, "0").lower() in ("1", "true"):
            socket.create_connection(place, limit_s).close()
            return
        answer = ask_head(*place, authorization if sends else "", limit_s)
    except TimeoutError:
        raise PlacementError.no_answer(cluster.address, cluster.origin, f"no answer within {limit_s:g} s") from None
    except OSError as error:
        raise PlacementError.no_answer(cluster.address, cluster.origin, error.strerror or str(error)) from error
    if answer is Answer.OTHER:
        raise PlacementError.no_answer(cluster.address, cluster.origin, answer.value)
    if answer is Answer.REFUSED:
        raise PlacementError.token(cluster.address, token_fault(environ, has_token=bool(authorization), sends=sends))


def token_fault(environ: Mapping[str, str], *, has_token: bool, sends: bool) -> str:
    """What is the matter with this machine's token, in the words that `PlacementError.token` takes.

    Args:
        environ: the process's environment.
        has_token: whether there is one.
        sends: whether Ray sends it.
    """
    if not has_token:
        return f"this machine has none (looked for in {TOKEN}, {TOKEN_FILE} and {TOKEN_HOME})"
    where = f"the variable {TOKEN}" if environ.get(TOKEN) else environ.get(TOKEN_FILE) or TOKEN_HOME
    if not sends:
        mode = environ.get(MODE)
        return f"this machine's, from {where}, was not sent, since {MODE} is {mode or 'not set'}: set {MODE}=token"
    return f"it refuses this machine's, from {where}: that is another cluster's, or an old one"


def _checked(cluster: Cluster) -> Cluster:
    if wrong := reason_against(cluster.address):
        raise PlacementError(f"{cluster.address!r} (from {cluster.origin}) {wrong}")
    return cluster


def _place(address: str) -> tuple[str, int] | None:
    """Host and port; None if the text is no such address."""
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (host, port) if host and port and parts.netloc == address and "@" not in address else None


def _ips(host: str, own_hosts: tuple[str, ...]) -> set[str]:
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
    except OSError:
        return {host}
    is_here = any(ip.startswith("127.") or ip == "::1" for ip in found) or host in own_hosts
    return found | set(own_hosts) if is_here else found
