"""A dataset as a plain `tf.data.Dataset`, for plain Keras and every other user of TensorFlow."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from ..dataset import Dataset
from ..errors import PlanError, UnknownColumnError
from ..format.columns import Column
from ..order.order import RowOrder, Shuffle, checked_integer
from ..order.plan import BatchPlan
from .tf_blocks import BlockSize, read_blocks
from .view import chosen_columns

ColumnChoice = str | Sequence[str] | Mapping[str, str]
"""A column, several of them (a tuple of tensors), or a dict of names to columns (a dict of tensors)."""


def tf_dataset(
    dataset: Dataset,
    batch_size: int,
    *,
    shuffle: Shuffle,
    seed: int,
    epoch: int,
    epochs: int,
    columns: Sequence[str] | None,
    inputs: ColumnChoice | None,
    targets: ColumnChoice | None,
    sample_weight: str | None,
    drop_remainder: bool,
    prefetch_bytes: int,
    num_threads: int,
) -> Any:
    """See `Dataset.tf`."""
    import tensorflow as tf

    structure = _structure(columns, inputs, targets, sample_weight)
    names = columns if structure is None else list(dict.fromkeys(tf.nest.flatten(structure)))
    schema = chosen_columns(dataset, names)
    passes = _Passes(
        dataset,
        list(schema),
        _num_steps(len(dataset), batch_size, drop_remainder=drop_remainder),
        batch_size,
        shuffle=shuffle,
        seed=seed,
        epoch=checked_integer("epoch", epoch, 0, 1 << 62),
        epochs=checked_integer("epochs", epochs, 1, 1 << 32),
        prefetch_bytes=prefetch_bytes,
        num_threads=num_threads,
    )
    iterations = tf.data.Dataset.from_generator(passes.iteration, output_signature=tf.TensorSpec([], tf.int64))
    num_batches, static_rows = passes.num_steps * epochs, batch_size if drop_remainder else None

    def batches(num_rows: Any, block: Mapping[str, Any]) -> Any:
        """The batches of a block, whose rows are those of whole batches, or of one short one."""
        rows_each = tf.minimum(num_rows, batch_size) if static_rows is None else static_rows

        def structured(found: Mapping[str, Any]) -> Any:
            return found if structure is None else tf.nest.map_structure(found.__getitem__, structure)

        if any(isinstance(values, tf.RaggedTensor) for values in block.values()):
            numbers = tf.data.Dataset.range(num_rows // rows_each)
            return numbers.map(
                lambda number: structured(
                    _cut(block, schema, number * tf.cast(rows_each, tf.int64), rows_each, static_rows)
                )
            )
        # A quarter of the time of a function that cuts.
        cut = {name: tf.reshape(values, [-1, rows_each, *values.shape[1:]]) for name, values in block.items()}
        return tf.data.Dataset.from_tensor_slices(structured(cut))

    def iterate(iteration: Any) -> Any:
        # There are fewer blocks than batches; the one after the last has no rows.
        blocks = tf.data.Dataset.range(num_batches + 1).map(lambda _: _fetched(passes, iteration, schema))
        return blocks.take_while(lambda num_rows, _: num_rows > 0).flat_map(batches)

    # A generator costs 0.2 ms a time, and calling Python as much again: one element per iteration, several batches per
    # call.
    return iterations.flat_map(iterate).apply(tf.data.experimental.assert_cardinality(num_batches))


def _fetched(passes: _Passes, iteration: Any, schema: Mapping[str, Column]) -> tuple[Any, dict[str, Any]]:
    """The number of rows and the tensors of the next block of an iteration, by column, in a graph."""
    import tensorflow as tf

    from .tensors import flat_tensors, tensor_spec

    specs = {name: tensor_spec(column) for name, column in schema.items()}
    dtypes = [dtype for spec in specs.values() for dtype in _flat_dtypes(spec)]

    def fetch(number: Any) -> list[Any]:
        rows = passes.block(int(number))
        if rows is None:
            return [np.int64(0), *(tensor for spec in specs.values() for tensor in _no_rows(spec))]
        return [np.int64(len(next(iter(rows.values())))), *(t for name in schema for t in flat_tensors(rows[name]))]

    num_rows, *tensors = tf.py_function(fetch, [iteration], [tf.int64, *dtypes])
    flat = iter(tensors)
    return tf.ensure_shape(num_rows, []), {name: _joined(spec, flat) for name, spec in specs.items()}


def _cut(
    block: Mapping[str, Any], schema: Mapping[str, Column], low: Any, num_rows: Any, static_rows: int | None
) -> dict[str, Any]:
    """Some rows of a block with columns of variable length, in a graph."""
    import tensorflow as tf

    from .tensors import tensor_spec

    high, found = low + tf.cast(num_rows, tf.int64), {}
    for name, column in schema.items():
        spec, values = tensor_spec(column, static_rows), block[name]
        if isinstance(spec, tf.RaggedTensorSpec):
            splits = values.row_splits[low : high + 1]
            found[name] = _joined(spec, iter((values.values[splits[0] : splits[-1]], splits - splits[0])))
        else:
            found[name] = tf.ensure_shape(values[low:high], spec.shape)
    return found


def _no_rows(spec: Any) -> list[Any]:
    """The plain tensors of a column without rows."""
    import tensorflow as tf

    if isinstance(spec, tf.RaggedTensorSpec):
        return [tf.zeros([0, *spec.shape[2:]], spec.dtype), tf.zeros([1], tf.int64)]
    return [tf.zeros([0, *spec.shape[1:]], spec.dtype)]


def _flat_dtypes(spec: Any) -> list[Any]:
    import tensorflow as tf

    return [spec.dtype, tf.int64] if isinstance(spec, tf.RaggedTensorSpec) else [spec.dtype]


def _joined(spec: Any, flat: Iterator[Any]) -> Any:
    """The next tensor or ragged tensor of plain ones, with its static shape."""
    import tensorflow as tf

    values = next(flat)
    if not isinstance(spec, tf.RaggedTensorSpec):
        return tf.ensure_shape(values, spec.shape)
    splits = tf.ensure_shape(next(flat), [None if spec.shape[0] is None else spec.shape[0] + 1])
    values = tf.ensure_shape(values, [None, *spec.shape[2:]])
    return tf.RaggedTensor.from_row_splits(values, splits, validate=False)


class _Running:
    """The blocks of one iteration; TensorFlow may end it from another thread than the one that takes them."""

    def __init__(self, blocks: Generator[dict[str, Any], None, None]) -> None:
        self._blocks, self._lock = blocks, threading.Lock()

    def next(self) -> dict[str, Any] | None:
        with self._lock:
            return next(self._blocks, None)

    def close(self) -> None:
        with self._lock:
            self._blocks.close()


class _Passes:
    """What iterations of the `tf.data.Dataset` share: which pass comes next, and the blocks of running iterations.

    A pass is done when its last batch was taken, so an iteration that is left early (to look at one batch, say) takes
    no pass away from the next one.
    """

    def __init__(
        self,
        dataset: Dataset,
        columns: Sequence[str],
        num_steps: int,
        batch_size: int,
        *,
        shuffle: Shuffle,
        seed: int,
        epoch: int,
        epochs: int,
        prefetch_bytes: int,
        num_threads: int,
    ) -> None:
        RowOrder(num_rows=len(dataset), seed=seed, epoch=epoch, shuffle=shuffle)  # raises for bad arguments now
        self.num_steps = num_steps
        self._dataset, self._columns, self._batch_size = dataset, list(columns), batch_size
        self._shuffle, self._seed, self._epoch, self._epochs = shuffle, seed, epoch, epochs
        self._prefetch_bytes, self._num_threads = prefetch_bytes, num_threads
        self._numbers = itertools.count()
        self._running: dict[int, _Running] = {}

    def iteration(self) -> Iterator[int]:
        """Begin an iteration and give its number, once; as long as the generator lives, so does the iteration."""
        running = _Running(self._blocks(self._epoch))
        number = next(self._numbers)
        self._running[number] = running
        try:
            yield number
        finally:
            del self._running[number]
            running.close()

    def block(self, number: int) -> dict[str, Any] | None:
        """The next block of a running iteration; None after the last one."""
        return self._running[number].next()

    def _blocks(self, first_epoch: int) -> Generator[dict[str, Any], None, None]:
        size = BlockSize(self._batch_size, self._prefetch_bytes)
        for epoch in range(first_epoch, first_epoch + self._epochs):
            order = RowOrder(num_rows=len(self._dataset), seed=self._seed, epoch=epoch, shuffle=self._shuffle)
            blocks = read_blocks(
                self._dataset,
                self._columns,
                order,
                self.num_steps,
                size,
                prefetch_bytes=self._prefetch_bytes,
                num_threads=self._num_threads,
            )
            num_rows, all_rows = 0, min(self.num_steps * self._batch_size, len(self._dataset))
            with closing(blocks):
                for rows in blocks:
                    num_rows += len(next(iter(rows.values())))
                    if num_rows == all_rows:
                        self._epoch = epoch + 1
                    yield rows


def _num_steps(num_rows: int, batch_size: int, *, drop_remainder: bool) -> int:
    plan = BatchPlan(num_rows=num_rows, global_batch_size=batch_size, num_microbatches=1)
    num_steps = num_rows // batch_size if drop_remainder else plan.num_steps
    if not num_steps:
        raise PlanError(f"drop_remainder leaves no batch: {num_rows} rows do not fill one of {batch_size}.")
    return num_steps


def _structure(
    columns: Sequence[str] | None,
    inputs: ColumnChoice | None,
    targets: ColumnChoice | None,
    sample_weight: str | None,
) -> Any:
    """Nested tuples and dicts of column names as Keras takes their tensors, or None for a dict of all columns."""
    if inputs is None:
        if targets is not None or sample_weight is not None:
            raise PlanError("targets and sample_weight need inputs: without it, elements are dicts by column.")
        return None
    if columns is not None:
        raise PlanError("Give either columns (elements are dicts) or inputs (elements are tuples), not both.")
    if sample_weight is not None and targets is None:
        raise PlanError("sample_weight needs targets: Keras takes (inputs, targets, sample_weight).")
    parts = [_choice(part) for part in (inputs, targets, sample_weight) if part is not None]
    return tuple(parts)


def _choice(choice: ColumnChoice) -> Any:
    if isinstance(choice, str):
        return choice
    if not choice:
        raise UnknownColumnError(f"{choice!r} names no column.")
    return dict(choice) if isinstance(choice, Mapping) else tuple(choice)
