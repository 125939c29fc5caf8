"""This process's connection to Ray: made for the first trainer that needs it, ended after the last."""

from __future__ import annotations

import os
import threading

import ray

from ..errors import PlacementError
from .private_api import asks_for_tokens, check_private_api

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
            else starts one on this machine; ``"auto"`` joins the cluster of this machine; other addresses as `ray.init`
            takes them.
        num_cpus: cores that a Ray started here must offer, if this machine has fewer (workers then share cores).

    Raises:
        PlacementError: no cluster at that address, this process is connected to another, or Ray lacks something.
    """
    check_private_api()
    with _users.lock:
        if ray.is_initialized():
            if address not in (None, "auto", _users.address):
                raise PlacementError(
                    f"This process is connected to a Ray cluster already, so it cannot join the one at {address!r}. "
                    "Leave address out to use the one it has, or call ray.shutdown() first."
                )
            _users.count += int(_users.count > 0)
            return _users.count > 0
        _users.local = _connect(address, num_cpus)
        _users.count, _users.address = 1, address
        return True


def leave_ray() -> None:
    """Give the connection up; the last user disconnects, and so stops a Ray that was started here."""
    with _users.lock:
        _users.count -= 1
        if _users.count == 0:
            ray.shutdown()


def _connect(address: str | None, num_cpus: int) -> bool:
    """Connect; returns whether that started a Ray of this process's own."""
    try:
        if address is not None:
            ray.init(address=address, **_QUIET)
            return False
        try:
            ray.init(num_cpus=max(num_cpus, os.cpu_count() or 1), include_dashboard=False, **_QUIET)
            return True
        except ValueError as error:  # a submitted job belongs to a cluster, whose size is not ours to choose
            if "existing cluster" not in str(error):
                raise
            ray.init(**_QUIET)
            return False
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise PlacementError(
            f"There is no Ray cluster at address={address!r}: {error}. Start one with 'ray start --head', or leave "
            "address out to use this machine alone."
        ) from error


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
