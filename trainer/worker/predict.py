"""Predictions of a range of rows, microbatch by microbatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf
from heliostat.data import Dataset

from ..columns import Columns, with_texts
from ..engine.model import BuiltModel
from ..engine.per_replica import PerReplica
from ..engine.python_draws import drawn_from
from ..engine.runtime import BUILD_LOCK
from ..engine.tensors import to_tensor


class Predictor:
    """Runs the model's `predict_step` on one replica after another.

    Args:
        built: the model.
        columns: the input columns.
        sample: a few rows of each, for shapes and dtypes.
    """

    def __init__(self, built: BuiltModel, columns: Columns, sample: Mapping[str, np.ndarray]) -> None:
        self._built, self._columns = built, columns
        specs = [tf.TensorSpec((None, *sample[name].shape[1:]), sample[name].dtype) for name in columns.names]
        self._num_replicas = built.strategy.num_replicas_in_sync
        with BUILD_LOCK:
            self._per_replica = PerReplica(built.strategy, built.runtime, self._predicted, specs)

    def rows(
        self, dataset: Dataset, start: int, stop: int, rows_at_once: int, told: Callable[[int], None] = lambda _: None
    ) -> object:
        """Predictions of the rows [start, stop) of a dataset.

        Args:
            dataset: where the rows are.
            start, stop: the range of row ids.
            rows_at_once: rows of one call of the model on a replica; bits may depend on it.
            told: called with how many more rows are computed.

        Returns:
            what the model returns, with arrays ``[stop - start, ...]``, in the order of the rows.
        """
        pieces: list[list[np.ndarray]] = []
        cuts = [(a, min(a + rows_at_once, stop)) for a in range(start, stop, rows_at_once)]
        with dataset.reader(self._columns.names) as reader:
            for at in range(0, len(cuts), self._num_replicas):
                wave = cuts[at : at + self._num_replicas]
                filled = [*wave, *[wave[-1]] * (self._num_replicas - len(wave))]
                batches = [with_texts(reader.gather(np.arange(a, b, dtype=np.int64))) for a, b in filled]
                inputs = [[to_tensor(batch[name]) for name in self._columns.names] for batch in batches]
                by_replica = self._per_replica(inputs)
                # Copies: an output may be a view of the input's buffer.
                pieces += [[np.array(output) for output in by_replica[replica]] for replica in range(len(wave))]
                told(wave[-1][1] - wave[0][0])
        joined = [np.concatenate(parts) for parts in zip(*pieces, strict=True)]
        return keras.tree.pack_sequence_as(self._structure, joined)

    def _predicted(self, *columns: tf.Tensor) -> object:
        x, _, _ = self._columns.assemble(dict(zip(self._columns.names, columns, strict=True)))
        with drawn_from(self._built.seed):
            outputs = self._built.model.predict_step((x,))
        self._structure = outputs
        return outputs
