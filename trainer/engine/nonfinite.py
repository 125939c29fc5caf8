"""Gradients that are not finite: noticing them cheaply in the sum, and finding out where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from heliostat.cluster.assignment import Range

from .layout import VectorLayout, split_by_variable

if TYPE_CHECKING:  # the driver makes the text, and does without TensorFlow
    import keras

    from .microbatches import Microbatches
    from .model import BuiltModel
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
    layout = microbatches.gradients.layout
    for lo, hi in sorted(ranges):
        for (_, index), (*float_buckets, _, _) in microbatches.computed(step, seed_step, range(lo, hi)):
            if not all(map(all_finite, float_buckets)):
                parts = parts_by_variable(microbatches.built, layout, float_buckets)
                return index, tuple(variable.path for variable, part in parts if not all_finite(part))
    return None


def parts_by_variable(
    built: BuiltModel, layout: VectorLayout, float_buckets: Sequence[np.ndarray]
) -> Iterator[tuple[keras.Variable, np.ndarray]]:
    """Every variable of which a microbatch's vector has a part, with that part: gradients, then moving averages."""
    trained = [built.trainable[i] for i in layout.gradients]
    return split_by_variable(
        float_buckets, layout.variables_per_bucket, trained + [built.non_trainable[i] for i in layout.float_state]
    )
