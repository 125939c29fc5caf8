"""A dataset as a plain `tf.data.Dataset`, for plain Keras and every other user of TensorFlow."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from heliostat.data.batches import batch_requests
from heliostat.data.columns import Column
from heliostat.data.dataset import Dataset
from heliostat.data.errors import PlanError, UnknownColumnError
from heliostat.data.order import RowOrder, Shuffle, checked_integer
from heliostat.data.plan import BatchPlan
from heliostat.data.prefetch import read_batches
from heliostat.data.view import chosen_columns

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

    def batch(iteration: Any) -> Any:
        found = _fetched(passes, iteration, schema, static_rows)
        return found if structure is None else tf.nest.map_structure(found.__getitem__, structure)

    # The generator costs 0.2 ms a time, so it gives one element per iteration rather than one per batch.
    result = iterations.flat_map(lambda iteration: tf.data.Dataset.range(num_batches).map(lambda _: batch(iteration)))
    return result.apply(tf.data.experimental.assert_cardinality(num_batches))


def _fetched(passes: _Passes, iteration: Any, schema: Mapping[str, Column], num_rows: int | None) -> dict[str, Any]:
    """The tensors of the next batch of an iteration, by column, in a graph."""
    import tensorflow as tf
    from heliostat.data.tensors import flat_tensors, tensor_spec

    specs = {name: tensor_spec(column, num_rows) for name, column in schema.items()}
    dtypes = [dtype for spec in specs.values() for dtype in _flat_dtypes(spec)]

    def fetch(number: Any) -> list[Any]:
        rows = passes.batch(int(number))
        return [tensor for name in schema for tensor in flat_tensors(rows[name])]

    flat = iter(tf.py_function(fetch, [iteration], dtypes))
    return {name: _joined(spec, flat) for name, spec in specs.items()}


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
    """The batches of one iteration; TensorFlow may end it from another thread than the one that takes batches."""

    def __init__(self, batches: Generator[dict[str, Any], None, None]) -> None:
        self._batches, self._lock = batches, threading.Lock()

    def next(self) -> dict[str, Any]:
        with self._lock:
            return next(self._batches)

    def close(self) -> None:
        with self._lock:
            self._batches.close()


class _Passes:
    """What iterations of the `tf.data.Dataset` share: which pass comes next, and the batches of running iterations.

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
        self._dataset, self._columns, self._batch_size = dataset, columns, batch_size
        self._shuffle, self._seed, self._epoch, self._epochs = shuffle, seed, epoch, epochs
        self._prefetch_bytes, self._num_threads = prefetch_bytes, num_threads
        self._numbers = itertools.count()
        self._running: dict[int, _Running] = {}

    def iteration(self) -> Iterator[int]:
        """Begin an iteration and give its number, once; as long as the generator lives, so does the iteration."""
        running = _Running(self._batches(self._epoch))
        number = next(self._numbers)
        self._running[number] = running
        try:
            yield number
        finally:
            del self._running[number]
            running.close()

    def batch(self, number: int) -> dict[str, Any]:
        """The next batch of a running iteration."""
        return self._running[number].next()

    def _batches(self, first_epoch: int) -> Generator[dict[str, Any], None, None]:
        for epoch in range(first_epoch, first_epoch + self._epochs):
            order = RowOrder(num_rows=len(self._dataset), seed=self._seed, epoch=epoch, shuffle=self._shuffle)
            source = read_batches(
                partial(self._dataset.pass_reader, self._columns, seed=self._seed, epoch=epoch),
                batch_requests(order, self._batch_size, self.num_steps),
                prefetch_bytes=self._prefetch_bytes,
                num_threads=self._num_threads,
            )
            with closing(source):
                for step, rows in enumerate(source):
                    if step == self.num_steps - 1:
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
