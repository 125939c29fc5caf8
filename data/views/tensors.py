"""Between the arrays of a batch and TensorFlow's tensors; the only module besides its users that imports TensorFlow.

On the way in memory is shared where TensorFlow can (DLPack, for numbers that begin at a multiple of 64 bytes, as all
arrays of readers do), on the way out where numpy can. A column of variable length is a `tf.RaggedTensor` or
`tf.string`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..format.columns import Column
from ..format.memory import ALIGNMENT_BYTES
from ..format.ragged import Ragged, Values

if TYPE_CHECKING:
    import tensorflow as tf

# TensorFlow shares memory of these; bool it takes for uint8.
_SHARED_KINDS = "iuf"


def to_tensor(values: Values) -> tf.Tensor | tf.RaggedTensor:
    """A tensor on the CPU: over the same memory where that is possible, so nobody may write to an array afterwards.

    A "list" column becomes a `tf.RaggedTensor`, text and bytes `tf.string`.
    """
    import tensorflow as tf

    with tf.device("CPU:0"):
        if not isinstance(values, Ragged):
            return _shared(values)
        if values.kind != "list":
            return tf.constant(_encoded(values), tf.string, shape=(len(values),))
        return tf.RaggedTensor.from_row_splits(_shared(values.values), _shared(values.row_splits), validate=False)


def flat_tensors(values: Values) -> list[Any]:
    """The same as plain tensors: values and row splits of a "list" column, else one."""
    tensor = to_tensor(values)
    return (
        [tensor]
        if hasattr(tensor, "numpy") and not hasattr(tensor, "row_splits")
        else [tensor.values, tensor.row_splits]
    )


def tensor_spec(column: Column, num_rows: int | None = None) -> tf.TypeSpec:
    """The `tf.TypeSpec` of a batch of a column."""
    import tensorflow as tf

    if column.kind in ("string", "bytes"):
        return tf.TensorSpec([num_rows], tf.string)
    dtype = tf.as_dtype(column.dtype)
    if column.kind == "list":
        return tf.RaggedTensorSpec([num_rows, None, *column.shape], dtype, ragged_rank=1, row_splits_dtype=tf.int64)
    return tf.TensorSpec([num_rows, *column.shape], dtype)


def from_tensor(tensor: Any) -> Any:
    """A tensor as an array, a list of bytes (text is told apart by the column), or `Ragged`."""
    if hasattr(tensor, "row_splits"):
        if tensor.ragged_rank != 1:
            raise ValueError(f"a ragged tensor of {tensor.ragged_rank} ragged dimensions; a column has one")
        return Ragged(tensor.values.numpy(), tensor.row_splits.numpy().astype(np.int64), "list")
    array = tensor.numpy() if hasattr(tensor, "numpy") else np.asarray(tensor)
    return list(array) if array.dtype == object else array


def row_graph(
    function: Callable[..., Any], columns: Mapping[str, Column], *, per_row: bool, random: bool
) -> Callable[..., Any]:
    """A user's function on tensors as one `tf.function`, traced once for any number of rows."""
    import tensorflow as tf

    specs: list[Any] = [{name: tensor_spec(column) for name, column in columns.items()}]
    if random:
        specs.append(tf.TensorSpec([None, 2], tf.int32))
    if not per_row:
        return tf.function(function, input_signature=specs)
    row_specs = [{name: _row_spec(spec) for name, spec in specs[0].items()}]
    if random:
        row_specs.append(tf.TensorSpec([2], tf.int32))
    traced = tf.function(function).get_concrete_function(*row_specs)
    signature = tf.nest.map_structure(_output_spec, traced.structured_outputs)

    def batch(*arguments: object) -> tf.Tensor:
        return tf.map_fn(lambda row: function(*row), arguments, fn_output_signature=signature)

    return tf.function(batch, input_signature=specs)


def call_graph(graph: Callable[..., Any], rows: Mapping[str, Values], seeds: npt.NDArray[np.int32] | None) -> Any:
    """What the graph returns for these rows, as arrays."""
    import tensorflow as tf

    arguments: list[Any] = [{name: to_tensor(values) for name, values in rows.items()}]
    if seeds is not None:
        arguments.append(tf.constant(seeds))
    with tf.device("CPU:0"):
        returned = graph(*arguments)
    if isinstance(returned, Mapping):
        return {name: from_tensor(tensor) for name, tensor in returned.items()}
    if isinstance(returned, tuple | list):
        return tuple(from_tensor(tensor) for tensor in returned)
    return from_tensor(returned)


def _shared(array: npt.NDArray[Any]) -> tf.Tensor:
    import tensorflow as tf

    shares = array.dtype.kind in _SHARED_KINDS and array.size and array.flags.c_contiguous and array.flags.writeable
    # TensorFlow ends the process when memory that it is handed is not aligned.
    if not shares or array.ctypes.data % ALIGNMENT_BYTES:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _encoded(values: Ragged) -> list[bytes]:
    return Ragged(values.values, values.row_splits, "bytes").to_list()


def _row_spec(spec: tf.TypeSpec) -> tf.TensorSpec:
    import tensorflow as tf

    return tf.TensorSpec(spec.shape[1:], spec.dtype)


def _output_spec(tensor: tf.Tensor) -> tf.TypeSpec:
    import tensorflow as tf

    if tensor.shape.rank is None or tensor.shape.is_fully_defined():
        return tf.TensorSpec(tensor.shape, tensor.dtype)
    if tensor.shape[0] is None and tensor.shape[1:].is_fully_defined():
        return tf.RaggedTensorSpec(tensor.shape, tensor.dtype, ragged_rank=0)
    raise ValueError(f"the shape {tensor.shape} of a row is not known; set it with tf.ensure_shape")
