"""Who computes which part of a pass without training; a lost worker's unfinished part goes to the others."""

from __future__ import annotations

from collections.abc import Sequence

from heliostat.cluster.assignment import Range, split


class ShardQueue:
    """The leaves of one pass: those that wait, those that are computed, those that are done.

    Args:
        num_microbatches: how many there are.
        members: workers among which they are cut at first.
    """

    def __init__(self, num_microbatches: int, members: Sequence[int]) -> None:
        self.num_microbatches = num_microbatches
        cut = split(0, num_microbatches, max(1, len(members)))
        self._first = {worker: share for worker, share in zip(members, cut, strict=False) if share[1] > share[0]}
        self._waiting: list[Range] = [] if members or not num_microbatches else list(cut)
        self._computing: dict[int, Range] = {}
        self._num_done = 0

    @property
    def complete(self) -> bool:
        """Whether all leaves are done."""
        return self._num_done == self.num_microbatches

    def next_for(self, worker: int) -> Range | None:
        """What a worker is to compute now; the same again if it had not finished that."""
        if worker not in self._computing:
            share = self._first.pop(worker, None) or (self._waiting.pop(0) if self._waiting else None)
            if share is None:
                return None
            self._computing[worker] = share
        return self._computing[worker]

    def done(self, worker: int, share: Range) -> bool:
        """A worker has computed a share; False if that was known, or is not its to compute any more."""
        if self._computing.get(worker) != share:
            return False
        del self._computing[worker]
        self._num_done += share[1] - share[0]
        return True

    def lost(self, worker: int, num_left: int) -> None:
        """A worker is lost: cut what it has not finished among those that are left."""
        for share in (self._first.pop(worker, None), self._computing.pop(worker, None)):
            if share is not None:
                parts = split(*share, max(1, num_left))
                self._waiting += [part for part in parts if part[1] > part[0]]

    def keep(self, members: Sequence[int]) -> None:
        """Only these workers are in the group now."""
        for worker in {*self._first, *self._computing} - set(members):
            self.lost(worker, len(members))
