"""Way 1: Keras's own `fit`, inside the strategy scope of every worker.

Keras drives epochs, steps and callbacks; it calls our train function for a step and gets numbers of steps for data.
There is one `fit` call for the whole run, since its end finalises the optimizer's averages.
"""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from ..engine.private_api import DataAdapter
from .epoch_end import StepIndex
from .epochs import callback_list
from .session import Session


def run(session: Session) -> None:
    """Train with `keras.Model.fit`."""
    model = session.model
    model.train_function = session.train_function
    model.fit(
        StepNumbers(session),
        epochs=session.job.wanted.epochs,
        initial_epoch=session.epochs().start,
        callbacks=callback_list(session, validates=True),
        verbose=0,
    )


class StepNumbers(DataAdapter):
    """Feeds `fit` with numbers of steps; the rows are read inside the step."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_tf_dataset(self) -> tf.distribute.DistributedDataset:
        """The numbers of an epoch's steps, as a dataset that Keras takes for distributed already."""
        return _StepNumberDataset(self._session)

    @property
    def num_batches(self) -> int:
        """Steps of an epoch."""
        return self._session.position.steps_per_epoch

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


class _StepNumberDataset(tf.distribute.DistributedDataset):
    def __init__(self, session: Session) -> None:
        self._session = session

    def __iter__(self) -> Iterator[StepIndex]:
        return self._session.batches()
