"""Segments that travel together as one array, cut into equally long slices; decided by their layout alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from heliostat.cluster.tree import Layout, SegmentOp


@dataclass(frozen=True, slots=True)
class Bundle:
    """Neighbouring segments of one dtype and one operation.

    Attributes:
        op: how they are summed.
        dtype: of their elements.
        numbers: which segments of the vector they are.
        lengths: elements of each.
        num_workers: so many slices there are.
    """

    op: SegmentOp
    dtype: np.dtype
    numbers: tuple[int, ...]
    lengths: tuple[int, ...]
    num_workers: int

    @property
    def slice_length(self) -> int:
        """Elements of a slice; the last one is filled up."""
        return -(-sum(self.lengths) // self.num_workers)

    @property
    def num_bytes(self) -> int:
        """Of one node."""
        return sum(self.lengths) * self.dtype.itemsize

    @property
    def padding(self) -> int:
        """Elements that fill up the last slice."""
        return self.slice_length * self.num_workers - sum(self.lengths)

    @property
    def in_bfloat16(self) -> bool:
        """Whether every node is rounded to bfloat16, and travels as such."""
        return self.op == "sum_bfloat16"


def bundles_of(layout: Layout, ops: Sequence[SegmentOp], num_workers: int, min_bytes: int) -> list[Bundle]:
    """The bundles of a vector: neighbours of one dtype that are summed alike, of `min_bytes` or more altogether."""
    alike = groupby(range(len(layout)), key=lambda number: (ops[number], layout[number][0]))
    bundles = []
    for (op, dtype), group in alike:
        numbers = tuple(group)
        lengths = tuple(layout[number][1] for number in numbers)
        if op != "max" and sum(lengths) * dtype.itemsize >= max(1, min_bytes):
            bundles.append(Bundle(op, dtype, numbers, lengths, num_workers))
    return bundles
