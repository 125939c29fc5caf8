"""What a microbatch contributes to its step: how its numbers lie in the segments of a vector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from heliostat.cluster.tree import Layout

from .metrics import StatsLayout
from .runs import runs_of
from .trainee import Trainee


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What the vector of a microbatch holds, in order.

    The main segments have the weights' dtype: gradients of `gradients`, then new values of `moving`, each multiplied by
    the microbatch's weight; `runs` says how many of these variables share a segment, and there is an empty one if there
    are none. The last two, one float64 that is summed and one of which the maximum is taken, are described by `stats`.

    Attributes:
        gradients: indices into `Trainee.trainable` of the variables that have a gradient.
        moving: indices into `Trainee.frozen` of the floating-point state the step assigns.
        agreed: indices into `Trainee.frozen` of integer state the step assigns; all microbatches must agree on it.
        runs: of each main segment the number of variables that are joined in it, see `runs_of`.
        stats: metric changes and logged scalars.
        layout: dtype and length of each segment.
    """

    gradients: tuple[int, ...]
    moving: tuple[int, ...]
    agreed: tuple[int, ...]
    runs: tuple[int, ...]
    stats: StatsLayout
    layout: Layout

    @property
    def main(self) -> Layout:
        """The layout of the main segments."""
        return self.layout[:-2]


def contribution_of(
    trainee: Trainee,
    gradients: tuple[int, ...],
    moving: tuple[int, ...],
    agreed: tuple[int, ...],
    stats: StatsLayout,
) -> Contribution:
    """The layout of a contribution that holds these; moving averages share one segment."""
    sizes = [math.prod(trainee.trainable[i].shape) for i in gradients]
    moving_sizes = [math.prod(trainee.frozen[i].shape) for i in moving]
    runs = (*runs_of(sizes), *((len(moving),) if moving else ()))
    ends = list(accumulate((0, *sizes, *moving_sizes)))
    borders = [ends[at] for at in accumulate((0, *runs))]
    main = [(trainee.float_dtype, stop - start) for start, stop in pairwise(borders)] or [(trainee.float_dtype, 0)]
    float64 = np.dtype(np.float64)
    layout = (*main, (float64, stats.num_sums), (float64, stats.num_extrema))
    return Contribution(gradients=gradients, moving=moving, agreed=agreed, runs=runs, stats=stats, layout=layout)
