"""Which microbatches of a pass without training each worker computes: two ways to deal them out, pure arithmetic.

A `ShardQueue` gives each worker one large part of the pass: few messages, and the parts meet when all are done. Where
what comes out is written as it comes, in the order of the rows, all of it would be in memory until the first part is
done. So `OrderedShards` deals small parts from the front, and no further ahead of the first that is missing than
workers need to have something to do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from heliostat.cluster.assignment import Range, split

AHEAD = 4  # parts for each worker that may wait for the first that is missing


class Shards(ABC):
    """The microbatches of one pass: those that wait, those that are computed, those that are done.

    Args:
        num_microbatches: of the whole pass.
    """

    def __init__(self, num_microbatches: int) -> None:
        self.num_microbatches = num_microbatches
        self._computing: dict[int, Range] = {}

    @property
    @abstractmethod
    def complete(self) -> bool:
        """Whether all microbatches are done."""

    def next_for(self, worker: int) -> Range | None:
        """What a worker is to compute now; the same again if it had not finished that; None where it is to wait."""
        if worker not in self._computing:
            shard = self._dealt(worker)
            if shard is None:
                return None
            self._computing[worker] = shard
        return self._computing[worker]

    @abstractmethod
    def _dealt(self, worker: int) -> Range | None:
        """What a worker that computes nothing is to compute next."""

    def done(self, worker: int, shard: Range) -> bool:
        """A worker has computed a shard; False if that was known, or is not its to compute any more."""
        if self._computing.get(worker) != shard:
            return False
        del self._computing[worker]
        self._note(shard)
        return True

    @abstractmethod
    def _note(self, shard: Range) -> None:
        """A shard is done."""

    @abstractmethod
    def lost(self, worker: int, num_left: int) -> None:
        """A worker is lost: what it has not finished goes to those that are left."""

    @abstractmethod
    def keep(self, members: Sequence[int]) -> None:
        """Only these workers are in the group now."""


class ShardQueue(Shards):
    """One large part for each worker; a lost one's is cut among the others.

    Args:
        num_microbatches: of the whole pass.
        members: workers among which it is cut at first.
    """

    def __init__(self, num_microbatches: int, members: Sequence[int]) -> None:
        super().__init__(num_microbatches)
        cut = split(0, num_microbatches, max(1, len(members)))
        self._first = {worker: shard for worker, shard in zip(members, cut, strict=False) if shard[1] > shard[0]}
        self._waiting: list[Range] = [] if members or not num_microbatches else list(cut)
        self._num_done = 0

    @property
    def complete(self) -> bool:  # noqa: D102
        return self._num_done == self.num_microbatches

    def _dealt(self, worker: int) -> Range | None:
        return self._first.pop(worker, None) or (self._waiting.pop(0) if self._waiting else None)

    def _note(self, shard: Range) -> None:
        self._num_done += shard[1] - shard[0]

    def lost(self, worker: int, num_left: int) -> None:  # noqa: D102
        for shard in (self._first.pop(worker, None), self._computing.pop(worker, None)):
            if shard is not None:
                parts = split(*shard, max(1, num_left))
                self._waiting += [part for part in parts if part[1] > part[0]]

    def keep(self, members: Sequence[int]) -> None:  # noqa: D102
        for worker in {*self._first, *self._computing} - set(members):
            self.lost(worker, len(members))


class OrderedShards(Shards):
    """The microbatches of a pass in small parts, dealt out from the front.

    Args:
        num_microbatches: of the whole pass.
        size: microbatches of a part.
        members: how many workers there are.
        first: microbatches before this one are done, and kept.
    """

    def __init__(self, num_microbatches: int, size: int, members: int, first: int = 0) -> None:
        super().__init__(num_microbatches)
        self._size, self._members, self._next = size, max(1, members), first
        self._again: list[Range] = []  # of workers that are lost
        self._done: set[Range] = set()  # those ahead of the first that is missing
        self._first_missing = first

    @property
    def complete(self) -> bool:  # noqa: D102
        return self._first_missing == self.num_microbatches

    def _dealt(self, worker: int) -> Range | None:
        if self._again:
            return self._again.pop(0)
        is_far = self._next - self._first_missing >= AHEAD * self._members * self._size
        if self._next >= self.num_microbatches or is_far:
            return None
        lo, self._next = self._next, min(self._next + self._size, self.num_microbatches)
        return lo, self._next

    def _note(self, shard: Range) -> None:
        self._done.add(shard)
        for lo, hi in sorted(self._done):
            if lo != self._first_missing:
                break
            self._first_missing = hi
            self._done.remove((lo, hi))

    def lost(self, worker: int, num_left: int) -> None:  # noqa: D102
        self._members = max(1, num_left)
        if worker in self._computing:
            self._again.append(self._computing.pop(worker))

    def keep(self, members: Sequence[int]) -> None:  # noqa: D102
        for worker in set(self._computing) - set(members):
            self.lost(worker, len(members))
        self._members = max(1, len(members))
