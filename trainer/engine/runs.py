"""Runs of variables that share a segment of a contribution, decided by their sizes alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Any

# Larger variables, on average, are not joined: joining and handing out are copies, which then cost more than they save.
MAX_MEAN_ELEMENTS = 1 << 16


def small_on_average(sizes: Sequence[int]) -> bool:
    """Whether variables of these sizes are better joined into one vector."""
    return sum(sizes) <= MAX_MEAN_ELEMENTS * len(sizes)


def runs_of(sizes: Sequence[int]) -> tuple[int, ...]:
    """How many neighbours among variables of these sizes have their gradients joined in one segment.

    All of them where variables are small on average, as a flat update wants them; otherwise the large ones stay by
    themselves.
    """
    if small_on_average(sizes):
        return (len(sizes),) if sizes else ()
    large = groupby(enumerate(sizes), key=lambda each: each[0] if each[1] > MAX_MEAN_ELEMENTS else -1)
    return tuple(len(list(run)) for _, run in large)


def by_variable(segments: Sequence[Any], runs: Sequence[int], variables: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Every variable with its part of the segments, arrays or tensors, that its run is joined in."""
    left = iter(variables)
    for segment, count in zip(segments, runs, strict=True):
        at = 0
        for variable in islice(left, count):
            size = math.prod(variable.shape)
            yield variable, segment[at : at + size]
            at += size
