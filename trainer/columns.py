"""Which columns of a dataset are the model's inputs, targets and sample weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from heliostat.data import Dataset, Ragged

from .class_weight import ClassWeights, row_weights
from .errors import ConfigurationError, DataError

if TYPE_CHECKING:
    import tensorflow as tf

Part: TypeAlias = "tf.Tensor | list[tf.Tensor] | dict[str, tf.Tensor]"
"""The inputs, the targets or the weights of a step, in the structure of the choice of columns."""

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
        sample_weight: the column of row weights, or one for each output (a list, or a dict output name -> column); None
            where all rows count alike, or as `class_weight` says.
        class_weight: what rows weigh by the class of their label; empty where it has no say.
        in_tuple: inputs alone come to a step as ``(x,)``, since they were given in a tuple.
    """

    inputs: ColumnChoice = "x"
    targets: ColumnChoice | None = "y"
    sample_weight: ColumnChoice | None = None
    class_weight: ClassWeights = ()
    in_tuple: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_weight", tuple((int(number), each) for number, each in self.class_weight))
        for argument in ("inputs", "targets", "sample_weight"):
            choice = getattr(self, argument)
            if choice is not None and not column_names(choice):
                raise ConfigurationError(
                    f"{argument}={choice!r} names no column. Give a column name, a list or a dict."
                )
        if self.class_weight:
            self._check_class_weight()

    @property
    def is_weighted(self) -> bool:
        """Whether rows have weights."""
        return self.sample_weight is not None or bool(self.class_weight)

    @property
    def names(self) -> tuple[str, ...]:
        """Every column that is read, each once, in a fixed order."""
        chosen = [*column_names(self.inputs), *column_names(self.targets), *column_names(self.sample_weight)]
        return tuple(dict.fromkeys(chosen))

    def assemble(self, batch: Mapping[str, tf.Tensor]) -> tuple[Part | None, Part | None, Part | None]:
        """``(x, y, sample_weight)`` as a Keras step takes them, from tensors by column name."""
        targets = _pick(self.targets, batch)
        weight = row_weights(targets, self.class_weight) if self.class_weight else _pick(self.sample_weight, batch)
        return _pick(self.inputs, batch), targets, weight

    def packed(self, x: Part | None, y: Part | None, sample_weight: Part | None) -> Part | tuple[Part | None, ...]:
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
            if kind == "list" or (kind != "tensor" and name not in column_names(self.inputs)):
                raise DataError(
                    f"Rows of column {name!r} of {dataset.name!r} differ in length ({kind}), and a model takes batches "
                    f"of one shape. Make them alike: {advice_on_rows(kind)}."
                )
        if self.class_weight and len(dataset.schema[str(self.targets)].shape) > 1:
            raise DataError(
                f"class_weight= weighs rows by their class, and a row of the column {self.targets!r} of "
                f"{dataset.name!r} has the shape {dataset.schema[str(self.targets)].shape}: many labels. Give "
                "sample_weight=, an array or a column of this shape."
            )

    def _check_class_weight(self) -> None:
        if self.sample_weight is not None:
            raise ConfigurationError(
                "class_weight= and sample_weight= do not go together, as in Keras: put into sample_weight the product "
                "of both, row by row."
            )
        if not isinstance(self.targets, str):
            raise ConfigurationError(
                f"class_weight= is for models with one output, as in Keras, and targets={self.targets!r}. Give "
                "sample_weight=, one array or column of weights for each output."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RowWeigher:
    """How much rows weigh together.

    Attributes:
        column: what tells it: weights, or the labels that `class_weight` weighs.
        class_weight: weights by class; empty where the column holds the weights themselves.
    """

    column: str
    class_weight: ClassWeights = ()

    def total(self, rows: np.ndarray) -> float:
        """The sum of the weights, given rows of the column."""
        weights = np.asarray(row_weights(rows, self.class_weight)) if self.class_weight else rows
        return float(weights.astype(np.float64).sum())


def row_weigher(columns: Columns) -> RowWeigher | None:
    """How much rows weigh that have one weight each; None where they have none.

    Raises:
        ConfigurationError: they have one for each output, and so more than one sum.
    """
    if columns.class_weight:
        return RowWeigher(column=str(columns.targets), class_weight=columns.class_weight)
    if columns.sample_weight is None:
        return None
    names = column_names(columns.sample_weight)
    if len(names) > 1:
        raise ConfigurationError(
            f"The loss reduces by 'mean_with_sample_weight', and sample_weight={columns.sample_weight!r} has other "
            "weights for each output, so a microbatch has more than one share of its batch. Give one column, or use "
            "the reduction 'sum_over_batch_size'."
        )
    return RowWeigher(column=names[0])


def advice_on_rows(kind: str) -> str:
    """What makes rows of one shape of those of a column of this kind."""
    return _REMEDIES[kind]


def with_texts(rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Rows as a reader gives them, texts and bytes as arrays of objects ``[rows]``, which TensorFlow takes."""
    return {name: _texts(each) if isinstance(each, Ragged) else each for name, each in rows.items()}


def _texts(rows: Ragged) -> np.ndarray:
    found = np.empty(len(rows), object)
    found[:] = rows.to_list()
    return found


def column_names(choice: ColumnChoice | None) -> list[str]:
    """The columns of a choice, in its order; one may be there twice."""
    if choice is None:
        return []
    if isinstance(choice, str):
        return [choice]
    return list(choice.values()) if isinstance(choice, Mapping) else list(choice)


def _pick(choice: ColumnChoice | None, batch: Mapping[str, tf.Tensor]) -> Part | None:
    if choice is None:
        return None
    if isinstance(choice, str):
        return batch[choice]
    if isinstance(choice, Mapping):
        return {name: batch[column] for name, column in choice.items()}
    return [batch[column] for column in choice]


def sample_rows(dataset: Dataset, columns: Columns, num_rows: int = 1) -> dict[str, np.ndarray]:
    """The first rows of a dataset, from which shapes and dtypes are told; texts and bytes are arrays of objects.

    Args:
        dataset: where they are.
        columns: which are read.
        num_rows: how many, if there are so many.

    Returns:
        Arrays ``[num_rows, ...]`` by column.
    """
    with dataset.reader(columns.names) as reader:
        return with_texts(reader.gather(np.arange(min(num_rows, len(dataset)), dtype=np.int64)))
