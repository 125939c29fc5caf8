"""Whether integer labels are classes of the model: at the start by what is known of them, else as rows are read.

TensorFlow would compute NaN or garbage from a label beyond the classes on a GPU, and stop in the middle of a run on a
CPU. Nothing is read to find out: the bounds of a stored column are in its manifest and hold for every selection of its
rows, and labels of which less is known (made by `map`, or selected from a column with more classes) are looked at in
every batch, which takes microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from heliostat.data import Dataset

from ..columns import Columns
from ..errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRange:
    """Labels of a column that must be classes.

    Attributes:
        dataset: its name, for messages.
        column: where the labels are.
        classes: how many there are.
    """

    dataset: str
    column: str
    classes: int

    def check(self, labels: np.ndarray, row_ids: np.ndarray) -> None:
        """Raise `DataError` that names the first of some rows whose label is no class."""
        if labels.size and (labels.min() < 0 or labels.max() >= self.classes):
            is_bad = ((labels < 0) | (labels >= self.classes)).reshape(len(labels), -1)
            place = int(np.argmax(is_bad.any(axis=1)))
            label = labels.reshape(len(labels), -1)[place][is_bad[place]][0]
            raise DataError(
                f"The label in column {self.column!r} of row {row_ids[place]} of {self.dataset!r} is {label}, and the "
                f"model's output has {self.classes} classes (0 to {self.classes - 1}). Give the last layer as many "
                "units as there are classes, or renumber the labels."
            )


def check_label_range(model: keras.Model, dataset: Dataset, columns: Columns) -> None:
    """Raise `DataError` when integer labels are known to lie outside the classes of a model with sparse labels."""
    found = _labels(model, dataset, columns)
    known = None if found is None else dataset.bounds.get(found.column)
    if found is None or known is None or not dataset.bounds_are_reached:
        return
    if known.min < 0 or known.max >= found.classes:
        raise DataError(
            f"The labels in column {found.column!r} of {dataset.name!r} range from {known.min} to {known.max}, and the "
            f"model's output has {found.classes} classes (0 to {found.classes - 1}). Give the last layer as many units "
            "as there are classes, or renumber the labels."
        )


def labels_to_check(model: keras.Model, dataset: Dataset, columns: Columns) -> LabelRange | None:
    """The labels that must be looked at when they are read; None where they are known to be classes, or are none."""
    found = _labels(model, dataset, columns)
    known = None if found is None else dataset.bounds.get(found.column)
    if found is None or (known is not None and known.min >= 0 and known.max < found.classes):
        return None
    return found


def _labels(model: keras.Model, dataset: Dataset, columns: Columns) -> LabelRange | None:
    classes = _num_classes(model)
    if classes is None or not isinstance(columns.targets, str):
        return None
    return LabelRange(dataset=dataset.name, column=columns.targets, classes=classes)


def _num_classes(model: keras.Model) -> int | None:
    """Size of the output's last axis, for a model with one output and sparse labels."""
    loss = model.loss if isinstance(model.loss, str) else type(model.loss).__name__
    if loss.replace("_", "").lower() != "sparsecategoricalcrossentropy":
        return None
    if getattr(model.loss, "ignore_class", None) is not None:
        return None
    shape = getattr(model, "output_shape", None)
    return int(shape[-1]) if isinstance(shape, tuple) and shape and isinstance(shape[-1], int) else None
