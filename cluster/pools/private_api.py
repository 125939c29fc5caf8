"""The private parts of Ray that Heliostat uses, all in this module, and the check that they are there.

Ray tells by no public function which machines are about to be taken away, whether it asks callers for a token, where
the cluster of this machine is, or whether a Ray that this process started still runs; nor who else uses a cluster,
whether it brings machines by itself; nor, to a job, on which machine it is, where logs are there, and what is in a
package that came with it.
`check_private_api` runs before a process connects to Ray; workers use none of these.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import ray

from ..errors import PlacementError

TRIED_RAY = "2.60.0"

# What is used, as the module and the attributes that lead to it.
NAMES = (
    ("ray._private.state", "state.get_draining_nodes"),
    ("ray._private.state", "actors"),
    ("ray._private.state", "jobs"),
    ("ray._private.ray_constants", "DEBUG_AUTOSCALING_STATUS"),
    ("ray.experimental.internal_kv", "_internal_kv_get"),
    ("ray._private.authentication.authentication_utils", "is_token_auth_enabled"),
    ("ray._raylet", "AuthenticationTokenLoader.get_token_for_http_header"),
    ("ray._raylet", "AuthenticationTokenLoader.reset_cache"),
    ("ray._private.services", "canonicalize_bootstrap_address"),
    ("ray._private.worker", "_global_node"),
    ("ray._private.node", "Node.is_head"),
    ("ray._private.node", "Node.dead_processes"),
    ("ray._private.services", "get_node_to_connect_for_driver"),
    ("ray._raylet", "GcsClient"),
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


@dataclass(frozen=True, slots=True)
class JobInfo:
    """The command line of a job of the cluster, and the address of the machine where it was started."""

    command: str
    host: str


def living_jobs() -> dict[str, JobInfo]:
    """The jobs that run on the cluster, by id."""
    from ray._private import state

    jobs = state.jobs()
    return {job["JobID"]: JobInfo(job["Entrypoint"], job["DriverIPAddress"]) for job in jobs if not job["IsDead"]}


def alive_actors() -> list[tuple[str, str]]:
    """Job and class of every actor that lives on the cluster."""
    from ray._private import state

    return [(actor["JobID"], actor["ActorClassName"]) for actor in state.actors(actor_state_name="ALIVE").values()]


def autoscales() -> bool:
    """Whether the cluster brings machines by itself; one whose monitor only looks has types of nodes named by it."""
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.experimental.internal_kv import _internal_kv_get

    if _internal_kv_get(b"__autoscaler_v2_enabled", namespace=b"__autoscaler") == b"1":
        return True
    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS.encode()) or b"{}")
    types = (status.get("autoscaler_report", {}).get("node_type_mapping") or {}).values()
    return any(not str(each).startswith("node_") for each in types)


@dataclass(frozen=True, slots=True)
class OwnNode:
    """The machine of a cluster that this process is on: its id, and the log folder of Ray's session there."""

    node_id: str
    log_dir: Path


def own_node(address: str, wait_s: float = 60.0) -> OwnNode:
    """The machine that a driver here connects to; raises RuntimeError if this is none of the cluster's.

    Args:
        address: host and port of the cluster's head.
        wait_s: for a node that is being started here, in seconds.
    """
    from ray._private.services import get_node_to_connect_for_driver
    from ray._raylet import GcsClient

    node = get_node_to_connect_for_driver(GcsClient(address=address), timeout_seconds=wait_s)
    return OwnNode(node.node_id.hex(), Path(node.session_dir, "logs"))


def package(address: str, uri: str) -> bytes | None:
    """What was put on the cluster as a package; None if it is not there any more.

    Args:
        address: host and port of the cluster's head.
        uri: of the package, ``gcs://...``.
    """
    from ray._raylet import GcsClient

    found: bytes | None = GcsClient(address=address).internal_kv_get(uri.encode(), None)
    return found


def asks_for_tokens() -> bool:
    """Whether Ray takes commands only from who has its token."""
    from ray._private.authentication import authentication_utils

    return bool(authentication_utils.is_token_auth_enabled())


def authorization() -> str:
    """The header with this machine's token, whether Ray would send it or not; empty if there is none."""
    from ray._raylet import AuthenticationTokenLoader

    loader = AuthenticationTokenLoader.instance()
    try:
        found = loader.get_token_for_http_header(ignore_auth_mode=True)
    except RuntimeError:  # a file that cannot be read, or holds nothing
        return ""
    finally:
        # Ray would go on with what it has found here: where tokens are off, this process would ask for one itself,
        # and nobody would send it, so that actors are lost before they have started.
        loader.reset_cache()
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
