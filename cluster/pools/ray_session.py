"""This process's connection to Ray: made for the first trainer that needs it, ended after the last."""

from __future__ import annotations

import os
import threading

import ray

from ..errors import PlacementError
from .private_api import asks_for_tokens, check_private_api, dead_process, find_cluster
from .ray_address import Cluster, choose_cluster, probe

_QUIET: dict[str, object] = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}


class _Users:
    """Counts who uses a connection that this module made."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.address: str | None = None
        self.local = False


_users = _Users()


def join_ray(address: str | None, *, num_cpus: int) -> bool:
    """Connect this process to Ray; True when `leave_ray` must be called for it.

    Args:
        address: None uses the Ray this process is connected to, else the cluster of the job this process belongs to,
            else starts one on this machine; ``"auto"`` joins the cluster of this machine; other addresses as host and
            port.
        num_cpus: cores that a Ray started here must offer, if this machine has fewer (workers then share cores).

    Raises:
        PlacementError: no cluster at that address, this process is connected to another, or Ray lacks something.
    """
    check_private_api()
    with _users.lock:
        if ray.is_initialized() and not _is_gone():
            _check_connection(address)
            _users.count += int(_users.count > 0)
            return _users.count > 0
        cluster = choose_cluster(address, os.environ, find_cluster)
        if cluster is not None:
            probe(cluster, os.environ)
        _connect(cluster, num_cpus)
        _users.count, _users.address, _users.local = _users.count + 1, address, cluster is None
        return True


def leave_ray() -> None:
    """Give the connection up; the last user disconnects, and so stops a Ray that was started here."""
    with _users.lock:
        _users.count -= 1
        if _users.count == 0:
            ray.shutdown()


def _is_gone() -> bool:
    """Whether the Ray that was started here for earlier trainers has died; then it is disconnected from."""
    if _users.count == 0 or not dead_process():
        return False
    ray.shutdown()
    return True


def _check_connection(address: str | None) -> None:
    """Raise PlacementError if the connection that this process has is no use for an address."""
    if dead := dead_process():
        raise PlacementError.ray_is_gone(dead)
    here = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", here, _users.address):
        raise PlacementError(
            f"This process is connected to a Ray cluster already, so it cannot join the one at {address!r}. Leave "
            "address out to use the one it has, or call ray.shutdown() first."
        )
    probe(Cluster(address=here, origin="the connection that this process has"), os.environ)


def _connect(cluster: Cluster | None, num_cpus: int) -> None:
    """Connect to a cluster, or start a Ray of this process's own."""
    try:
        if cluster is not None:
            ray.init(address="auto" if cluster.found else cluster.address, **_QUIET)
        else:  # without an address Ray would look for one in the environment and under /tmp
            cores = max(num_cpus, os.cpu_count() or 1)
            ray.init(address="local", num_cpus=cores, include_dashboard=False, **_QUIET)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if cluster is not None:
            raise PlacementError.no_answer(cluster.address, cluster.origin, str(error)) from error
        raise PlacementError(f"Ray could not be started on this machine: {error}.") from error


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
