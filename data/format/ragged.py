"""Rows of different lengths, as a reader returns them: all values one after the other, and where each row begins.

This is what TensorFlow, Arrow and a shard's bytes have in common, so no row is ever an object: a batch of texts is two
arrays, whose memory TensorFlow takes as it is. numpy has no such array; its arrays of objects have a Python object for
each row and cannot be handed on, and `tf.RaggedTensor` would need TensorFlow in every process that reads. Whether the
numbers are bytes of text is the `kind`: a str is made only where somebody asks for one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .columns import ColumnKind
from .exact import exactly, why_wrong
from .memory import Runs, aligned_empty, copy_runs, splits_of


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Rows of a "list", "string" or "bytes" column.

    `values`, `[total, *shape]`, holds the elements of all rows (uint8 for text and bytes), `row_splits`, int64
    `[rows + 1]`, where each row begins and the last ends: the arguments of `tf.RaggedTensor.from_row_splits`.

    Example:
        >>> rows = Ragged.from_rows([[1, 2], [], [3]])
        >>> rows.lengths.tolist(), rows.row(2).tolist()
        ([2, 0, 1], [3])
    """

    values: npt.NDArray[Any]
    row_splits: npt.NDArray[np.int64]
    kind: ColumnKind = "list"

    def __len__(self) -> int:
        return len(self.row_splits) - 1

    def __repr__(self) -> str:
        shape = "".join(f", {size}" for size in self.values.shape[1:])
        return f"Ragged(kind={self.kind!r}, rows={len(self)}, values={self.values.dtype}[{len(self.values)}{shape}])"

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The number of elements of every row, int64 [rows]."""
        return np.diff(self.row_splits)

    @property
    def nbytes(self) -> int:
        """Bytes of values and row splits."""
        return self.values.nbytes + self.row_splits.nbytes

    def row(self, index: int) -> Any:
        """Row `index`: an array `[length, *shape]`, the str or bytes of a text or bytes column; raises IndexError."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"Row {index} was asked of {len(self)} rows.")
        place = index % len(self)
        part = self.values[self.row_splits[place] : self.row_splits[place + 1]]
        if self.kind == "list":
            return part
        return part.tobytes().decode() if self.kind == "string" else part.tobytes()

    def to_list(self) -> list[Any]:
        """All rows: nested lists of numbers, or str, or bytes."""
        if self.kind == "list":
            return [part.tolist() for part in np.split(self.values, self.row_splits[1:-1])] if len(self) else []
        data, ends = self.values.tobytes(), self.row_splits.tolist()
        parts = [data[low:high] for low, high in pairwise(ends)]
        return [part.decode() for part in parts] if self.kind == "string" else parts

    def padded(self, length: int, fill: Any = 0) -> npt.NDArray[Any]:
        """An aligned array `[rows, length, *shape]`: each row's first `length` elements, then `fill`."""
        out = aligned_empty((len(self), length, *self.values.shape[1:]), self.values.dtype)
        out.fill(fill)
        kept = np.minimum(self.lengths, length)
        places = np.arange(length) < kept[:, None]
        starts = self.row_splits[:-1] - np.concatenate(([0], np.cumsum(kept[:-1]))) if len(self) else kept
        out[places] = self.values[np.repeat(starts, kept) + np.arange(kept.sum())]
        return out

    def take(self, places: npt.ArrayLike) -> Self:
        """The rows at these places, in that order, in new aligned memory."""
        wanted = np.asarray(places, np.int64)
        starts, lengths = self.row_splits[:-1][wanted], self.lengths[wanted]
        row_splits = splits_of(lengths)
        values = aligned_empty((int(row_splits[-1]), *self.values.shape[1:]), self.values.dtype)
        if values.size:
            width = values.nbytes // len(values)
            source = np.ascontiguousarray(self.values).reshape(-1).view(np.uint8)
            copy_runs({0: source}, Runs(None, starts * width, lengths, width), row_splits, values)
        return type(self)(values, row_splits, self.kind)

    def slice(self, low: int, high: int) -> Self:
        """Rows `low` to `high` (not included), sharing the memory of the values, which then need not be aligned."""
        splits = self.row_splits[low : high + 1]
        return type(self)(self.values[splits[0] : splits[-1]], splits - splits[0], self.kind)

    @classmethod
    def concatenate(cls, parts: Sequence[Ragged]) -> Self:
        """The rows of all parts (at least one, equal in kind, dtype and shape), one part after the other."""
        values = [part.values[part.row_splits[0] : part.row_splits[-1]] for part in parts]
        return cls(_aligned(values), splits_of(np.concatenate([part.lengths for part in parts])), parts[0].kind)

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[Any],
        kind: ColumnKind = "list",
        dtype: npt.DTypeLike | None = None,
        shape: Sequence[int] = (),
    ) -> Self:
        """Rows given one by one: sequences or arrays `[length, *shape]`, or str, or bytes.

        Without `dtype` a list takes the dtype that all rows together need. Raises ValueError and TypeError for rows of
        another kind or shape.
        """
        if kind != "list":
            data = [row.encode() if kind == "string" else bytes(memoryview(row)) for row in rows]
            values = _aligned([np.frombuffer(b"".join(data), np.uint8)])
            return cls(values, splits_of(np.fromiter(map(len, data), np.int64, len(data))), kind)
        arrays = [_numbers(number, row) for number, row in enumerate(rows)]
        arrays = [array if array.size else array.reshape(0, *shape) for array in arrays]
        for number, array in enumerate(arrays):
            if array.shape[1:] != tuple(shape) or array.ndim == 0:
                raise ValueError(f"row {number} has shape {array.shape}; its elements should have shape {tuple(shape)}")
        dtypes = [array.dtype for array in arrays if array.size] or [np.dtype(np.float64)]
        found = np.result_type(*dtypes) if dtype is None else np.dtype(dtype)
        values = _aligned([np.empty((0, *shape), found), *(_cast(n, array, found) for n, array in enumerate(arrays))])
        return cls(values, splits_of(np.fromiter(map(len, arrays), np.int64, len(arrays))), kind)


Values = npt.NDArray[Any] | Ragged
"""Rows of one column: an array `[rows, *shape]`, or `Ragged` for a column of variable length."""


def _numbers(number: int, row: object) -> npt.NDArray[Any]:
    """A row as an array; raises TypeError for what are no numbers, ValueError for those that no dtype holds exactly."""
    array = np.asarray(row)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"row {number} has missing values, or such that are no numbers")
    if array.dtype.kind == "f" and not isinstance(row, np.ndarray):
        pairs = zip(np.asarray(row, object).reshape(-1), array.reshape(-1).tolist(), strict=True)
        if any(isinstance(one, int) and one != other for one, other in pairs):
            raise ValueError(f"row {number} has whole numbers beside others that no dtype holds together exactly")
    return array


def _cast(number: int, row: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    cast = exactly(row.reshape(-1), dtype)
    if cast.wrong.size:
        value = row.reshape(-1)[cast.wrong[0]].item()
        raise ValueError(f"row {number} has {value!r}, which {why_wrong(value, dtype)}")
    return cast.numbers.reshape(row.shape)


def _aligned(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    total, dtype = sum(map(len, parts)), np.result_type(*parts)
    return np.concatenate(parts, out=aligned_empty((total, *parts[0].shape[1:]), dtype))
