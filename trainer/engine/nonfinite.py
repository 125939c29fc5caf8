"""Microbatches of a phase computed again, one by one, to find one that is not finite."""

from __future__ import annotations

from collections.abc import Sequence

from heliostat.cluster.assignment import Range

from .layout import split_by_variable
from .microbatches import Microbatches
from .tensors import all_finite


def nonfinite_microbatch(
    microbatches: Microbatches, seed_step: int, step: int, ranges: Sequence[Range]
) -> tuple[int, tuple[str, ...]] | None:
    """Compute microbatches of a step again, one by one, until one is not finite.

    Args:
        microbatches: computes them.
        seed_step: the step of the run, from which random seeds come.
        step: the step of the epoch.
        ranges: those to look at.

    Returns:
        the index of the first that is not finite, and the paths of the variables concerned; None if all are finite.
    """
    layout = microbatches.function.layout
    for lo, hi in sorted(ranges):
        rows = microbatches.read(step, range(lo, hi))
        for (_, index), (*float_buckets, _, _) in microbatches.computed(rows, seed_step):
            if not all(map(all_finite, float_buckets)):
                parts = split_by_variable(float_buckets, layout.variables_per_bucket, layout.parts)
                return index, tuple(part.name for part, values in parts if not all_finite(values))
    return None
