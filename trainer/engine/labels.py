"""Whether integer labels are classes of the model: at the start by what is known of them, else as rows are read.

TensorFlow would compute NaN or garbage from a label beyond the classes on a GPU, and stop in the middle of a run on a
CPU. Nothing is read to find out: the bounds of a stored column are in its manifest and hold for every selection of its
rows, and labels of which less is known (made by `map`, or selected from a column with more classes) are looked at in
every batch, which takes microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import keras
import numpy as np
from heliostat.data import Dataset

from ..columns import ColumnChoice, Columns
from ..errors import DataError

Outputs: TypeAlias = "keras.KerasTensor | list[keras.KerasTensor] | dict[str, keras.KerasTensor]"


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
    """Raise `DataError` when integer labels are known to lie outside the classes of an output with sparse labels."""
    for found in _labels(model, dataset, columns):
        known = dataset.bounds.get(found.column)
        if known is None or not dataset.bounds_are_reached:
            continue
        if known.min < 0 or known.max >= found.classes:
            raise DataError(
                f"The labels in column {found.column!r} of {dataset.name!r} range from {known.min} to {known.max}, and "
                f"the model's output has {found.classes} classes (0 to {found.classes - 1}). Give the last layer as "
                "many units as there are classes, or renumber the labels."
            )


def check_targets(model: keras.Model, columns: Columns) -> None:
    """Raise `DataError` for a list of targets beside a dict of outputs: which is which nobody has said.

    A model with a `train_step` of its own may do with them what it likes.
    """
    outputs = _structure(model)
    is_list = columns.targets is not None and not isinstance(columns.targets, (str, Mapping))
    if is_list and isinstance(outputs, Mapping) and type(model).train_step is keras.Model.train_step:
        keys = ", ".join(f"{name!r}: ..." for name in outputs)
        raise DataError(
            f"The targets are a list of {len(columns.targets or ())}, and the model's outputs are a dict: "
            f"{list(outputs)}. Give the targets as a dict with these keys: {{{keys}}}."
        )


def labels_to_check(model: keras.Model, dataset: Dataset, columns: Columns) -> tuple[LabelRange, ...]:
    """The labels that must be looked at when they are read; none where they are known to be classes, or are none."""
    bounds = dataset.bounds

    def is_known(found: LabelRange) -> bool:
        known = bounds.get(found.column)
        return known is not None and known.min >= 0 and known.max < found.classes

    return tuple(found for found in _labels(model, dataset, columns) if not is_known(found))


def _labels(model: keras.Model, dataset: Dataset, columns: Columns) -> Iterator[LabelRange]:
    """The columns that hold the labels of outputs with sparse labels."""
    for column, loss, shape in _outputs(model, columns.targets):
        if (classes := _num_classes(loss, shape)) is not None:
            yield LabelRange(dataset=dataset.name, column=column, classes=classes)


def _outputs(model: keras.Model, targets: ColumnChoice | None) -> Iterator[tuple[str, object, object]]:
    """The column of targets, the compiled loss, and the shape of every output that has all three.

    Outputs, losses and targets are each one, or a list, or a dict by name, as Keras takes them.
    """
    outputs, losses = _structure(model), model.loss
    if outputs is None or targets is None:
        return
    if not isinstance(outputs, (Mapping, list, tuple)):
        targets = list(targets.values()) if isinstance(targets, Mapping) else targets
        losses = list(losses.values()) if isinstance(losses, Mapping) else losses
        column, loss = _only(targets), _only(losses)
        if isinstance(column, str):
            yield column, loss, tuple(outputs.shape)
        return
    names = list(outputs) if isinstance(outputs, Mapping) else list(getattr(model, "output_names", ()))
    tensors = outputs.values() if isinstance(outputs, Mapping) else outputs
    for place, (name, tensor) in enumerate(zip(names, tensors, strict=False)):
        column, loss = _part(targets, name, place), _part(losses, name, place)
        if isinstance(column, str) and not isinstance(targets, str):
            yield column, loss, tuple(tensor.shape)


def _structure(model: keras.Model) -> Outputs | None:
    """The model's outputs as it was made with them; None where it does not tell them."""
    try:
        found = model.output
    except (AttributeError, ValueError):  # a sequence of layers tells a list alone, a subclass nothing
        found = getattr(model, "outputs", None)
    return found[0] if isinstance(found, (list, tuple)) and len(found) == 1 else found


def _only(value: object) -> object:
    """What a list of one holds; of several nothing."""
    return value if not isinstance(value, (list, tuple)) else value[0] if len(value) == 1 else None


def _part(value: object, name: str, place: int) -> object:
    """That of one output; None without."""
    if isinstance(value, Mapping):
        return value.get(name)
    if isinstance(value, (list, tuple)):
        return value[place] if place < len(value) else None
    return value


def _num_classes(loss: object, shape: object) -> int | None:
    """Size of an output's last axis, if its labels are sparse."""
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    if name.replace("_", "").lower() != "sparsecategoricalcrossentropy":
        return None
    if getattr(loss, "ignore_class", None) is not None:
        return None
    return int(shape[-1]) if isinstance(shape, tuple) and shape and isinstance(shape[-1], int) else None
