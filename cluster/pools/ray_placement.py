"""Where the workers of a pool find room: those that a task begins with all or none, the others one by one.

Two trainers that each take cores one after another, and wait for more, may wait for each other for ever. So the first
workers are reserved together, by a placement group of Ray, which grants all of its bundles or none, spread over the
machines; until it is granted this pool holds nothing and asks for nothing else. Whoever comes after, up to the most
there can be, is placed outside of it, one by one: a group's size is fixed, and a trainer grows and shrinks.

A worker that is lost leaves its bundle free, which stays ours: the next one takes it, before it looks outside. Ray
itself moves the bundles of a machine that is gone to another one as soon as one has room, so a replacement that went
elsewhere would compete with its own reservation. The one exception is a machine that is about to be taken away: its
bundle moves only once it is gone.

What was not done: a group for each worker (nothing would be all or none), and giving bundles back when a trainer
shrinks (Ray cannot; cores of the first ones stay reserved until the trainer is closed).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

STRATEGY = "SPREAD"


class Bundles:
    """Which worker has which of the reserved bundles.

    Args:
        num: how many there are.
    """

    def __init__(self, num: int) -> None:
        self.num = num
        self._workers: dict[int, int] = {}  # bundle: worker
        self._nodes: dict[int, str] = {}  # bundle: where its last worker was, as far as that is known

    def take(self, worker: int, leaving: Collection[str]) -> int | None:
        """Give a worker a free bundle; None if there is none that is not on a machine which is `leaving`."""
        for bundle in range(self.num):
            if bundle not in self._workers and self._nodes.get(bundle) not in leaving:
                self._workers[bundle] = worker
                return bundle
        return None

    def with_one(self, workers: Collection[int]) -> set[int]:
        """Those of these workers that have a bundle."""
        return {worker for worker in list(self._workers.values()) if worker in workers}

    def leave(self, worker: int, node: str) -> None:
        """A worker was ended, or died; `node` is where it was, empty if that is not known."""
        for bundle, holder in list(self._workers.items()):
            if holder == worker:
                del self._workers[bundle]
                self._nodes[bundle] = node


class Placement:
    """Tells Ray where each worker of a pool shall be. Ray must be connected.

    Args:
        wants: what each worker needs, by Ray's names of resources; those that need nothing find room anywhere.
        num_reserved: so many are reserved together.
    """

    def __init__(self, wants: Mapping[str, float], num_reserved: int) -> None:
        self.wants = {name: amount for name, amount in wants.items() if amount}
        self._bundles = Bundles(num_reserved if self.wants else 0)
        self._group: PlacementGroup | None = None
        self._granted: ObjectRef | None = None

    def options(self, worker: int, leaving: Collection[str] = ()) -> dict[str, Any] | None:  # of Ray, of many types
        """Ray's options for a worker's actor; None if it is not its turn: the first ones wait for their reservation.

        Args:
            worker: its number.
            leaving: nodes that are about to be taken away.
        """
        bundle = self._bundles.take(worker, leaving)
        strategy: object = STRATEGY
        if bundle is not None:
            strategy = PlacementGroupSchedulingStrategy(self._reserved(), placement_group_bundle_index=bundle)
        elif not self.is_granted:
            return None
        return {"num_cpus": 0, "num_gpus": 0, **self._amounts(), "scheduling_strategy": strategy}

    @property
    def is_granted(self) -> bool:
        """Whether all that is reserved has its place."""
        if self._granted is None:
            return self._bundles.num == 0
        ready, _ = ray.wait([self._granted], timeout=0)
        return bool(ready)

    def placed(self, workers: Collection[int]) -> set[int]:
        """Those of these workers that have a bundle which is granted."""
        return self._bundles.with_one(workers) if self.is_granted else set()

    @property
    def group_id(self) -> str:
        """Ray's id of what is reserved, empty while nothing is."""
        return "" if self._group is None else self._group.id.hex()

    def left(self, worker: int, node: str) -> None:
        """A worker was ended, or died.

        Args:
            worker: its number.
            node: where it was, empty if that is not known.
        """
        self._bundles.leave(worker, node)

    def close(self) -> None:
        """Give the reservation back; the workers have ended."""
        if self._group is not None and ray.is_initialized():
            with contextlib.suppress(RayError):
                remove_placement_group(self._group)
        self._group = self._granted = None

    def _reserved(self) -> PlacementGroup:
        if self._group is None:
            self._group = placement_group([self.wants] * self._bundles.num, strategy=STRATEGY)
            self._granted = self._group.ready()
        return self._group

    def _amounts(self) -> dict[str, float]:
        return {{"CPU": "num_cpus", "GPU": "num_gpus"}[name]: amount for name, amount in self.wants.items()}
