"""This process's connection to Ray: made for the first trainer that needs it, ended after the last."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RuntimeEnvSetupError

from ..errors import PlacementError
from .private_api import asks_for_tokens, authorization, check_private_api, dead_process, find_cluster, own_node
from .ray_address import (
    ARGUMENT,
    AUTO,
    LOCAL,
    MODE,
    Asked,
    Cluster,
    choose_cluster,
    not_followed,
    probe,
    same_head,
    token_fault,
)

_OF_RUNTIME_ENV = (ValueError, TypeError, RuntimeEnvSetupError)  # how Ray refuses one, or fails to send what it names
_NODE_WAIT_S = 5.0
_QUIET: dict[str, object] = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}


class _Users:
    """Counts who uses a connection that this module made."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.asked: Asked | None = None
        self.local = False
        self.over = threading.Event()  # of the connection that there is, or was
        self.runtime_env: Mapping[str, Any] | None = None


_users = _Users()


def join_ray(asked: Asked | None, *, num_cpus: int, runtime_env: Mapping[str, Any] | None = None) -> bool:
    """Connect this process to Ray; True when `leave_ray` must be called for it.

    Args:
        asked: None uses the Ray this process is connected to, else the cluster of the job this process belongs to,
            else starts one on this machine; ``"auto"`` joins the cluster of this machine; other addresses as host and
            port.
        num_cpus: cores that a Ray started here must offer, if this machine has fewer (workers then share cores).
        runtime_env: what Ray is to set up for workers' processes, as `ray.init` takes it.

    Raises:
        PlacementError: no cluster at that address, it does not take this machine's token or versions, this process is
            connected to another or for another `runtime_env`, or Ray lacks something.
    """
    check_private_api()
    with _users.lock:
        if ray.is_initialized() and not _is_gone():
            _check_connection(asked)
            if runtime_env is not None and (not _users.count or runtime_env != _users.runtime_env):
                raise PlacementError.connected_without(sorted(runtime_env))
            _users.count += int(_users.count > 0)
            return _users.count > 0
        cluster = choose_cluster(asked, os.environ, find_cluster)
        if cluster is not None:
            _probe(cluster)
        _connect(cluster, num_cpus, runtime_env)
        _users.over = threading.Event()
        _users.count, _users.asked, _users.local = _users.count + 1, asked, cluster is None
        _users.runtime_env = runtime_env
        return True


def left_out(asked: Asked | None) -> str:
    """What to say of an address that is not followed; else nothing."""
    return not_followed(asked, os.environ)


def leave_ray() -> None:
    """Give the connection up; the last user disconnects, and so stops a Ray that was started here."""
    with _users.lock:
        _users.count -= 1
        if _users.count == 0:
            ray.shutdown()
            _users.over.set()


def connection_over() -> None:
    """Wait until the connection that this module has made is over."""
    _users.over.wait()


def _is_gone() -> bool:
    """Whether the Ray that was started here for earlier trainers has died; then it is disconnected from."""
    if _users.count == 0 or not dead_process():
        return False
    ray.shutdown()
    _users.over.set()
    return True


def _check_connection(asked: Asked | None) -> None:
    """Raise PlacementError if the connection that this process has is no use for what is asked."""
    if dead := dead_process():
        raise PlacementError.ray_is_gone(dead)
    here = ray.get_runtime_context().gcs_address
    if asked is not None and asked.origin == ARGUMENT and asked != _users.asked and asked.address != AUTO:
        own = (ray.util.get_node_ip_address(), socket.gethostname())
        if asked.address == LOCAL or not same_head(asked.address, here, own):
            raise PlacementError(
                f"This process is connected to the Ray cluster at {here} already, so it cannot use another one: "
                f"{asked.address!r} (from {asked.origin}). Leave that out to use the one it has, or call "
                "ray.shutdown() first."
            )
    _probe(Cluster(address=here, origin="the connection that this process has"))


def _probe(cluster: Cluster) -> None:
    sends = asks_for_tokens() or (cluster.found and MODE not in os.environ)
    probe(cluster, os.environ, authorization(), sends=sends)


def _connect(cluster: Cluster | None, num_cpus: int, runtime_env: Mapping[str, Any] | None) -> None:
    """Connect to a cluster, or start a Ray of this process's own; after a failure there is no half of a connection."""
    options = _QUIET if runtime_env is None else {**_QUIET, "runtime_env": dict(runtime_env)}
    try:
        with _sigterm_stays():
            if cluster is not None:
                _check_is_node(cluster)
                ray.init(address="auto" if cluster.found else cluster.address, **options)
            else:  # without an address Ray would look for one in the environment and under /tmp
                cores = max(num_cpus, os.cpu_count() or 1)
                ray.init(address="local", num_cpus=cores, include_dashboard=False, **options)
    except (ConnectionError, ValueError, TypeError, RuntimeError, AuthenticationError, RuntimeEnvSetupError) as error:
        ray.shutdown()
        if runtime_env is not None and isinstance(error, _OF_RUNTIME_ENV):
            raise PlacementError.bad_runtime_env(sorted(runtime_env), error) from None  # it may name values
        raise _explained(error, cluster) from None  # its own words hold what Ray says


def _check_is_node(cluster: Cluster) -> None:
    """Raise PlacementError if this machine is none of the cluster's: Ray itself looks for a minute, without a word."""
    if asks_for_tokens() and not authorization():
        return  # Ray's client for this would end the process; `ray.init` raises
    try:
        own_node(cluster.address, _NODE_WAIT_S)
    except RuntimeError as error:
        raise PlacementError.no_node_here(cluster.address, cluster.origin, str(error).rstrip(".")) from None


@contextlib.contextmanager
def _sigterm_stays() -> Iterator[None]:
    """Let SIGTERM mean after the block, which connects to Ray, what it meant before.

    Ray takes the signal away from Python, and ends the process with a stack of C++, nothing cleaned up. Where nobody
    had a handler, Python's way to end is set, as Ray means to do: by an exception. Other threads than the main one may
    set none: there all stays as it was, which the C library can do from any thread.
    """
    before, libc, action = signal.getsignal(signal.SIGTERM), ctypes.CDLL(None), ctypes.create_string_buffer(1024)
    libc.sigaction(signal.SIGTERM, None, action)  # a `struct sigaction`, of 152 bytes on Linux
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            of_ray = signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, of_ray if before in (signal.SIG_DFL, None) else before)
        else:
            libc.sigaction(signal.SIGTERM, action, None)


def _explained(error: Exception, cluster: Cluster | None) -> PlacementError:
    """What a failed `ray.init` says, in words of ours."""
    if cluster is None:
        return PlacementError(f"Ray could not be started on this machine: {str(error).rstrip('.')}.")
    if isinstance(error, AuthenticationError):
        fault = token_fault(os.environ, has_token=bool(authorization()), sends=asks_for_tokens())
        return PlacementError.token(cluster.address, fault)
    versions = re.findall(r"^ *Ray: (\S+)\s+Python: (\S+)", str(error), re.MULTILINE)
    if len(versions) == 2:
        return PlacementError.other_versions(cluster.address, *versions)
    return PlacementError.no_answer(cluster.address, cluster.origin, str(error).rstrip("."))


def one_machine() -> bool:
    """Whether Ray was started by this process, for this machine alone: then nobody else has to reach its workers."""
    with _users.lock:
        return _users.count > 0 and _users.local


def warning_without_tokens() -> str:
    """What to say if everybody who reaches this cluster's ports may run code on it, else nothing."""
    if one_machine() or asks_for_tokens():
        return ""
    return (
        "warning: this Ray cluster takes commands from everybody who reaches its ports: token authentication is off. "
        "Start it with RAY_AUTH_MODE=token, or make sure that its network is closed."
    )
