"""Which columns of a dataset are the model's inputs, targets and sample weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from heliostat.data import Dataset

from .errors import ConfigurationError, DataError

_REMEDIES = {
    "list": "dataset.pad(column, length)",
    "string": "dataset.vectorize(column, fit_preprocessing(dataset, column, keras.layers.TextVectorization(...)))",
    "bytes": "dataset.decode(column, size) if they are images, else dataset.map(function, ...)",
}

ColumnChoice = str | Sequence[str] | Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns a model is fed with.

    Attributes:
        inputs: a column name, a list of names (a model with several inputs), or a dict input name -> column.
        targets: likewise, or None when there are none (predict).
        sample_weight: the column of row weights, or None.
        in_tuple: inputs alone come to a step as ``(x,)``, since they were given in a tuple.
    """

    inputs: ColumnChoice = "x"
    targets: ColumnChoice | None = "y"
    sample_weight: str | None = None
    in_tuple: bool = False

    def __post_init__(self) -> None:
        for argument, choice in (("inputs", self.inputs), ("targets", self.targets)):
            if choice is not None and not _names(choice):
                raise ConfigurationError(
                    f"{argument}={choice!r} names no column. Give a column name, a list or a dict."
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Every column that is read, each once, in a fixed order."""
        chosen = [*_names(self.inputs), *_names(self.targets)]
        if self.sample_weight is not None:
            chosen.append(self.sample_weight)
        return tuple(dict.fromkeys(chosen))

    def assemble(self, batch: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """``(x, y, sample_weight)`` as a Keras step takes them, from tensors by column name."""
        weight = None if self.sample_weight is None else batch[self.sample_weight]
        return _pick(self.inputs, batch), _pick(self.targets, batch), weight

    def packed(self, x: Any, y: Any, sample_weight: Any) -> Any:
        """What a step of Keras gets: ``x``, ``(x, y)`` or ``(x, y, sample_weight)``; lists become tuples, as there."""
        parts = [tuple(part) if isinstance(part, list) else part for part in (x, y, sample_weight)]
        while len(parts) > 1 and parts[-1] is None:
            del parts[-1]
        alone = len(parts) == 1 and not self.in_tuple and not isinstance(parts[0], tuple)
        return parts[0] if alone else tuple(parts)

    def check(self, dataset: Dataset) -> None:
        """Raise `DataError` when `dataset` lacks one of the columns, or rows of one differ in length."""
        missing = [name for name in self.names if name not in dataset.schema]
        if missing:
            raise DataError(
                f"The dataset {dataset.name!r} has no column {', '.join(map(repr, missing))}; it has "
                f"{', '.join(map(repr, dataset.schema))}. Name the columns with inputs=, targets= and sample_weight=."
            )
        for name in self.names:
            kind = dataset.schema[name].kind
            if kind != "tensor":
                raise DataError(
                    f"Rows of column {name!r} of {dataset.name!r} differ in length ({kind}), and a model takes batches "
                    f"of one shape. Make them alike: {_REMEDIES[kind]}."
                )
        if self.sample_weight is not None and dataset.schema[self.sample_weight].shape:
            raise DataError(
                f"The sample_weight column {self.sample_weight!r} of {dataset.name!r} has the shape "
                f"{dataset.schema[self.sample_weight].shape} per row; row weights are one number per row."
            )


def _names(choice: ColumnChoice | None) -> list[str]:
    if choice is None:
        return []
    if isinstance(choice, str):
        return [choice]
    return list(choice.values()) if isinstance(choice, Mapping) else list(choice)


def _pick(choice: ColumnChoice | None, batch: Mapping[str, Any]) -> Any:
    if choice is None:
        return None
    if isinstance(choice, str):
        return batch[choice]
    if isinstance(choice, Mapping):
        return {name: batch[column] for name, column in choice.items()}
    return [batch[column] for column in choice]


def sample_rows(dataset: Dataset, columns: Columns, num_rows: int = 1) -> dict[str, np.ndarray]:
    """The first rows of a dataset, from which shapes and dtypes are told.

    Args:
        dataset: where they are.
        columns: which are read.
        num_rows: how many, if there are so many.

    Returns:
        Arrays ``[num_rows, ...]`` by column.
    """
    with dataset.reader(columns.names) as reader:
        return reader.gather(np.arange(min(num_rows, len(dataset)), dtype=np.int64))
