"""Predictions of a range of rows, microbatch by microbatch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from heliostat.data import Dataset

from .columns import Columns
from .runtime import BUILD_LOCK
from .tensors import to_tensor
from .trainee import Trainee


class Predictor:
    """Runs the model's `predict_step` on one replica after another.

    Args:
        trainee: the model.
        columns: the input columns.
        sample: a few rows of each, for shapes and dtypes.
    """

    def __init__(self, trainee: Trainee, columns: Columns, sample: Mapping[str, np.ndarray]) -> None:
        self._trainee, self._columns = trainee, columns
        specs = [[tf.TensorSpec((None, *sample[name].shape[1:]), sample[name].dtype) for name in columns.names]]
        self._num_replicas = num_replicas = trainee.strategy.num_replicas_in_sync

        # As in `Compute`: no identity on the first device behind the results of the others.
        @tf.function(autograph=False, experimental_attributes={"_disable_acd": num_replicas > 1})
        def predict(replica_inputs: Any) -> Any:
            outputs = trainee.strategy.run(self._on_replica, args=(replica_inputs,))
            self._structure = outputs
            parts = [trainee.strategy.experimental_local_results(output) for output in keras.tree.flatten(outputs)]
            return list(zip(*parts, strict=True))

        with BUILD_LOCK:
            self._function = predict.get_concrete_function(specs * num_replicas)

    def rows(self, dataset: Dataset, start: int, stop: int, rows_at_once: int) -> Any:
        """Predictions of the rows [start, stop) of a dataset, in their order: a structure of arrays."""
        pieces: list[Any] = []
        cuts = [(a, min(a + rows_at_once, stop)) for a in range(start, stop, rows_at_once)]
        with dataset.reader(self._columns.names) as reader:
            for at in range(0, len(cuts), self._num_replicas):
                chunk = cuts[at : at + self._num_replicas]
                filled = [*chunk, *[chunk[-1]] * (self._num_replicas - len(chunk))]
                batches = [reader.gather(np.arange(a, b, dtype=np.int64)) for a, b in filled]
                inputs = [[to_tensor(batch[name]) for name in self._columns.names] for batch in batches]
                by_replica = self._function(inputs)
                # Copies: an output may be a view of the input's buffer.
                pieces += [[np.array(output) for output in by_replica[replica]] for replica in range(len(chunk))]
        joined = [np.concatenate(parts) for parts in zip(*pieces, strict=True)]
        return keras.tree.pack_sequence_as(self._structure, joined)

    def _on_replica(self, replica_inputs: Any) -> Any:
        replica = int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))
        batch = dict(zip(self._columns.names, replica_inputs[replica], strict=True))
        x, _, _ = self._columns.assemble(batch)
        step = self._trainee.model.predict_step
        return step((x,)) if self._num_replicas == 1 else tf.function(step, autograph=False)((x,))
