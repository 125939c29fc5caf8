"""Way 2: a Python loop over batches with `train_on_batch` and `test_on_batch`.

The number of a step stands for its batch; every worker computes its part of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from .epochs import callback_list, epochs_of, validate
from .session import Session


def run(session: Session) -> None:
    """Train with `keras.Model.train_on_batch`."""
    model = session.model
    model.train_function, model.test_function = session.train_function, session.test_function
    callbacks = callback_list(session)

    for _ in epochs_of(session, callbacks):
        with metrics_kept(model):
            for step, batch in enumerate(session.batches()):
                session.caller.before_step(step)
                callbacks.on_train_batch_begin(step)
                session.prepare_first(step)  # Keras calls for steps inside of the strategy's scope
                result = model.train_on_batch(batch, return_dict=True)
                callbacks.on_train_batch_end(step, result)
                if model.stop_training:
                    break

            session.caller.after_steps()
            validate(session, model.test_on_batch)


@contextlib.contextmanager
def metrics_kept(model: keras.Model) -> Iterator[None]:
    """Keep Keras from resetting the metric objects at every batch.

    The epoch's metrics are the engine's, which shows them in these objects; a reset takes as long as a small step.
    """
    model.reset_metrics = lambda: None
    try:
        yield
    finally:
        del model.reset_metrics
