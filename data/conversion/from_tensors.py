"""The elements of a `tf.data.Dataset` as batches; TensorFlow is imported when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import BadColumnError, SourceError
from ..foreign.examples import is_text
from ..format.ragged import Ragged
from .batch_source import Batches, named_values

_ROWS_AT_ONCE = 1024
_ROW_BYTES = 1024  # of a row whose shape is not known


class TensorBatches:
    """Batches of the elements of a finite `tf.data.Dataset`, each a row or (`batched`) some rows.

    `num_rows` is None where it is not known before the end. Raises SourceError, BadColumnError.
    """

    def __init__(self, tf_dataset: Any, *, batched: bool, piece_bytes: int) -> None:  # a tf.data.Dataset
        import tensorflow as tf

        specs = _specs(tf_dataset)
        count = int(tf_dataset.cardinality())
        if count == tf.data.INFINITE_CARDINALITY:
            raise SourceError("The tf.data.Dataset is infinite; give one that ends, such as dataset.take(n).")
        self.num_rows = count if count >= 0 and not batched else None
        self._batches = tf_dataset if batched else _in_batches(tf_dataset, specs, piece_bytes)

    def __call__(self, first_row: int) -> Batches:
        """All batches: what is before `first_row` comes as well."""
        del first_row
        named = (named_values(_parts(element), 0) for element in self._elements())
        return 0, ({name: _values(name, tensor) for name, tensor in values.items()} for values in named)

    def _elements(self) -> Iterator[Any]:
        import tensorflow as tf

        try:
            yield from self._batches
        except tf.errors.InvalidArgumentError as error:
            if "Cannot batch tensors with different shapes" not in error.message:
                raise  # of the caller's own functions
            raise SourceError(
                "The tf.data.Dataset has elements whose shape is not known before they come, and they differ: give it "
                f"with tf.ensure_shape, None where it varies ({error.message.split('component')[-1].strip()})."
            ) from error


def _in_batches(tf_dataset: Any, specs: Mapping[str, Any], piece_bytes: int) -> Any:
    import tensorflow as tf

    is_ragged = any(isinstance(one, tf.RaggedTensorSpec) or not one.shape.is_fully_defined() for one in specs.values())
    row_bytes = sum(one.dtype.size * (one.shape.num_elements() or _ROW_BYTES) for one in specs.values())
    rows = max(1, min(_ROWS_AT_ONCE, piece_bytes // max(1, row_bytes)))
    return tf_dataset.ragged_batch(rows) if is_ragged else tf_dataset.batch(rows)


def _specs(tf_dataset: Any) -> Mapping[str, Any]:
    import tensorflow as tf

    specs = named_values(_parts(tf_dataset.element_spec), 0)
    for name, one in specs.items():
        if not isinstance(one, tf.TensorSpec | tf.RaggedTensorSpec):
            raise BadColumnError(
                f"Column {name!r} of the tf.data.Dataset is {type(one).__name__}; tensors and ragged tensors can be "
                "stored.",
                column=name,
            )
    return specs


def _parts(element: Any) -> tuple[Any, ...] | dict[str, Any]:
    return element if isinstance(element, tuple | dict) else (element,)


def _values(name: str, tensor: Any) -> Sized:
    """The rows of a tensor, exactly: an array, `Ragged`, or text or bytes as Arrow has them."""
    if hasattr(tensor, "row_splits"):
        if tensor.ragged_rank != 1:
            raise BadColumnError(
                f"Column {name!r} has {tensor.ragged_rank} ragged dimensions; a column has one.", column=name
            )
        return Ragged(tensor.values.numpy(), tensor.row_splits.numpy().astype(np.int64), "list")
    array = tensor.numpy()
    if array.dtype != object:
        return np.asarray(array)
    if array.ndim != 1:
        raise BadColumnError(
            f"Column {name!r} has texts of shape {array.shape[1:]} in a row; a row has one.", column=name
        )
    rows: list[bytes] = array.tolist()
    return pa.array(rows, pa.large_string() if all(map(is_text, rows)) else pa.large_binary())
