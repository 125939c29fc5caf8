"""Which worker computes which microbatches: pure arithmetic on half-open ranges.

A range that is a whole subtree of the sum (`tree.py`) is sent as one partial sum, any other as several. So ranges are
cut along subtree borders where that costs little: never more than a third above the most even cut, or 2 % above the
best one where workers differ in speed (`pace.py` says when that counts).

Who asks: every worker, at the beginning of each step, finds out by itself what all bring (`group/calls.py`). Usually
that is `assign`; after a loss `reassign`, of what the survivors hold of the step that is pending; and where the driver
has dealt by speed, its ranges. The microbatches of validation and prediction are cut by the driver with `split`, and a
lost worker's go to the others (`ShardQueue` in ``trainer/driver/coordinator.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from .tree import nodes_of

Range = tuple[int, int]
NEAR_BEST = 1.02  # a cut that is so much slower than the best is as good, if it has fewer nodes
MAX_SPARE = 24  # a border between two workers may be at so many places: bounds the search for the fewest nodes


def assign(num_microbatches: int, num_workers: int) -> tuple[Range, ...]:
    """Cut [0, num_microbatches) into one contiguous range per rank, in rank order.

    Where workers divide microbatches, all ranges are equal. Otherwise the coarsest subtrees are dealt out whole whose
    largest share is at most 4/3 of the most even one: 8 microbatches on 3 workers give 4, 2, 2. With more workers
    than microbatches the last ranks get empty ranges.

    Raises:
        ValueError: a count is below one.
    """
    _require_positive(num_microbatches=num_microbatches, num_workers=num_workers)
    if num_microbatches % num_workers == 0:
        return split(0, num_microbatches, num_workers)
    most_even = -(-num_microbatches // num_workers)
    unit = 1 << num_microbatches.bit_length()
    while unit > 1:
        unit //= 2
        ranges = _deal(num_microbatches, num_workers, unit)
        if all(hi > lo for lo, hi in ranges) and 3 * max(hi - lo for lo, hi in ranges) <= 4 * most_even:
            return ranges
    return split(0, num_microbatches, num_workers)


def split(lo: int, hi: int, num_parts: int) -> tuple[Range, ...]:
    """Cut a range into contiguous ranges whose sizes differ by at most one, the larger ones first.

    Args:
        lo: begin of the range.
        hi: its end, which is not in it.
        num_parts: how many ranges to make; empty ones if there are not as many numbers.

    Raises:
        ValueError: `num_parts` is below one, or ``0 <= lo <= hi`` does not hold.
    """
    _require_positive(num_parts=num_parts)
    if not 0 <= lo <= hi:
        raise ValueError(f"a range needs 0 <= lo <= hi, got lo={lo}, hi={hi}")
    size, larger = divmod(hi - lo, num_parts)
    borders = [lo + part * size + min(part, larger) for part in range(num_parts + 1)]
    return tuple(pairwise(borders))


def assign_by_time(num_microbatches: int, times_s: Sequence[float], unit: int = 1) -> tuple[Range, ...]:
    """Cut [0, num_microbatches) into one contiguous range per rank, so that all workers are ready as early as can be.

    Every range is made of whole units, but for the last one, and has at least one. Of the cuts that are within 2 % of
    the best that with the fewest nodes of the tree is taken (of the best alone, where there would be too many).

    Args:
        num_microbatches: V.
        times_s: by rank, how long the worker takes for one unit; only their proportions matter.
        unit: microbatches that a worker computes at the same time, one on each of its replicas.

    Raises:
        ValueError: a count is below one, a time is not positive, or there are fewer units than workers.
    """
    num_units = -(-num_microbatches // unit)
    _require_positive(num_microbatches=num_microbatches, num_workers=len(times_s), unit=unit)
    if min(times_s) <= 0 or num_units < len(times_s):
        raise ValueError(f"{num_units} units cannot be dealt out to workers that take {tuple(times_s)} s for one")
    best = _fastest(num_units, times_s)
    near_s = NEAR_BEST * slowest_s(best, times_s)
    most = [max(size, int(near_s / time_s)) for size, time_s in zip(best, times_s, strict=True)]
    if min(num_units, sum(most) - num_units) > MAX_SPARE:
        most = best
    return _fewest_nodes(num_microbatches, unit, most)


def slowest_s(sizes: Sequence[int], times_s: Sequence[float]) -> float:
    """How long the slowest takes for its units; `sizes` are how many each has, `times_s` what it takes for one."""
    return max(size * time_s for size, time_s in zip(sizes, times_s, strict=True))


def _fastest(num_units: int, times_s: Sequence[float]) -> list[int]:
    """Units by rank, each at least one, of a cut whose slowest worker is as fast as can be."""
    sizes = [1] * len(times_s)
    for _ in range(num_units - len(times_s)):
        soonest = min(range(len(sizes)), key=lambda rank: ((sizes[rank] + 1) * times_s[rank], rank))
        sizes[soonest] += 1
    return sizes


def _fewest_nodes(num_microbatches: int, unit: int, most: Sequence[int]) -> tuple[Range, ...]:
    """The cut with the fewest nodes in which each rank has at least one unit and at most `most`."""
    num_units = -(-num_microbatches // unit)
    cuts: dict[int, tuple[int, tuple[Range, ...]]] = {0: (0, ())}  # by the unit where they end: nodes, ranges
    for rank, limit in enumerate(most):
        longer: dict[int, tuple[int, tuple[Range, ...]]] = {}
        others, room = len(most) - rank - 1, sum(most[rank + 1 :])
        for begin, (num_nodes, ranges) in cuts.items():
            for end in range(max(begin + 1, num_units - room), min(begin + limit, num_units - others) + 1):
                own = begin * unit, min(end * unit, num_microbatches)
                total = num_nodes + len(nodes_of(*own, num_microbatches))
                if end not in longer or total < longer[end][0]:
                    longer[end] = total, (*ranges, own)
        cuts = longer
    return cuts[num_units][1]


def reassign(num_microbatches: int, held: Sequence[Sequence[Range]]) -> tuple[tuple[Range, ...], ...]:
    """Give the microbatches that no worker holds to those that hold the fewest.

    The load is levelled as far as what is held allows, in pieces as large as possible.

    Args:
        num_microbatches: V.
        held: by rank, the disjoint ranges that each worker has computed.

    Returns:
        For each rank all ranges that it is to bring: those it holds, as they are, and its share of the others.

    Raises:
        ValueError: two workers hold the same microbatch, or a range has no microbatch.
    """
    _require_positive(num_microbatches=num_microbatches, num_workers=len(held))
    missing = _complement(num_microbatches, [piece for ranges in held for piece in ranges])
    load = [sum(hi - lo for lo, hi in ranges) for ranges in held]
    shares = _level(load, sum(hi - lo for lo, hi in missing))
    result = [list(ranges) for ranges in held]
    rank = 0
    for lo, hi in missing:
        while lo < hi:
            while not shares[rank]:
                rank += 1
            size = min(hi - lo, shares[rank])
            result[rank].append((lo, lo + size))
            shares[rank] -= size
            lo += size
    return tuple(map(tuple, result))


def _complement(num_microbatches: int, ranges: Sequence[Range]) -> list[Range]:
    missing, at = [], 0
    for lo, hi in sorted(ranges):
        if not at <= lo <= hi <= num_microbatches:
            raise ValueError(f"({lo}, {hi}) overlaps another range or is none within {num_microbatches} microbatches")
        if at < lo:
            missing.append((at, lo))
        at = hi
    return [*missing, (at, num_microbatches)] if at < num_microbatches else missing


def _level(load: Sequence[int], amount: int) -> list[int]:
    """How much of `amount` each gets so that the loads become as equal as they can; ties go to lower ranks."""
    shares = [0] * len(load)
    for _ in range(amount):
        least = min(range(len(load)), key=lambda rank: (load[rank] + shares[rank], rank))
        shares[least] += 1
    return shares


def _deal(num_microbatches: int, num_workers: int, unit: int) -> tuple[Range, ...]:
    """Deal out subtrees of `unit` microbatches (the last one may be short) as evenly as their number allows."""
    num_units = -(-num_microbatches // unit)
    return tuple(
        (min(lo * unit, num_microbatches), min(hi * unit, num_microbatches))
        for lo, hi in split(0, num_units, num_workers)
    )


def _require_positive(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
