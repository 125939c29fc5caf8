"""From the row order to tensors: the rows of the microbatches that this worker computes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from heliostat.data import Dataset
from heliostat.data.format.memory import aligned_empty
from heliostat.data.order.order import RowOrder
from heliostat.data.order.plan import BatchPlan, row_ids
from heliostat.data.order.window import Shuffle
from heliostat.data.read.ahead import Ahead

from ..columns import Columns, row_weigher, with_texts
from .labels import LabelRange
from .layout import microbatch_weights
from .tensors import to_tensor

# Reading that is quicker than this is not worth handing to another thread.
AHEAD_S = 0.002

Arrays = dict[str, np.ndarray]
Rows = tuple[int, tuple[int, ...]]
"""A step and the microbatches of it that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Microbatch:
    """The rows of one microbatch, ready to be computed.

    Attributes:
        index: its place among the microbatches of the step.
        batch: tensors by column, views of the feed's buffers: valid until the feed is asked for the next step.
        weights: float64 ``[4]``, see `microbatch_weights`.
        is_first: whether those of the step before it have no rows.
    """

    index: int
    batch: Mapping[str, tf.Tensor]
    weights: np.ndarray
    is_first: bool


class Feed:
    """Reads one dataset in the row order of one pass after another.

    Where reading takes long (images are decoded, rows are mapped), the rows of the next step are read by a thread while
    this one is computed, as long as it is the same microbatches. That changes no row.

    Args:
        dataset: where the rows are.
        columns: which columns are read.
        plan: the cut of a pass into steps and microbatches.
        seed: seed of the run.
        shuffle: ``"full"``, ``"window"``, ``"window:ROWS"`` or False.
        reduction: how the loss reduces over rows.
        labels: those that are not known to be classes and are looked at as they come.
    """

    def __init__(
        self,
        dataset: Dataset,
        columns: Columns,
        plan: BatchPlan,
        *,
        seed: int,
        shuffle: Shuffle,
        reduction: str,
        labels: Sequence[LabelRange] = (),
    ) -> None:
        self.plan, self.dataset = plan, dataset
        self._seed, self._shuffle, self._reduction, self._labels = seed, shuffle, reduction, labels
        self._reader = dataset.reader(columns.names)
        self._weigh = row_weigher(columns) if reduction == "mean_with_sample_weight" else None
        self._weight_reader = None if self._weigh is None else dataset.reader([self._weigh.column])
        self._buffers: dict[tuple[int, int, int], Arrays] = {}
        self._ahead = Ahead(self._gather, name="heliostat-feed")
        self._told: Rows | None = None
        self._read_s = 0.0
        self._last: tuple[Rows, list[Microbatch]] | None = None
        self.start_pass(0)
        self._reads_ahead = False  # what warms up reads one step, and rows of the next may be gone, or never come

    def start_pass(self, epoch: int, part: int = 0) -> None:
        """Take the row order of pass `epoch`, from the first step of its part number `part` on."""
        self._ahead.settle()
        self._reads_ahead = True
        self.plan = self.plan.epoch(part)
        for reader in (self._reader, self._weight_reader):
            if reader is not None:
                reader.start_pass(seed=self._seed, epoch=epoch)
        self._order = RowOrder(num_rows=len(self.dataset), seed=self._seed, epoch=epoch, shuffle=self._shuffle)
        self._last = None

    def row_ids(self, step: int, index: int) -> np.ndarray:
        """Row ids of one microbatch, int64."""
        return row_ids(self._order, self.plan, step, index)

    def read(self, step: int, indices: Sequence[int]) -> list[Microbatch]:
        """The microbatches `indices` of `step`; those without rows are left out. What was read last is still there."""
        rows = step, tuple(indices)
        if self._last is not None and self._last[0] == rows:  # another phase of the step
            return self._last[1]
        start, stop = self.plan.step_rows(step)
        batch_weight = self._sum_of_weights(start, stop)
        here = self.plan.present(step)
        present = [index for index in indices if here[index]]
        gathered = self._take(step, present)
        if self._reads_ahead and self._read_s > AHEAD_S and step + 1 < self.plan.steps_here:
            next_here = self.plan.present(step + 1)
            self._told = step + 1, tuple(index for index in indices if next_here[index])
            self._ahead.prefetch([self._told])
        found = []
        for index, arrays in zip(present, gathered, strict=True):
            low, high = self.plan.microbatch_rows(step, index)
            weight = self._sum_of_weights(low, high)
            weights = microbatch_weights(self._reduction, high - low, stop - start, weight, batch_weight)
            batch = {name: to_tensor(array) for name, array in arrays.items()}
            is_first = index == here.index(True)
            found.append(Microbatch(index=index, batch=batch, weights=weights, is_first=is_first))
        self._last = rows, found
        return found

    def nonfinite_value(self, step: int, index: int) -> str:
        """The first value of a microbatch that is not finite, in words; empty if all are."""
        ids = self.row_ids(step, index)
        for name, values, is_bad in self._nonfinite_values(ids):
            if is_bad.any():
                place = int(np.argmax(is_bad.any(axis=1)))
                return (
                    f"column {name!r} of row {ids[place]} of {self.dataset.name!r} is {values[place][is_bad[place]][0]}"
                )
        return ""

    def nonfinite_rows(self, step: int, index: int) -> list[int]:
        """The ids of the rows of a microbatch that hold a value that is not finite; of all rows if none does."""
        ids = self.row_ids(step, index)
        is_bad = np.zeros(len(ids), bool)
        for _, _, bad_values in self._nonfinite_values(ids):
            is_bad |= bad_values.any(axis=1)
        found: list[int] = (ids[is_bad] if is_bad.any() else ids).tolist()
        return found

    def _nonfinite_values(self, ids: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """(name, values ``[rows, numbers]``, which are not finite) of every column of floating-point numbers."""
        with self.dataset.pass_reader(list(self._reader.columns), seed=self._seed, epoch=self._order.epoch) as reader:
            rows = reader.gather(ids)
        for name, found in rows.items():
            if isinstance(found, np.ndarray) and found.dtype.kind == "f":
                values = found.reshape(len(ids), -1)
                yield name, values, ~np.isfinite(values)

    def close(self) -> None:
        """Unmap the shards."""
        self._ahead.close()
        self._reader.close()
        if self._weight_reader is not None:
            self._weight_reader.close()

    def _take(self, step: int, indices: Sequence[int]) -> list[Arrays]:
        """The rows of these microbatches, read ahead or now; the error, if reading ahead had one."""
        rows = step, tuple(indices)
        if rows != self._told:  # a reader is for one thread at a time
            self._ahead.settle()
        return self._ahead.take(rows)

    def _gather(self, rows: Rows) -> list[Arrays]:
        began = time.perf_counter()
        step, indices = rows
        self._reader.prefetch(self._order, self.plan.step_rows(step)[0])
        found = []
        for position, index in enumerate(indices):
            ids = self.row_ids(step, index)
            # The step before still computes from its own buffers while this one is read ahead.
            found.append(with_texts(self._reader.gather(ids, self._buffer(step % 2, position, ids.size))))
            for labels in self._labels:
                labels.check(found[-1][labels.column], ids)
        self._read_s = time.perf_counter() - began
        return found

    def _buffer(self, parity: int, position: int, rows: int) -> Arrays:
        key = (parity, position, rows)
        if key not in self._buffers:
            self._buffers[key] = {
                name: aligned_empty((rows, *column.shape), column.dtype)
                for name, column in self._reader.columns.items()
                if not column.is_variable
            }
        return self._buffers[key]

    def _sum_of_weights(self, start: int, stop: int) -> float:
        """Sum of the sample weights at positions [start, stop) of the pass; 0 where the reduction does not ask."""
        if self._weight_reader is None or self._weigh is None:
            return 0.0
        rows = self._weight_reader.gather(self._order.rows(start, stop))
        return self._weigh.total(rows[self._weigh.column])
