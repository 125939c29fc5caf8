"""The driver's side of the keepers: one for each machine with workers, and what they say."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..spec import WorkerInfo
from .keeper import Keeper, Remains

if TYPE_CHECKING:
    from ..disk.disk import Disk

ANSWER_S = 3.0
SHIP_WITHIN_S = 10.0
_CALLS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class _Remote:
    """A keeper on another machine, and what it answers once it is there. (Any: actors have no types.)

    Its calls run side by side: a log that is only about to be followed would be taken for one that is not.
    """

    actor: Any
    first: ray.ObjectRef
    followed: dict[str, ray.ObjectRef] = field(default_factory=dict)  # what `follow` will return, by the log


class Keepers:
    """Keepers by node; for any number of threads. Where one does not answer, nobody waits long.

    Args:
        node: the driver's own, whose keeper is in this process.
    """

    def __init__(self, node: str) -> None:
        self._node, self._here = node, Keeper()
        self._remote: dict[str, _Remote] = {}
        self._lock = threading.Lock()

    def watch(self, info: WorkerInfo) -> None:
        """See to it that there is a keeper on a worker's machine; does not wait for it."""
        with self._lock:
            if info.node in ("", self._node) or info.node in self._remote:
                return
            there = NodeAffinitySchedulingStrategy(info.node, soft=False)
            options = {"num_cpus": 0, "max_concurrency": _CALLS_AT_ONCE, "scheduling_strategy": there}
            actor = ray.remote(**options)(Keeper).remote()
            self._remote[info.node] = _Remote(actor, actor.is_there.remote())

    def follow(self, info: WorkerInfo, log_path: str, disk: Disk | None) -> None:
        """Have the driver sent what a worker prints, where its machine does not see the driver's file."""
        if disk is not None and (keeper := self._remote.get(info.node)) is not None:
            keeper.followed[log_path] = keeper.actor.follow.remote(log_path, disk)

    def shipped(self, info: WorkerInfo | None, log_path: str | None) -> None:
        """Wait until the driver has all that a worker has printed."""
        if info is not None and log_path is not None and (keeper := self._remote.get(info.node)) is not None:
            with contextlib.suppress(RayError):
                _await_following(keeper, log_path, SHIP_WITHIN_S)
                ray.get(keeper.actor.ship.remote(log_path), timeout=SHIP_WITHIN_S)

    def remains_of(self, info: WorkerInfo | None, log_path: str | None, disk: Disk | None) -> Remains | None:
        """What is left of a dead worker; None if its machine does not answer any more.

        Args:
            info: where it ran, None if nobody knows.
            log_path: where it printed.
            disk: the driver's.
        """
        if info is None:
            return Remains()
        if info.node in ("", self._node):
            return self._here.remains_of(info, log_path, None)
        keeper = self._remote.get(info.node)
        if keeper is None or not ray.wait([keeper.first], timeout=0)[0]:
            return Remains()  # it was not there yet: then its silence says nothing
        try:
            _await_following(keeper, log_path, ANSWER_S)
            found: Remains = ray.get(keeper.actor.remains_of.remote(info, log_path, disk), timeout=ANSWER_S)
        except (GetTimeoutError, ActorUnavailableError):
            return None
        except RayActorError as error:
            return None if "node" in str(error) else Remains()  # else only the keeper has died
        except RayError:
            return Remains()
        return found

    def end(self, info: WorkerInfo, log_path: str | None, disk: Disk | None, leave_s: float) -> None:
        """End a worker's process if it does not end by itself, wherever it is."""
        if info.node in ("", self._node):
            self._here.end(info, log_path, None, leave_s)
        elif (keeper := self._remote.get(info.node)) is not None and ray.is_initialized():
            with contextlib.suppress(RayError):
                ray.get(keeper.actor.end.remote(info, log_path, disk, leave_s), timeout=leave_s + ANSWER_S)

    def close(self) -> None:
        """All logs are sent, then all that other machines keep for the driver is removed; the workers have ended."""
        self._here.close()
        if not self._remote or not ray.is_initialized():
            return
        for method, limit_s in (("ship_all", SHIP_WITHIN_S), ("close", ANSWER_S)):
            answers = [getattr(keeper.actor, method).remote() for keeper in self._remote.values()]
            ray.wait(answers, num_returns=len(answers), timeout=limit_s)
        for keeper in self._remote.values():
            with contextlib.suppress(RayError):
                ray.kill(keeper.actor)
        self._remote.clear()


def _await_following(keeper: _Remote, log_path: str | None, limit_s: float) -> None:
    """Wait, for so many seconds at most, until a keeper has begun to follow a log that it was asked to follow."""
    if (asked := keeper.followed.get(log_path or "")) is not None:
        ray.wait([asked], timeout=limit_s)
