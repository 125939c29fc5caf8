"""The elements of a `tf.data.Dataset` as a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import BadColumnError, SourceError
from ..format.columns import Column
from ..format.ragged import Ragged
from .from_objects import named_columns
from .sources import Piece, Source, check_rows_came
from .table_columns import values_as

_ROWS_AT_ONCE = 1024


class TensorSource(Source):
    """Elements of a `tf.data.Dataset`, rows or (`batched`) batches of rows; see `from_tf_dataset`."""

    kind = name = "tf.data"

    def __init__(self, tf_dataset: Any, columns: Sequence[Column] | None, batched: bool) -> None:
        import tensorflow as tf

        self.columns = None if columns is None else tuple(columns)
        known = {column.name: column for column in columns or ()}
        self._text = {name: column for name, column in known.items() if column.kind in ("string", "bytes")}
        specs = self._specs(tf_dataset)
        self._row_specs = None if batched else specs
        count = int(tf_dataset.cardinality())
        if count == tf.data.INFINITE_CARDINALITY:
            raise SourceError("The tf.data.Dataset is infinite; give one that ends, such as dataset.take(n).")
        self._dataset = tf_dataset
        self.num_rows = count if count >= 0 and not batched else None

    def _specs(self, tf_dataset: Any) -> Mapping[str, Any]:
        import tensorflow as tf

        spec = tf_dataset.element_spec
        specs = named_columns(spec if isinstance(spec, tuple | dict) else (spec,), 0)
        for name, one in specs.items():
            if not isinstance(one, tf.TensorSpec | tf.RaggedTensorSpec):
                raise BadColumnError(
                    f"Column {name!r} of the tf.data.Dataset is {type(one).__name__}; tensors and ragged tensors can "
                    "be stored.",
                    column=name,
                )
        return specs

    def pieces(self, first_row: int = 0) -> Iterator[Piece]:  # noqa: D102
        row = 0
        for element in self._batches():
            named = named_columns(element if isinstance(element, tuple | dict) else (element,), row)
            rows = {name: self._values(name, tensor, row) for name, tensor in named.items()}
            count = len(next(iter(rows.values())))
            skipped = min(count, max(0, first_row - row))
            row += count
            if skipped < count:
                kept = {name: _from(values, skipped) for name, values in rows.items()} if skipped else rows
                yield Piece(kept, count - skipped, 0)
        check_rows_came("tf.data.Dataset", row, first_row)

    def _batches(self) -> Any:
        """The elements if they are batches, else batches of them."""
        import tensorflow as tf

        if self._row_specs is None:
            return self._dataset
        specs = self._row_specs.values()
        is_ragged = any(isinstance(one, tf.RaggedTensorSpec) or not one.shape.is_fully_defined() for one in specs)
        row_bytes = sum(one.dtype.size * (one.shape.num_elements() or 1024) for one in specs)
        rows = min(_ROWS_AT_ONCE, self.rows_per_piece(row_bytes))
        return self._dataset.ragged_batch(rows) if is_ragged else self._dataset.batch(rows)

    def _values(self, name: str, tensor: Any, row: int) -> Any:
        if hasattr(tensor, "row_splits"):
            if tensor.ragged_rank != 1:
                raise BadColumnError(
                    f"Column {name!r} has {tensor.ragged_rank} ragged dimensions; a column has one.", column=name
                )
            inner = tensor.values.numpy()
            return Ragged(inner, tensor.row_splits.numpy().astype(np.int64), "list")
        array = tensor.numpy()
        if array.dtype != object:
            return array
        if array.ndim != 1:
            raise BadColumnError(
                f"Column {name!r} has texts of shape {array.shape[1:]} in a row; a row has one.", column=name
            )
        encoded = pa.array(array.tolist(), pa.large_binary())
        if name not in self._text:
            self._text[name] = Column(name=name, dtype=np.dtype(np.uint8), kind=_kind_of(encoded))
        return values_as(self._text[name], encoded, first_row=row)


def _from(values: Any, low: int) -> Any:
    return values.slice(low, len(values)) if isinstance(values, Ragged) else values[low:]


def _kind_of(encoded: pa.Array) -> Any:
    try:
        encoded.cast(pa.large_string())
    except pa.ArrowInvalid:
        return "bytes"
    return "string"
