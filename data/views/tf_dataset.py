"""A dataset as a plain `tf.data.Dataset`, for plain Keras and every other user of TensorFlow.

What a pipeline of TensorFlow costs beside its rows is paid three times: for every call of Python (some 100 µs, more
than gathering a batch of small rows), for every element (little), and for every nested dataset or function when an
iteration begins (some 20 ms each, which is a short pass). So this is one `scan` of the steps whose only function calls
Python and returns the rows, prefetched; in a long pass of small batches a call returns a block of several, which
`unbatch` cuts.

Which pass an iteration is comes out of that scan, too: its state is -1 until the first call has said it, so that
iterations know of nobody but themselves. A pass counts as done when its last batch is taken, behind the prefetching.
What cannot be read comes after what can: a block ends before the first batch that cannot be read, and the next call,
which the scan makes behind it and never beside it, raises the error. The last batch of a pass is a block of its own.

With `num_threads` steps are read beside each other, which `scan` cannot: there a nested `map` does it, batch by batch.

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
from ..format.ragged import Values
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
_CUT_FROM_STEPS = 256


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
    steps = tf.data.Dataset.from_tensor_slices(tuple(passes.blocks.T))

    def fetched(pass_: tf.Tensor, number: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> tuple[tf.Tensor, Any]:
        pass_, *tensors = tf.py_function(passes.fetch, [pass_, number, first, last], [tf.int64, *passes.flat_dtypes])
        return tf.ensure_shape(pass_, []), (tf.ensure_shape(pass_, []) + number, last, tuple(tensors))

    if options.num_threads > 1:
        parallel = {"num_parallel_calls": options.num_threads, "deterministic": True}
        begun = tf.data.Dataset.range(1).map(lambda _: tf.py_function(lambda: passes.next_epoch, [], tf.int64))
        found = begun.flat_map(lambda pass_: steps.map(lambda *step: fetched(pass_, *step)[1], **parallel))
    else:
        found = steps.scan(np.int64(-1), lambda pass_, step: fetched(pass_, *step))
    if options.prefetch_bytes:
        found = found.prefetch(passes.blocks_ahead)

    def taken(epoch: tf.Tensor, last: tf.Tensor, tensors: tuple[tf.Tensor, ...]) -> object:
        with tf.control_dependencies([tf.numpy_function(passes.taken, [epoch, last], tf.int64)]):
            rows = passes.joined(iter(map(tf.identity, tensors)))
        return rows if structure is None else tf.nest.map_structure(rows.__getitem__, structure)

    found = found.map(taken)
    if passes.batches_per_block > 1:
        found = found.unbatch()
    return found.apply(tf.data.experimental.assert_cardinality(passes.num_steps * options.epochs))


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
        self._errors: dict[tuple[int, int], Exception] = {}  # of the steps before these, not raised yet
        with dataset.reader(list(columns)) as reader:
            block_bytes = max(1, options.prefetch_bytes // 2 if options.prefetch_bytes else _BLOCK_BYTES)
            block_bytes, row = min(_BLOCK_BYTES, block_bytes), row_bytes(reader, len(dataset))
            together = min(_MAX_BATCHES, batches_together(reader, options.batch_size, row, block_bytes))
        self.blocks_ahead = max(1, min(_MAX_BLOCKS_AHEAD, options.prefetch_bytes // block_bytes))
        # Cutting takes longer than calls of Python where there are few, and for ragged tensors.
        is_cut = self.num_steps >= _CUT_FROM_STEPS and options.num_threads == 1
        is_cut = is_cut and all(column.kind != "list" for column in columns.values())
        self.batches_per_block = each = together if is_cut else 1
        cuts = np.append(np.arange(0, self.num_steps - 1, each), [self.num_steps - 1, self.num_steps])
        numbers = np.repeat(np.arange(options.epochs), len(cuts) - 1)
        self.blocks = np.stack([numbers, *np.tile([cuts[:-1], cuts[1:]], options.epochs)], axis=1)

    # -- in the graph --------------------------------------------------------------------------------------------

    @property
    def flat_dtypes(self) -> list[tf.DType]:
        """Of the tensors that `fetch` returns beside the number of the pass."""
        return [dtype for spec in self._specs().values() for dtype in _flat_dtypes(spec)]

    def joined(self, tensors: Iterator[tf.Tensor]) -> dict[str, Any]:
        """Those tensors by column, with their static shapes."""
        return {name: _joined(spec, tensors, self.batches_per_block > 1) for name, spec in self._specs().items()}

    def _specs(self) -> dict[str, Any]:
        from .tensors import tensor_spec

        num_rows = self._options.batch_size if self._options.drop_remainder else None
        return {name: tensor_spec(column, num_rows) for name, column in self.columns.items()}

    # -- called by the graph -------------------------------------------------------------------------------------

    def fetch(self, pass_: tf.Tensor, number: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> list[Any]:
        """The number of the iteration's first pass (given: -1 while it is not known), and the tensors of some steps of
        the pass that comes `number` after it; of a block of several steps [steps, rows, ...]."""
        import tensorflow as tf

        from .tensors import flat_tensors

        begun = self.next_epoch if int(pass_) < 0 else int(pass_)
        rows = self._rows(begun + int(number), int(first), int(last))
        tensors = [tensor for name in self.columns for tensor in flat_tensors(rows[name])]
        if self.batches_per_block > 1:
            size = self._options.batch_size
            steps = [-1, size] if int(last) < self.num_steps else [1, -1]
            tensors = [tf.reshape(tensor, [*steps, *tensor.shape[1:]]) for tensor in tensors]
        return [np.int64(begun), *tensors]

    def taken(self, epoch: np.int64, last: np.int64) -> np.int64:
        """Note that somebody has got the steps before `last`."""
        if last == self.num_steps:
            self.next_epoch = int(epoch) + 1
        return np.int64(last)

    def _rows(self, epoch: int, first: int, last: int) -> Mapping[str, Values]:
        """The rows of the steps [first, last) of a pass, or of those of them before the first that cannot be read."""
        order, size = self._order(epoch), self._options.batch_size
        if (error := self._errors.pop((epoch, first), None)) is not None:
            raise error
        reader = self._reader(epoch)
        try:
            reader.prefetch(order, first * size)
            rows, error = gather_block(reader, order.rows(first * size, min(last * size, order.num_rows)), size)
        except BaseException:
            reader.close()
            raise
        self._errors.pop((epoch, last), None)  # of an iteration that was left
        if error is not None:
            self._errors[epoch, last] = error
        if last < self.num_steps:
            self._idle.append((epoch, reader))
        else:
            reader.close()
        return rows

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


def _flat_dtypes(spec: tf.TypeSpec) -> list[tf.DType]:
    import tensorflow as tf

    return [spec.dtype, tf.int64] if isinstance(spec, tf.RaggedTensorSpec) else [spec.dtype]


def _joined(spec: tf.TypeSpec, flat: Iterator[tf.Tensor], is_block: bool) -> tf.Tensor | tf.RaggedTensor:
    """The next tensor or ragged tensor of plain ones, with its static shape."""
    import tensorflow as tf

    values = next(flat)
    if not isinstance(spec, tf.RaggedTensorSpec):
        return tf.ensure_shape(values, [None, *spec.shape] if is_block else spec.shape)
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
) -> tuple[object, ...] | None:
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


def _choice(choice: ColumnChoice) -> str | dict[str, str] | tuple[str, ...]:
    if isinstance(choice, str):
        return choice
    if not choice:
        raise UnknownColumnError(f"{choice!r} names no column.")
    return dict(choice) if isinstance(choice, Mapping) else tuple(choice)
