"""How the vector of a microbatch is cut into the segments that are summed, each in its own way."""

from __future__ import annotations

import math

import numpy as np
from heliostat.cluster.tree import Layout, SegmentOp, Vector
from heliostat.data import aligned_empty

from .compute import Contribution
from .errors import UnsupportedModelError
from .jobs import SEGMENT_OPS, WireDtype
from .tensors import memory_towards
from .trainee import Trainee


class Segments:
    """The segments of a contribution as the all-reduce sees them.

    With `wire_dtype="bfloat16"` gradients become a segment of their own, in which every node of the tree is rounded.
    Moving averages stay exact: a small step of theirs would be rounded away every time.

    Args:
        trainee: the model.
        contribution: what a microbatch's vector holds.
        wire_dtype: how gradients are rounded; None leaves them as they are.

    Raises:
        UnsupportedModelError: gradients are not float32.
    """

    def __init__(self, trainee: Trainee, contribution: Contribution, wire_dtype: WireDtype | None) -> None:
        self._gpus = trainee.runtime.gpus  # a sum is copied to the first
        self._whole = contribution.layout
        self.layout: Layout = self._whole
        self.ops: tuple[SegmentOp, ...] = SEGMENT_OPS
        self._num_gradients: int | None = None
        self._buffers: dict[int, Vector] = {}
        if wire_dtype is None:
            return
        (dtype, length), *rest = self._whole
        if dtype != np.float32:
            raise UnsupportedModelError(
                f"wire_dtype='bfloat16' rounds float32 gradients, and this model's are {dtype.name}. Leave wire_dtype "
                "out, or use float32 weights."
            )
        self._num_gradients = sum(math.prod(trainee.trainable[i].shape) for i in contribution.gradients)
        self.layout = ((dtype, self._num_gradients), (dtype, length - self._num_gradients), *rest)
        self.ops = ("sum_bfloat16", *SEGMENT_OPS)

    def cut(self, vector: Vector) -> Vector:
        """Return views of a microbatch's vector, segment by segment."""
        if self._num_gradients is None:
            return vector
        first, *rest = vector
        return (first[: self._num_gradients], first[self._num_gradients :], *rest)

    def new(self) -> Vector:
        """Return memory for a sum."""
        (dtype, length), *rest = self._whole
        first = memory_towards(self._gpus[0], length, dtype) if self._gpus else aligned_empty((length,), dtype)
        whole = (first, *(aligned_empty((length,), dtype) for dtype, length in rest))
        cut = self.cut(whole)
        if self._num_gradients is not None:
            self._buffers[cut[0].ctypes.data] = whole
        return cut

    def join(self, summed: Vector) -> Vector:
        """Return a sum with gradients and moving averages together again; what was cut is of memory that `new` made."""
        return summed if self._num_gradients is None else self._buffers[summed[0].ctypes.data]
