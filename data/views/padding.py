"""`pad`: a column of variable length as one of fixed shape.

A model that is traced once needs batches of one shape whatever rows they have, so the length is said beforehand, not
taken from each batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from ..dataset import Dataset
from ..errors import SelectionError, TransformError
from ..format.columns import Column
from ..format.exact import exactly
from ..format.ragged import Ragged, Values
from ..order.order import RowIds, checked_integer
from .transform import Transform, TransformedDataset
from .view import chosen_columns

Truncate = Literal["end", "start", "error"]


def padded(
    dataset: Dataset, column: str, length: int, *, value: float, truncate: Truncate, output: str | None
) -> Dataset:
    """See `Dataset.pad`."""
    source = chosen_columns(dataset, [column])[column]
    length = checked_integer("length", length, 1, 1 << 40)
    if not source.is_variable:
        raise SelectionError(
            f"{dataset.name}.pad: the rows of column {column!r} all have the shape {source.shape}; only columns of "
            "variable length are padded.",
            path=dataset.name,
            column=column,
        )
    if truncate not in get_args(Truncate):
        raise SelectionError(f'pad: truncate is {truncate!r}; it must be "end", "start" or "error".', column=column)
    if not _fits(value, source.dtype):
        raise SelectionError(f"pad: {value!r} is no value of the {source.dtype} column {column!r}.", column=column)
    change = PadTransform(source, length, value, truncate, output or column, dataset.name)
    return TransformedDataset(dataset, change, f"pad({column}, {length})")


class PadTransform(Transform):
    """Rows [length, *shape] of a column of variable length."""

    is_of_each_row = True

    def __init__(
        self, source: Column, length: int, value: float, truncate: Truncate, output: str, dataset_name: str
    ) -> None:
        self.inputs = (source.name,)
        self.outputs = {output: Column(name=output, dtype=source.dtype, shape=(length, *source.shape))}
        self._output, self._dataset_name = output, dataset_name
        self._length, self._value, self._truncate = length, value, truncate

    @property
    def content(self) -> object:  # noqa: D102
        return [self._length, self._value, self._truncate]

    def apply(  # noqa: D102
        self, rows: Mapping[str, Values], ids: RowIds, *, seed: int, epoch: int
    ) -> Mapping[str, Values]:
        source = rows[self.inputs[0]]
        if not isinstance(source, Ragged):
            raise TypeError(f"column {self.inputs[0]!r} is not of variable length")
        lengths = source.lengths
        if self._truncate == "error" and lengths.max() > self._length:
            place = int(np.argmax(lengths > self._length))
            raise TransformError(
                f"Row {ids[place]} of {self._dataset_name} has {lengths[place]} elements in column {self.inputs[0]!r}; "
                f'pad allows {self._length}. Give a larger length, or truncate="end" or "start".',
                column=self.inputs[0],
            )
        if self._truncate == "start":
            source = _last(source, self._length)
        return {self._output: source.padded(self._length, self._value)}


def _last(source: Ragged, length: int) -> Ragged:
    """Each row's last `length` elements at most."""
    ends, kept = source.row_splits[1:], np.minimum(source.lengths, length)
    splits = np.concatenate(([0], np.cumsum(kept)))
    places = np.repeat(ends - kept - splits[:-1], kept) + np.arange(splits[-1])
    return Ragged(source.values[places], splits, source.kind)


def _fits(value: float, dtype: np.dtype[Any]) -> bool:
    """Whether it could be stored: by the same rule, which rounds fractions and nothing else."""
    numbers = np.asarray(value).reshape(-1)
    return np.ndim(value) == 0 and numbers.dtype.kind in "biuf" and not exactly(numbers, dtype).wrong.size
