"""How well a shuffle mixes the classes of a dataset as it is stored.

A window shuffle draws each batch from some blocks of neighbours. Whether that is enough depends on how rows are
stored, and on nothing that can be seen from outside: sorted by class it is bad, else as good as a full shuffle. So the
classes of its batches are counted and compared with what a draw at random would give (chi² per degree of freedom: 1 is
chance). Only labels are read; rows are not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..dataset import Dataset
from ..errors import SelectionError
from ..order.order import RowOrder, Shuffle
from ..order.plan import BatchPlan
from .view import chosen_columns

_SCAN_ROWS = 1 << 16
_MAX_CLASSES = 1000
_MAX_BATCHES = 512


def shuffle_quality(
    dataset: Dataset,
    column: str,
    shuffle: Shuffle = "full",
    *,
    batch_size: int = 1024,
    seed: int = 0,
    epoch: int = 0,
) -> float:
    """Mean chi² per degree of freedom of the class counts of batches, against those of the whole dataset.

    1 is what batches drawn at random have; above it, batches are of fewer classes than they should be, up to the size
    of a batch. Reads the integer or bool label column once (or what of it up to 512 batches need). Raises
    SelectionError for a column that holds no classes, PlanError.
    """
    labels = _labels(dataset, column)
    order = RowOrder(num_rows=len(labels), seed=seed, epoch=epoch, shuffle=shuffle)
    plan = BatchPlan(num_rows=len(labels), global_batch_size=batch_size, num_microbatches=1)
    num_full = len(labels) // batch_size
    steps = np.unique(np.linspace(0, num_full - 1, min(num_full, _MAX_BATCHES)).astype(np.int64)).tolist()
    return chi_squared(labels, [order.rows(*plan.step_rows(step)) for step in steps], column)


def chi_squared(labels: npt.NDArray[np.int64], batches: list[npt.NDArray[np.int64]], column: str) -> float:
    """Mean chi² per degree of freedom of full batches of row ids, for class numbers from 0 on [rows]."""
    totals = np.bincount(labels)
    num_rows, batch_size = len(labels), len(batches[0]) if batches else 0
    if len(totals) < 2 or not 1 <= batch_size < num_rows:
        raise SelectionError(
            f"How well classes are mixed cannot be told from {len(totals)} classes in column {column!r}, {num_rows} "
            f"rows and batches of {batch_size}: there must be two classes and two batches.",
            column=column,
        )
    counts = np.stack([np.bincount(labels[ids], minlength=len(totals)) for ids in batches])
    expected = totals * batch_size / num_rows
    figures = ((counts - expected) ** 2 / expected).sum(1) / (len(totals) - 1)
    # A batch is drawn without putting rows back, so its counts vary less.
    return float(figures.mean() * (num_rows - 1) / (num_rows - batch_size))


def _labels(dataset: Dataset, column: str) -> npt.NDArray[np.int64]:
    described = chosen_columns(dataset, [column])[column]
    if described.is_variable or described.shape or described.dtype.kind not in "biu":
        raise SelectionError(
            f"Column {column!r} of {dataset.name} holds no classes: it is {described.kind} {described.dtype} "
            f"{described.shape}; classes are one integer or bool per row.",
            path=dataset.name,
            column=column,
        )
    parts = [batch[column] for batch in dataset.batches(_SCAN_ROWS, shuffle=False, columns=[column])]
    values, labels = np.unique(np.concatenate(parts), return_inverse=True)
    if len(values) > _MAX_CLASSES:
        raise SelectionError(
            f"Column {column!r} of {dataset.name} has {len(values):,} different values; {_MAX_CLASSES:,} classes at "
            "most are looked at.",
            path=dataset.name,
            column=column,
        )
    return labels.astype(np.int64)
