"""The private parts of Ray that Heliostat uses, all in this module, and the check that they are there.

Ray tells by no public function which machines are about to be taken away, whether it asks callers for a token, where
the cluster of this machine is, or whether a Ray that this process started still runs.
`check_private_api` runs before a process connects to Ray; workers use none of these.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection

import ray

from ..errors import PlacementError

TRIED_RAY = "2.60.0"

# What is used, as the module and the attributes that lead to it.
NAMES = (
    ("ray._private.state", "state.get_draining_nodes"),
    ("ray._private.authentication.authentication_utils", "is_token_auth_enabled"),
    ("ray._raylet", "AuthenticationTokenLoader.get_token_for_http_header"),
    ("ray._private.services", "canonicalize_bootstrap_address"),
    ("ray._private.worker", "_global_node"),
    ("ray._private.node", "Node.is_head"),
    ("ray._private.node", "Node.dead_processes"),
)
_VITAL = ("gcs_server", "raylet")


def check_private_api() -> None:
    """Raise `PlacementError` when the Ray that is installed lacks a private part that Heliostat uses."""
    missing = [f"{module}.{path}" for module, path in NAMES if not _has(module, path)]
    if missing:
        raise PlacementError(
            f"Ray {ray.__version__} lacks {', '.join(missing)}, which Heliostat uses. It was tried with Ray "
            f"{TRIED_RAY}: install that version, or a Heliostat made for yours."
        )


def _has(module: str, path: str) -> bool:
    try:
        found: object = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError):
        return False
    return True


def draining_nodes() -> Collection[str]:
    """Ids of the machines that Ray is told to empty, as before a pre-emption."""
    from ray._private.state import state

    return state.get_draining_nodes()  # type: ignore[no-any-return]


def asks_for_tokens() -> bool:
    """Whether Ray takes commands only from who has its token."""
    from ray._private.authentication import authentication_utils

    return bool(authentication_utils.is_token_auth_enabled())


def authorization() -> str:
    """The header with this machine's token, whether Ray would send it or not; empty if there is none."""
    from ray._raylet import AuthenticationTokenLoader

    try:
        found = AuthenticationTokenLoader.instance().get_token_for_http_header(ignore_auth_mode=True)
    except RuntimeError:  # a file that cannot be read, or holds nothing
        return ""
    return str(found.get("authorization", ""))


def find_cluster() -> str:
    """Host and port of the Ray cluster of this machine; raises ConnectionError if there is none."""
    from ray._private.services import canonicalize_bootstrap_address

    return str(canonicalize_bootstrap_address("auto"))


def started_here() -> bool:
    """Whether this process is connected to a Ray that it has started itself, with `ray.init`."""
    from ray._private import worker

    return worker._global_node is not None and bool(worker._global_node.is_head())


def dead_process() -> str:
    """Which vital process of a Ray that this process started has ended, and how; empty while all run."""
    from ray._private import worker

    if worker._global_node is None:
        return ""
    dead = worker._global_node.dead_processes()
    return ", ".join(f"{name} (exit status {process.returncode})" for name, process in dead if name in _VITAL)
