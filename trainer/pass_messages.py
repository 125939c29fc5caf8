"""Passes without training: what workers and the driver say to each other while they evaluate or predict.

A pass is cut into shards of microbatches, which the driver deals out one at a time, so that a fast worker takes more of
them. What a worker made of its shard are nodes of a tree over all of the pass, so the sum is the same for any number of
workers; the driver adds them up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from heliostat.cluster.tree import Node
from heliostat.cluster.vectors import BucketOp, Vector

# The buckets of a pass without training: an empty one for gradients; metric changes; maxima.
BUCKET_OPS: tuple[BucketOp, ...] = ("sum", "sum", "max")


_MOST_NAMED = 5  # rows, in a warning


@dataclass(frozen=True, slots=True, kw_only=True)
class PassStart:
    """A worker asks for a shard of a pass without training, which has so many microbatches."""

    num_microbatches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The driver's answer: compute the microbatches [lo, hi) of a pass."""

    lo: int
    hi: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NonfiniteRows:
    """Rows of a pass whose metrics are not finite: how many, and the ids of the first of them."""

    num_rows: int = 0
    first: tuple[int, ...] = ()

    def plus(self, ids: Sequence[int], num_rows: int) -> NonfiniteRows:
        """These, and more rows: `ids` are the first of them."""
        return NonfiniteRows(num_rows=self.num_rows + num_rows, first=tuple(sorted((*self.first, *ids))[:_MOST_NAMED]))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """What a worker has computed of a pass: of an evaluation tree nodes and rows, of a prediction its outputs."""

    shard: Shard
    nodes: dict[Node, Vector] = field(default_factory=dict)
    rows: int = 0
    outputs: Any = None
    nonfinite: NonfiniteRows = NonfiniteRows()


@dataclass(frozen=True, slots=True, kw_only=True)
class PassProgress:
    """A worker has computed so many rows of a pass without training since it told so last."""

    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PassSum:
    """The driver's answer once a pass is complete: all of it in one vector (empty for a prediction)."""

    vector: Vector = ()
    rows: int = 0
    nonfinite: NonfiniteRows = NonfiniteRows()


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """What one worker returns at the end of a pass: metrics (empty for a prediction)."""

    logs: dict[str, Any]
    nonfinite: NonfiniteRows = NonfiniteRows()
