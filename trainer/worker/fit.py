"""Way 1: Keras's own `fit`, inside the strategy scope of every worker.

Keras drives epochs, steps and callbacks; it calls our train function for a step and gets tickets (step numbers) for
data. There is one `fit` call for the whole run, since its end finalises the optimizer's averages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from ..engine.private_api import DataAdapter
from .callbacks import Gate, callback_list
from .session import Session


def run(session: Session, gate: Gate) -> None:
    """Train with `keras.Model.fit`."""
    model = session.model
    model.train_function = session.train_function
    model.fit(
        Tickets(session),
        epochs=session.job.wanted.epochs,
        initial_epoch=session.epochs().start,
        callbacks=callback_list(session, gate),
        verbose=0,
    )


class Tickets(DataAdapter):
    """Feeds `fit` with step numbers; the rows are read inside the step."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_tf_dataset(self) -> tf.distribute.DistributedDataset:
        """The tickets of an epoch, as a dataset that Keras takes for distributed already."""
        return _TicketDataset(self._session)

    @property
    def num_batches(self) -> int:
        """Steps of an epoch."""
        return self._session.engine.steps_per_epoch

    @property
    def batch_size(self) -> int:
        """Rows of a full global batch."""
        return self._session.job.wanted.global_batch_size

    @property
    def has_partial_batch(self) -> None:
        """Not told: steps are counted."""
        return

    @property
    def partial_batch_size(self) -> None:
        """Not told: steps are counted."""
        return


class _TicketDataset(tf.distribute.DistributedDataset):
    def __init__(self, session: Session) -> None:
        self._session = session

    def __iter__(self) -> Iterator[Any]:
        return self._session.batches()
