"""From the row order to tensors: the rows of the microbatches that this worker computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from heliostat.data import BatchPlan, Dataset, RowOrder, Shuffle, aligned_empty, row_ids

from .columns import Columns
from .weights import microbatch_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Microbatch:
    """The rows of one microbatch, ready to be computed.

    Attributes:
        number: its number in the step.
        batch: tensors by column, views of the feed's buffers: valid until the feed is asked for the next step.
        weights: float64 ``[4]``, see `microbatch_weights`.
    """

    number: int
    batch: Mapping[str, Any]
    weights: np.ndarray


class Feed:
    """Reads one dataset in the row order of one pass after another.

    Args:
        dataset: where the rows are.
        columns: which columns are read.
        plan: the cut of a pass into steps and microbatches.
        seed: seed of the run.
        shuffle: ``"full"`` or False.
        reduction: how the loss reduces over rows.
    """

    def __init__(
        self, dataset: Dataset, columns: Columns, plan: BatchPlan, *, seed: int, shuffle: Shuffle, reduction: str
    ) -> None:
        self.plan, self.dataset = plan, dataset
        self._seed, self._shuffle, self._reduction = seed, shuffle, reduction
        self._reader = dataset.reader(columns.names)
        by_weight = reduction == "mean_with_sample_weight" and columns.sample_weight is not None
        self._weight_column = columns.sample_weight if by_weight else None
        self._weight_reader = dataset.reader([columns.sample_weight]) if columns.sample_weight and by_weight else None
        self._buffers: dict[tuple[int, int], dict[str, np.ndarray]] = {}
        self.start_pass(0)

    def start_pass(self, epoch: int) -> None:
        """Take the row order of `epoch`."""
        for reader in (self._reader, self._weight_reader):
            if reader is not None:
                reader.start_pass(seed=self._seed, epoch=epoch)
        self._order = RowOrder(num_rows=len(self.dataset), seed=self._seed, epoch=epoch, shuffle=self._shuffle)

    def row_ids(self, step: int, number: int) -> np.ndarray:
        """Row ids of one microbatch, int64."""
        return row_ids(self._order, self.plan, step, number)

    def read(self, step: int, numbers: Sequence[int]) -> list[Microbatch]:
        """The microbatches `numbers` of `step`; those without rows are left out."""
        start, stop = self.plan.step_rows(step)
        batch_weight = self._sum_of_weights(start, stop)
        found = []
        for slot, number in enumerate(numbers):
            ids = self.row_ids(step, number)
            if not ids.size:
                continue
            arrays = self._reader.gather(ids, self._buffer(slot, ids.size))
            weight = self._sum_of_weights(*self.plan.microbatch_rows(step, number))
            weights = microbatch_weights(self._reduction, ids.size, stop - start, weight, batch_weight)
            batch = {name: to_tensor(array) for name, array in arrays.items()}
            found.append(Microbatch(number=number, batch=batch, weights=weights))
        return found

    def close(self) -> None:
        """Unmap the shards."""
        self._reader.close()
        if self._weight_reader is not None:
            self._weight_reader.close()

    def _buffer(self, slot: int, rows: int) -> dict[str, np.ndarray]:
        key = (slot, rows)
        if key not in self._buffers:
            self._buffers[key] = {
                name: aligned_empty((rows, *column.shape), column.dtype)
                for name, column in self._reader.columns.items()
            }
        return self._buffers[key]

    def _sum_of_weights(self, start: int, stop: int) -> float:
        """Sum of the sample weights at positions [start, stop) of the pass; 0 where the reduction does not ask."""
        if self._weight_reader is None or self._weight_column is None:
            return 0.0
        rows = self._weight_reader.gather(self._order.rows(start, stop))
        return float(rows[self._weight_column].astype(np.float64).sum())


def to_tensor(array: np.ndarray) -> Any:
    """A tensor over the same memory; `array` must be aligned to 64 bytes and writable."""
    if array.dtype == np.bool_ or not array.size:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
