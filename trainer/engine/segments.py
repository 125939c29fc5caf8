"""How each segment of a microbatch's vector is summed, and the memory of sums."""

from __future__ import annotations

import numpy as np
from heliostat.cluster.tree import Layout, SegmentOp, Vector
from heliostat.data import aligned_empty

from ..errors import UnsupportedModelError
from ..jobs import SEGMENT_OPS, WireDtype
from .contribution import Contribution
from .tensors import memory_towards
from .trainee import Trainee


class Segments:
    """The segments of a contribution as the all-reduce sees them.

    With `wire_dtype="bfloat16"` every node of the tree is rounded in those of gradients. Moving averages stay exact: a
    small step of theirs would be rounded away every time.

    Args:
        trainee: the model.
        contribution: what a microbatch's vector holds.
        wire_dtype: how gradients are rounded; None leaves them as they are.

    Raises:
        UnsupportedModelError: gradients are not float32.
    """

    def __init__(self, trainee: Trainee, contribution: Contribution, wire_dtype: WireDtype | None) -> None:
        self._gpus = trainee.runtime.gpus  # a sum is copied to the first
        self.layout: Layout = contribution.layout
        self._num_main = len(contribution.main)
        num_moving = 1 if contribution.moving else 0
        gradients: SegmentOp = "sum"
        if wire_dtype is not None:
            gradients = "sum_bfloat16"
            dtype, _ = self.layout[0]
            if dtype != np.float32:
                raise UnsupportedModelError(
                    f"wire_dtype='bfloat16' rounds float32 gradients, and this model's are {dtype.name}. Leave "
                    "wire_dtype out, or use float32 weights."
                )
        moving, *rest = SEGMENT_OPS
        self.ops: tuple[SegmentOp, ...] = (
            *[gradients] * (self._num_main - num_moving),
            *[moving] * num_moving,
            *rest,
        )

    def new(self) -> Vector:
        """Return memory for a sum."""
        return tuple(
            memory_towards(self._gpus[0], length, dtype)
            if self._gpus and number < self._num_main
            else aligned_empty((length,), dtype)
            for number, (dtype, length) in enumerate(self.layout)
        )
