"""Whether the machines of a Ray can hold a group's workers: computed from their numbers before Ray is asked."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError

from ..cores import Machine, usable_cores
from ..errors import PlacementError
from ..spec import GroupSpec
from .private_api import autoscales

ANSWER_S = 3.0
NODES_S = 30.0
CONNECT_S = 1.0
Resources = Mapping[str, float]
_Answer = TypeVar("_Answer")


def within(ask: Callable[[], _Answer], limit_s: float) -> _Answer | None:
    """What `ask` answers about a cluster; None without an answer in so many seconds: its head may hang, or be gone."""
    answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()

    def put() -> None:
        with contextlib.suppress(RayError):
            answers.put(ask())

    threading.Thread(target=put, name="asking-ray", daemon=True).start()
    try:
        return answers.get(timeout=limit_s)
    except queue.Empty:
        return None


def living_nodes() -> list[dict[str, Any]]:  # Ray gives no closer type
    """The living machines of the cluster, as `ray.nodes` has them; raises PlacementError if its head is silent."""
    if (nodes := within(ray.nodes, NODES_S)) is None:
        raise PlacementError(
            f"The head of the Ray cluster has not answered for {NODES_S:g} s. See on its machine whether Ray runs (ray "
            "status), and whether it has memory and processor time left."
        )
    return [node for node in nodes if node["Alive"]]


def machines() -> list[Resources]:
    """What each living machine of the cluster has, in use or not; raises PlacementError if its head does not answer."""
    return [node["Resources"] for node in living_nodes()]


def gpus_by_machine() -> list[int]:
    """How many GPUs each living machine of the cluster has; raises PlacementError if its head does not answer."""
    return [int(machine.get("GPU", 0)) for machine in machines()]


def has_machine(node: str) -> bool:
    """Whether a machine, by its id, is in the cluster: in Ray's table of nodes, and with a raylet that takes calls.

    The table learns of a machine that is lost some seconds later. If nobody answers for it, it is not there.
    """
    living = (each for each in within(ray.nodes, ANSWER_S) or [] if each["NodeID"] == node and each["Alive"])
    if (found := next(living, None)) is None:
        return False
    try:
        socket.create_connection((found["NodeManagerAddress"], found["NodeManagerPort"]), CONNECT_S).close()
    except OSError:
        return False
    return True


def has_autoscaler() -> bool:
    """Whether the cluster brings machines by itself; it is taken to if its head does not answer."""
    return within(autoscales, ANSWER_S) is not False


def machines_for_workers(*, with_gpus: bool) -> list[Machine]:
    """The cores of the machines that workers can be placed on; `with_gpus`: of those that have GPUs.

    Of other machines than this one Ray's count is taken, which knows the quotas of control groups.

    Raises:
        PlacementError: the cluster's head does not answer.
    """
    here, found = ray.get_runtime_context().get_node_id(), []
    for node in living_nodes():
        granted = int(node["Resources"].get("CPU", 0))
        if granted and (not with_gpus or node["Resources"].get("GPU")):
            usable = min(granted, usable_cores()) if node["NodeID"] == here else granted
            found.append(Machine(usable=usable, granted=granted))
    return found or [Machine(usable=1, granted=1)]  # an autoscaler may add some


def places(machines: Sequence[Resources], wanted: Resources) -> int:
    """How many workers that want so much each these machines hold; one that wants nothing finds a place anywhere."""
    needed = {name: amount for name, amount in wanted.items() if amount}
    if not needed:
        return 1 << 30
    return sum(int(min(machine.get(name, 0) // amount for name, amount in needed.items())) for machine in machines)


def check_room(spec: GroupSpec, wanted: Resources, machines: Sequence[Resources], *, may_grow: bool) -> str:
    """What to say of a cluster that is too small for all workers; empty if it is large enough.

    Args:
        spec: of the group.
        wanted: what each worker asks for.
        machines: what each machine has.
        may_grow: whether others can join it.

    Raises:
        PlacementError: there will never be room for those that a task begins with.
    """
    found = places(machines, wanted)
    if found >= spec.num_workers:
        return ""
    needs = " and ".join(f"{amount:g} {name}" for name, amount in wanted.items() if amount)
    have = "; ".join(" and ".join(f"{each.get(name, 0):g} {name}" for name in wanted) for each in machines)
    told = f"each worker needs {needs}, and Ray's {len(machines)} machine(s) have {have or 'nothing'}"
    if may_grow or found >= spec.num_to_begin:
        return (
            f"the cluster has room for {found} of {spec.num_workers} workers: {told}. The others are waited for until "
            "there is room"
        )
    fewer = f"workers={found}" if found else "fewer threads_per_worker"
    raise PlacementError(
        f"{spec.num_to_begin} workers find no room: {told}, which is room for {found}. This Ray was started by this "
        f"process, so no machine will join it. Give {fewer}, or leave ray.init() out: the trainer then starts a Ray "
        "that is large enough."
    )


def room_line(waiting: int, placed: int, wanted: Resources, free: Resources, total: Resources) -> str:
    """How many of the workers that are not up have a place, and what the others lack.

    Args:
        waiting: how many are not up.
        placed: how many of them have a place.
        wanted: what each worker needs.
        free: what the cluster has free, by Ray's names of resources.
        total: what it has.
    """
    needed = {name: amount for name, amount in wanted.items() if amount}
    started = f"{placed} of {waiting} have a place and are starting" if placed else ""
    if placed >= waiting:
        return f"{started}." if started else ""
    needs = " and ".join(f"{amount:g} {name}" for name, amount in needed.items())
    lacking = waiting - placed
    wait = f"{lacking} wait{'s' if lacking == 1 else ''} for {needs or 'a place'}{' each' if lacking > 1 else ''}"
    have = " and ".join(f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}(s) are free" for name in needed)
    return f"{', '.join(filter(None, (started, wait)))}{'; ' if have else ''}{have}."


def check_gpus(gpus: int, *, device: str, replicas: int | None, may_come: Callable[[], bool]) -> str:
    """What to say of a cluster where workers get no GPU; empty if they do, or nobody has asked for one.

    Args:
        gpus: that each worker gets of the machines that there are.
        device: what was asked for.
        replicas: how many each worker was asked to have; None for as many as there are GPUs.
        may_come: asks whether the cluster brings machines by itself.

    Raises:
        PlacementError: a GPU was asked for, and there will be none.
    """
    if gpus or device == "cpu":
        return ""
    if device == "gpu":
        if may_come():
            return "no machine of the cluster has a GPU yet: they are waited for, since an autoscaler brings machines"
        raise PlacementError(
            "device='gpu', and Ray knows of no GPU in the cluster (ray status shows what it has), nor of an autoscaler "
            "that would bring some. Start Ray where the GPUs and their driver are, or leave device out."
        )
    if replicas is None or replicas == 1:
        return ""
    return f"no machine of the cluster has a GPU: the {replicas} replicas of each worker are devices of its processor"


def gpus_per_worker(spec: GroupSpec, by_machine: Sequence[int]) -> int:
    """GPUs that each worker gets: as asked, or an equal share of every machine's; 0 on a cluster without GPUs.

    Args:
        spec: of the group.
        by_machine: how many GPUs each machine has.

    Raises:
        PlacementError: there are GPUs, but not enough for every worker.
    """
    having = [count for count in by_machine if count > 0]
    if not having:
        return 0
    workers_per_machine = -(-spec.num_workers // len(having))
    wanted = spec.gpus_per_worker if spec.gpus_per_worker is not None else min(having) // workers_per_machine
    fitting = sum(count // max(wanted, 1) for count in having)
    if wanted < 1 or spec.num_to_begin > fitting:
        remedy = f"Give workers={fitting}" if fitting else "Give fewer replicas_per_worker"
        remedy += ", or device='cpu' for workers that leave GPUs alone: some with and some without do not mix"
        raise PlacementError(
            f"{spec.num_to_begin} workers with {max(wanted, 1)} GPU(s) each do not fit the cluster's machines, which "
            f"have {_listed(having)} GPU(s). {remedy}."
        )
    return wanted


def grant_line(granted: int, num_workers: int, by_machine: Sequence[int]) -> str:
    """What to say of the GPUs that workers get, the ones that stay idle included; empty without GPUs.

    Args:
        granted: to each worker.
        num_workers: how many there shall be.
        by_machine: how many GPUs each machine has.
    """
    having = [count for count in by_machine if count > 0]
    if not granted or not having:
        return ""
    idle = sum(having) - granted * num_workers
    rest = f"; {idle} of {sum(having)} stay idle" if idle > 0 else ""
    why = ", since machines have unequal numbers and every worker gets as many" if rest and len(set(having)) > 1 else ""
    return f"GPUs: {granted} for each worker, of machines with {_listed(having)}{rest}{why}"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
