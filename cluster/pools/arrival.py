"""The first words with a worker's process: whether its machine has what the driver's has, and whom it reaches.

The first call of an actor carries bytes and numbers only, so that a process with another version of anything can answer
it. A process that cannot even load Heliostat is told of by Ray, in a traceback; `import_failure` finds the cause in it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError, RuntimeEnvSetupError

from ..errors import Complaint, PreflightError
from ..group.messages import Failure
from ..knocking import Address
from ..preflight import Facts, Wanted, asked, complaints_of, facts_of, look
from .ray_room import ANSWER_S, within

_NOT_IMPORTED = "failed to import on the worker"  # Ray's words for an actor whose class is not there
_CAUSE = re.compile(r"^\s*(\w*(?:Error|Exception): .+)$", re.MULTILINE)
_SAME = "Install the same build of heliostat on all machines, and Ray's workers in the same environment"


class Arrivals:
    """The machines that workers have come up on, as they answer; for the threads of a pool.

    Args:
        wanted: what they must have as this machine has it.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted, self._question = wanted, asked(wanted)
        self._lock, self._here = threading.Lock(), look(wanted)
        self._doors: dict[int, tuple[str, Address]] = {}  # of workers whose machines will do, with these

    def complaints_of(self, worker: int, actor: ActorHandle, ask: Callable[[ObjectRef], Any]) -> tuple[Complaint, ...]:
        """What a worker's machine lacks, and whom it cannot reach of those that have come before it; empty if all is
        well, or the worker has been ended.

        Args:
            worker: its number.
            actor: that is asked.
            ask: waits for an answer; None if the worker is ended before.

        Raises:
            RayError: the worker has died, or cannot answer.
        """
        answer = ask(actor.look.remote(self._question))
        if answer is None:
            return ()
        try:
            there = facts_of(answer[0])
        except msgspec.MsgspecError as error:
            return (Complaint(host=host_of(worker, None), what=f"Heliostat there answers {error}", remedy=_SAME),)
        if found := complaints_of(self._wanted, self._here, there):
            return found
        return self._cut_off(worker, there, answer[1], lambda doors: ask(actor.knock.remote(doors)))

    def forget(self, worker: int) -> None:
        """A worker is gone, and perhaps its machine: nobody has to reach it any more."""
        with self._lock:
            self._doors.pop(worker, None)

    def _cut_off(
        self, worker: int, there: Facts, door: Address, knock: Callable[[dict[int, Address]], dict[int, str] | None]
    ) -> tuple[Complaint, ...]:
        with self._lock:
            others = dict(self._doors)
            self._doors[worker] = there.host, (door[0], door[1])
        unreached = knock({other: address for other, (_, address) in others.items()}) if others else {}
        with self._lock:
            still_there = set(self._doors)
        return tuple(
            Complaint(
                host=there.host,
                what=f"worker {worker} cannot reach worker {other} on {others[other][0]} "
                f"({others[other][1][0]}, port {others[other][1][1]}): {why}",
                remedy="Is there a firewall? Open all ports above 1023 between the machines, or begin Ray on each of "
                "them with the --node-ip-address of the network that they share",
            )
            for other, why in (unreached or {}).items()
            if other in still_there
        )


def without_answer(worker: int, error: RayTaskError) -> tuple[Complaint, ...]:
    """A worker's process runs, and cannot answer the first question."""
    what = f"Heliostat there does not understand the driver's: {type(error.cause).__name__}: {error.cause}"
    return (Complaint(host=host_of(worker, error), what=what, remedy=_SAME),)


def import_failure(worker: int, error: RayError) -> PreflightError | None:
    """What kept a worker's process from starting or from loading Heliostat, if Ray says that something did."""
    text = str(error)
    if isinstance(error, RuntimeEnvSetupError):
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
        what = f"Ray could not set up the runtime_env: {last}"
        remedy = "Mend it, or install on all machines what it brings"
        return PreflightError([Complaint(host=host_of(worker, error), what=what, remedy=remedy)])
    if not isinstance(error, RayActorError) or _NOT_IMPORTED not in text:
        return None
    causes = _CAUSE.findall(text)
    cause = causes[-1] if causes else "it cannot be imported"
    what = f"Heliostat cannot be loaded: {cause}"
    return PreflightError([Complaint(host=host_of(worker, error), what=what, remedy=_SAME)])


def refusal_of(worker: int, error: PreflightError) -> Failure:
    """The end of a worker whose machine will not do: another may be started elsewhere."""
    return Failure(worker=worker, kind="died", reason=str(error), error=error)


def host_of(worker: int, error: RayError | None) -> str:
    """The machine that an error of Ray's names by its address, else the worker."""
    found = re.search(r"\bip=([0-9a-fA-F.:]+)", str(error or ""))
    nodes = within(ray.nodes, ANSWER_S) if found else None
    for node in nodes or ():
        if found is not None and node["NodeManagerAddress"] == found[1]:
            return str(node["NodeManagerHostname"])
    return found[1] if found else f"the machine of worker {worker}"
