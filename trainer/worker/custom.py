"""Way 3: the user's own `train_step` and `valid_step`, written with `tf.GradientTape` as for one device."""

from __future__ import annotations

from .epochs import callback_list, epochs_of, validate
from .session import Session


def run(session: Session) -> None:
    """Train with the job's steps."""
    model = session.model
    callbacks = callback_list(session)

    for _ in epochs_of(session, callbacks):
        for step, batch in enumerate(session.batches()):
            callbacks.on_train_batch_begin(step)
            result = session.train(batch)
            callbacks.on_train_batch_end(step, result)
            if model.stop_training:
                break

        validate(session, session.end.test)
