"""Way 2: a Python loop over batches with `train_on_batch` and `test_on_batch`.

A ticket (the number of a step) stands for the batch; every worker computes its part of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from .callbacks import Gate, callback_list
from .session import Session


def run(session: Session, gate: Gate) -> None:
    """Train with `keras.Model.train_on_batch`."""
    model = session.model
    model.train_function, model.test_function = session.train_function, session.test_function
    callbacks = callback_list(session, gate)

    model.stop_training = False
    callbacks.on_train_begin()
    logs: dict[str, Any] = {}
    for epoch in session.epochs():
        model.reset_metrics()
        callbacks.on_epoch_begin(epoch)

        with metrics_kept(model):
            for step, batch in enumerate(session.batches()):
                callbacks.on_train_batch_begin(step)
                result = model.train_on_batch(batch, return_dict=True)
                callbacks.on_train_batch_end(step, result)
                if model.stop_training:
                    break

            if session.evaluator is not None:
                gate.run("on_test_begin", {})
                for step, batch in enumerate(session.validation_batches()):
                    gate.run("on_test_batch_begin", step, {})
                    model.test_on_batch(batch, return_dict=True)
                    gate.run("on_test_batch_end", step, {})
                gate.run("on_test_end", {})

        logs = session.finish_epoch()
        callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break

    model.optimizer.finalize_variable_values(model.trainable_variables)
    callbacks.on_train_end(logs)


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
