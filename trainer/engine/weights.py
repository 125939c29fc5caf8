"""What a microbatch counts in its batch (pure)."""

from __future__ import annotations

import numpy as np


def microbatch_weights(
    reduction: str, rows: int, batch_rows: int, weight: float = 0.0, batch_weight: float = 0.0
) -> np.ndarray:
    """The four factors by which one microbatch's results are multiplied before they are summed.

    Args:
        reduction: how the loss reduces over rows.
        rows: rows of the microbatch.
        batch_rows: rows of the global batch.
        weight: sum of the microbatch's sample weights, used by ``mean_with_sample_weight`` only.
        batch_weight: sum of the global batch's sample weights; 0 where there are none, or all are 0: then Keras divides
            by rows, and a loss of 0 stays 0 by any factor.

    Returns:
        float64 ``[4]``:

        0. factor of gradients and of logged losses: rows/batch_rows for losses that are means over rows, 1 for
           ``sum``, weight/batch_weight for ``mean_with_sample_weight``;
        1. factor of moving averages, rows/batch_rows;
        2. factor of the loss tracker's total. Keras counts a microbatch's loss `rows` times; the batch's loss, counted
           `batch_rows` times, is the sum over microbatches of batch_rows * factor 0 * loss. Exactly 1 for means;
        3. rows, the count that goes with it.
    """
    share = rows / batch_rows
    if reduction == "sum":
        return np.array([1.0, share, batch_rows / rows, rows])
    if reduction == "mean_with_sample_weight" and batch_weight:
        factor = weight / batch_weight
        return np.array([factor, share, factor * (batch_rows / rows), rows])
    return np.array([share, share, 1.0, rows])
