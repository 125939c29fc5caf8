"""The driver's side of the keepers: one for each machine with workers, and what they say.

A keeper can die alone, for want of memory or by somebody's hand. It is made anew when a worker of its machine is next
heard, or at the latest when it is needed, and is told again which logs to follow (`keeper.ShippedLog` finds how much of
them the driver has). Its death says nothing of its machine: whether that is still there is asked of Ray's table of
nodes (`ray_room.has_machine`), not read out of an error's text.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..spec import WorkerInfo
from .keeper import Keeper, Remains
from .ray_room import has_machine

if TYPE_CHECKING:
    from ..disk.disk import Disk

ANSWER_S = 3.0
SHIP_WITHIN_S = 10.0
_CALLS_AT_ONCE = 16
_MAX_DEATHS = 10  # of the keepers of one machine; then something is wrong there that another one does not mend


@dataclass(frozen=True, slots=True)
class _Remote:
    """A keeper on another machine. (Any: actors have no types.)

    Its calls run side by side: a log that is only about to be followed would be taken for one that is not.

    Attributes:
        actor: the keeper.
        first: what it answers once it is there.
        end: what it answers when it is closed; an error as soon as it has died.
        deaths: of keepers of this machine before it.
        logs: those that it follows, and the disk on which their copies are.
        followed: what `follow` will return, by the log.
    """

    actor: Any
    first: ray.ObjectRef
    end: ray.ObjectRef
    deaths: int = 0
    logs: dict[str, Disk] = field(default_factory=dict)
    followed: dict[str, ray.ObjectRef] = field(default_factory=dict)

    def follow(self, log_path: str, disk: Disk) -> None:
        """Have it send what is printed into a log."""
        self.logs[log_path] = disk
        self.followed[log_path] = self.actor.follow.remote(log_path, disk)


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
        """See to it that there is a keeper on a worker's machine, which was heard just now; does not wait for it."""
        if info.node not in ("", self._node):
            self._see_to(info.node)

    def _see_to(self, node: str) -> None:
        """Make a keeper where there is none, or one that has died."""
        with self._lock:
            before = self._remote.get(node)
            if before is not None and (before.deaths >= _MAX_DEATHS or not ray.wait([before.end], timeout=0)[0]):
                return
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            options = {"num_cpus": 0, "max_concurrency": _CALLS_AT_ONCE, "scheduling_strategy": there}
            actor = ray.remote(**options)(Keeper).remote()
            deaths, logs = (0, {}) if before is None else (before.deaths + 1, before.logs)
            keeper = _Remote(actor, actor.is_there.remote(), actor.outlive.remote(), deaths)
            for log_path, disk in logs.items():
                keeper.follow(log_path, disk)
            self._remote[node] = keeper

    def follow(self, info: WorkerInfo, log_path: str, disk: Disk | None) -> None:
        """Have the driver sent what a worker prints, where its machine does not see the driver's file."""
        with self._lock:
            if disk is not None and (keeper := self._remote.get(info.node)) is not None:
                keeper.follow(log_path, disk)

    def shipped(self, info: WorkerInfo | None, log_path: str | None) -> None:
        """Wait until the driver has all that a worker has printed."""
        if info is not None and log_path is not None:
            self._ask(info.node, "ship", log_path, log_path=log_path, limit_s=SHIP_WITHIN_S)

    def _ask(self, node: str, method: str, *arguments: object, log_path: str | None, limit_s: float) -> None:
        """Let a machine's keeper do something, and another one if it has died; who cannot is not waited for.

        Args:
            node: the machine.
            method: of the keeper; `arguments` are its own.
            log_path: the log that this is about; it is followed before.
            limit_s: seconds to wait for it.
        """
        for _ in range(2):
            if (keeper := self._remote.get(node)) is None or not ray.is_initialized():
                return
            try:
                _await_following(keeper, log_path, limit_s)
                ray.get(getattr(keeper.actor, method).remote(*arguments), timeout=limit_s)
                return
            except ActorDiedError:
                if not has_machine(node):
                    return
                self._see_to(node)
            except RayError:
                return

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
        except ActorDiedError:
            if not has_machine(info.node):
                return None
            self._see_to(info.node)  # it has died alone; the next one sends what this one has not sent
            return Remains()
        except RayError:
            return Remains()
        return found

    def end(self, info: WorkerInfo, log_path: str | None, disk: Disk | None, leave_s: float) -> None:
        """End a worker's process if it does not end by itself, wherever it is."""
        if info.node in ("", self._node):
            self._here.end(info, log_path, None, leave_s)
        else:
            self._ask(info.node, "end", info, log_path, disk, leave_s, log_path=None, limit_s=leave_s + ANSWER_S)

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
