"""A dataset as a plain `tf.data.Dataset`, for plain Keras and every other user of TensorFlow.

TensorFlow pays some 100 µs for every call of Python, more than gathering a batch of small rows takes. So a call returns
a block of several batches, which TensorFlow cuts: the blocks of a pass are `from_tensor_slices(steps)`, mapped by a
`py_function`, prefetched, and cut by `flat_map`. What is fetched is a function of (epoch, steps) alone, so nothing has
to be kept for an iteration. The last batch of a pass is a block of its own that is not prefetched: when it is fetched
all batches before it have been taken, and the pass counts as done. What cannot be read comes after what can: a block
that was cut short is followed by the batches that are missing, one by one, of which the first raises the error.

Not done: a generator (2 to 5 times slower, measured), and threads of our own beside those of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataset import Dataset
from ..errors import PlanError, UnknownColumnError
from ..format.columns import Column
from ..format.shards import Values
from ..order.order import RowOrder, Shuffle, checked_integer
from ..order.plan import BatchPlan
from ..read.batches import batches_together, gather_block
from ..read.reader import Reader
from .view import chosen_columns, row_bytes

if TYPE_CHECKING:
    import tensorflow as tf

ColumnChoice = str | Sequence[str] | Mapping[str, str]
"""A column, several of them (a tuple of tensors), or a dict of names to columns (a dict of tensors)."""

_BLOCK_BYTES = 4 << 20
_MAX_BATCHES = 32
_MAX_BLOCKS_AHEAD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TfOptions:
    """What `Dataset.tf` was asked for."""

    batch_size: int
    shuffle: Shuffle
    seed: int
    epoch: int
    epochs: int
    drop_remainder: bool
    prefetch_bytes: int
    num_threads: int


def tf_dataset(
    dataset: Dataset,
    options: TfOptions,
    *,
    columns: Sequence[str] | None,
    inputs: ColumnChoice | None,
    targets: ColumnChoice | None,
    sample_weight: str | None,
) -> tf.data.Dataset:
    """See `Dataset.tf`."""
    import tensorflow as tf

    structure = _structure(columns, inputs, targets, sample_weight)
    names = columns if structure is None else list(dict.fromkeys(tf.nest.flatten(structure)))
    passes = _Passes(dataset, chosen_columns(dataset, names), options)
    static_rows = options.batch_size if options.drop_remainder else None

    def batches(rows: Mapping[str, Any], num_rows: Any, epoch: Any, first: Any, last: Any) -> tf.data.Dataset:
        """The batches of a block; those of it that could not be read are asked for once more."""
        rows_each = tf.minimum(num_rows, options.batch_size) if static_rows is None else static_rows
        cut = {name: tf.reshape(values, [-1, rows_each, *values.shape[1:]]) for name, values in rows.items()}
        whole = tf.data.Dataset.from_tensor_slices(cut)
        missing = tf.data.Dataset.range(first + -(-num_rows // options.batch_size), last)
        return whole.concatenate(missing.map(lambda step: _fetched(passes, epoch, step, step + 1, static_rows)[0]))

    def one_pass(epoch: Any) -> tf.data.Dataset:
        steps = tf.data.Dataset.from_tensor_slices((passes.blocks[:-1, 0], passes.blocks[:-1, 1]))
        end = tf.data.Dataset.from_tensors((passes.blocks[-1, 0], passes.blocks[-1, 1]))

        def fetched(first: Any, last: Any) -> Any:
            if passes.batches_per_block == 1:
                return _fetched(passes, epoch, first, last, static_rows)[0]
            return *_fetched(passes, epoch, first, last, None), epoch, first, last

        parallel = {"num_parallel_calls": options.num_threads, "deterministic": True} if options.num_threads > 1 else {}
        blocks = steps.map(fetched, **parallel)
        if options.prefetch_bytes:
            blocks = blocks.prefetch(passes.blocks_ahead)
        whole = blocks.concatenate(end.map(fetched))
        return whole if passes.batches_per_block == 1 else whole.flat_map(batches)

    begun = tf.data.Dataset.range(1).map(lambda _: tf.py_function(lambda: passes.next_epoch, [], tf.int64))
    if options.epochs > 1:
        begun = begun.flat_map(lambda first: tf.data.Dataset.range(first, first + options.epochs))
    found = begun.flat_map(one_pass)
    if structure is not None:
        found = found.map(lambda rows: tf.nest.map_structure(rows.__getitem__, structure))
    num_batches = passes.num_steps * options.epochs
    return found.apply(tf.data.experimental.assert_cardinality(num_batches))


class _Passes:
    """Fetches the rows of blocks, for any iterations at once, and knows which pass comes next.

    A pass is done when its last batch was taken, so an iteration that is left early (to look at one batch, say) takes
    no pass away from the next one.
    """

    def __init__(self, dataset: Dataset, columns: Mapping[str, Column], options: TfOptions) -> None:
        self.columns, self._dataset, self._options = columns, dataset, options
        self.next_epoch = checked_integer("epoch", options.epoch, 0, 1 << 62)
        checked_integer("epochs", options.epochs, 1, 1 << 32)
        self._order(options.epoch)  # raises for bad arguments now
        self.num_steps = _num_steps(len(dataset), options)
        self._idle: list[tuple[int, Reader]] = []
        with dataset.reader(list(columns)) as reader:
            block_bytes = max(1, options.prefetch_bytes // 2 if options.prefetch_bytes else _BLOCK_BYTES)
            block_bytes, row = min(_BLOCK_BYTES, block_bytes), row_bytes(reader, len(dataset))
            together = min(_MAX_BATCHES, batches_together(reader, options.batch_size, row, block_bytes))
        self.blocks_ahead = max(1, min(_MAX_BLOCKS_AHEAD, options.prefetch_bytes // block_bytes))
        # Cutting ragged tensors takes longer than a call of Python.
        self.batches_per_block = each = 1 if any(column.kind == "list" for column in columns.values()) else together
        cuts = np.append(np.arange(0, self.num_steps - 1, each), [self.num_steps - 1, self.num_steps])
        self.blocks = np.stack([cuts[:-1], cuts[1:]], axis=1)

    def rows(self, epoch: int, first: int, last: int) -> tuple[Mapping[str, Values], int]:
        """The rows of the steps [first, last) of a pass, and how many there are: fewer if some cannot be read."""
        order, size = self._order(epoch), self._options.batch_size
        reader = self._reader(epoch)
        try:
            reader.prefetch(order, first * size)
            rows, num_rows = gather_block(reader, order.rows(first * size, min(last * size, order.num_rows)), size)
        except BaseException:
            reader.close()
            raise
        if last < self.num_steps:
            self._idle.append((epoch, reader))
        else:
            self.next_epoch = epoch + 1
            reader.close()
        return rows, num_rows

    def _order(self, epoch: int) -> RowOrder:
        options = self._options
        return RowOrder(num_rows=len(self._dataset), seed=options.seed, epoch=epoch, shuffle=options.shuffle)

    def _reader(self, epoch: int) -> Reader:
        """A reader that nobody else uses now."""
        try:
            idle_epoch, reader = self._idle.pop()
        except IndexError:
            return self._dataset.pass_reader(list(self.columns), seed=self._options.seed, epoch=epoch)
        if idle_epoch != epoch:
            reader.start_pass(seed=self._options.seed, epoch=epoch)
        return reader


def _fetched(passes: _Passes, epoch: Any, first: Any, last: Any, static_rows: int | None) -> tuple[dict[str, Any], Any]:
    """The tensors of some steps of a pass by column, and the number of their rows, in a graph."""
    import tensorflow as tf

    from .tensors import flat_tensors, tensor_spec

    specs = {name: tensor_spec(column, static_rows) for name, column in passes.columns.items()}
    dtypes = [dtype for spec in specs.values() for dtype in _flat_dtypes(spec)]

    def fetch(*numbers: Any) -> list[Any]:
        rows, num_rows = passes.rows(*map(int, numbers))
        return [np.int64(num_rows), *(tensor for name in specs for tensor in flat_tensors(rows[name]))]

    num_rows, *tensors = tf.py_function(fetch, [epoch, first, last], [tf.int64, *dtypes])
    flat = iter(tensors)
    return {name: _joined(spec, flat) for name, spec in specs.items()}, tf.ensure_shape(num_rows, [])


def _flat_dtypes(spec: Any) -> list[tf.DType]:
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


def _num_steps(num_rows: int, options: TfOptions) -> int:
    plan = BatchPlan(num_rows=num_rows, global_batch_size=options.batch_size, num_microbatches=1)
    num_steps = num_rows // options.batch_size if options.drop_remainder else plan.num_steps
    if not num_steps:
        raise PlanError(f"drop_remainder leaves no batch: {num_rows} rows do not fill one of {options.batch_size}.")
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
